"""Connections to the reading database, and its errors in words that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.pq import TransactionStatus

from hub.errors import DeniedError, HubError, SchemaError, UnavailableError
from hub.settings import Settings

Connection = psycopg.Connection[tuple[Any, ...]]

# Every server has this database: from it others are made, renamed and dropped, and roles, which belong to all.
MAINTENANCE = "postgres"


def where(settings: Settings) -> str:
    """The server and database in words, without credentials."""
    return f"PostgreSQL database {settings.db_name!r} on {settings.db_host}:{settings.db_port}"


def parameters(settings: Settings, *, database: str | None = None) -> dict[str, Any]:
    """libpq connection parameters. Holds the password."""
    return {
        "host": settings.db_host,
        "port": settings.db_port,
        "dbname": database or settings.db_name,
        "user": settings.db_user,
        "password": settings.db_password.get_secret_value(),
        "connect_timeout": 10,
        "application_name": "reading-hub",
        # A server that vanished without a word is noticed within about a minute.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "options": "-c timezone=UTC",
    }


def login(settings: Settings) -> str:
    """The setting that names the role which these settings connect as."""
    return "DB_ADMIN_USER" if settings.db_user == settings.db_admin_user else "DB_USER"


@contextlib.contextmanager
def connect(settings: Settings, *, database: str | None = None, autocommit: bool = False) -> Iterator[Connection]:
    """Open a connection; its session works in UTC. Leaving the block commits, an exception rolls back.

    Raises UnavailableError, DeniedError, SchemaError or HubError in place of what psycopg raises.
    """
    with translated(settings), psycopg.connect(
        **parameters(settings, database=database), autocommit=autocommit, prepare_threshold=None
    ) as connection:  # fmt: skip
        yield connection


@contextlib.contextmanager
def acting_as(connection: Connection, role: str) -> Iterator[None]:
    """Be another role for the block, which the role of the connection may become (SET ROLE)."""
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        # In a transaction that has failed no statement runs: its connection is given up.
        if not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE:
            connection.execute("RESET ROLE")


@contextlib.contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Turn psycopg's errors inside the block into errors of the hub, saying what to do."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, settings) from error


def explain(error: psycopg.Error, settings: Settings) -> HubError:
    """The hub's error for one of psycopg."""
    place, text = where(settings), " ".join(str(error).split())
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.InvalidSchemaName | pg.UndefinedFunction):
        return SchemaError(f"{place} lacks what this version needs ({text}). Run `hub db upgrade`.")
    if isinstance(error, pg.InvalidPassword) or "password authentication failed" in text:
        setting = login(settings)
        return DeniedError(
            f"{place} refused {setting} {settings.db_user!r}: wrong password."
            f" Correct {setting.replace('_USER', '_PASSWORD')}."
        )
    # A refused connection comes without an error code.
    if isinstance(error, pg.InsufficientPrivilege) or "permission denied for database" in text:
        remedy = "Run `hub db roles`." if settings.with_roles else "Grant it, or use the owner."
        return DeniedError(f"{place}: {login(settings)} {settings.db_user!r} lacks a permission: {text}. {remedy}")
    if isinstance(error, pg.InvalidCatalogName) or ('database "' in text and "does not exist" in text):
        return SchemaError(f"{place} does not exist. Create it, then run `hub db upgrade`.")
    if isinstance(error, pg.DiskFull | pg.OutOfMemory | pg.ConfigurationLimitExceeded):
        return UnavailableError(f"{place} has no room left ({text}). Nothing was changed; free space and try again.")
    if isinstance(error, pg.DeadlockDetected | pg.SerializationFailure | pg.LockNotAvailable | pg.QueryCanceled):
        return UnavailableError(f"{place} gave up this transaction ({text}). Nothing was changed; try again.")
    if isinstance(error, psycopg.OperationalError | pg.AdminShutdown | pg.CrashShutdown | psycopg.InterfaceError):
        return UnavailableError(
            f"{place} cannot be reached or went away ({text}). Nothing was changed; check that it runs."
        )
    return HubError(f"{place}: {type(error).__name__}: {text}")
