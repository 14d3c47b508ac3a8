"""The proxy's connections: a pool that can only read, and a small one for what must be written."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import psycopg_pool
from psycopg import errors as pg

from hub.errors import SchemaError, UnavailableError
from hub.proxy.numbers import Numbers
from hub.proxy.problems import Problem, unavailable
from hub.settings import Settings
from hub.timescale.connection import explain, parameters

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Pool = psycopg_pool.AsyncConnectionPool[Connection]

# How long a request waits for a connection, and how many may wait: while the database is away, every
# other one is told so at once.
_WAIT_SECONDS = 2.0
_WAITING = 64


def credentials(settings: Settings) -> dict[str, Any]:
    """libpq parameters of the reading role: PROXY_DB_USER where it is set, DB_USER otherwise."""
    given = parameters(settings)
    if settings.proxy_db_user:
        given["user"] = settings.proxy_db_user
        given["password"] = settings.proxy_db_password.get_secret_value() if settings.proxy_db_password else ""
    return given


class Database:
    """Both pools. They open when the app starts, whether or not the database is there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        milliseconds = int(1000 * max(settings.proxy_timeout_seconds - 1, 0.5))
        self.reader = _pool("reader", credentials(settings), milliseconds, size=(2, 8), read_only=True)
        self.writer = _pool("writer", parameters(settings), milliseconds, size=(0, 4), read_only=False)

    async def open(self) -> None:
        for pool in (self.reader, self.writer):
            await pool.open(wait=False)

    async def close(self) -> None:
        for pool in (self.reader, self.writer):
            await pool.close(timeout=2)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection within a READ ONLY transaction. Raises Problem 503 or 504."""
        with _as_problems(self.settings):
            async with self.reader.connection() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        """A connection within a transaction that may write. Raises Problem 503 or 504."""
        with _as_problems(self.settings):
            async with self.writer.connection() as connection:
                yield connection

    def count(self, numbers: Numbers) -> None:
        """Put the state of the pools into the metrics."""
        for pool in (self.reader, self.writer):
            stats = pool.get_stats()
            size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
            numbers.connections.labels(pool.name, "used").set(size - idle)
            numbers.connections.labels(pool.name, "idle").set(idle)
            numbers.connections.labels(pool.name, "waited_for").set(stats.get("requests_waiting", 0))


def _pool(name: str, given: dict[str, Any], milliseconds: int, *, size: tuple[int, int], read_only: bool) -> Pool:
    options = f"{given['options']} -c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout=60s"
    if read_only:
        options += " -c default_transaction_read_only=on"

    async def configure(connection: Connection) -> None:
        await connection.set_read_only(read_only or None)

    return psycopg_pool.AsyncConnectionPool(
        kwargs={**given, "options": options, "application_name": "reading-hub-proxy", "connect_timeout": 3},
        connection_class=psycopg.AsyncConnection[tuple[Any, ...]],
        name=name,
        min_size=size[0],
        max_size=size[1],
        open=False,
        configure=configure,
        # Asks the server, so that no request gets a connection that a restart has broken.
        check=psycopg_pool.AsyncConnectionPool.check_connection,
        timeout=_WAIT_SECONDS,
        max_waiting=_WAITING,
        max_idle=60,
        # Short, since the pauses between attempts double: after it, the next request begins anew.
        reconnect_timeout=3,
    )


@contextlib.contextmanager
def _as_problems(settings: Settings) -> Iterator[None]:
    away = "The database cannot be reached just now. Try again."
    try:
        yield
    except (psycopg_pool.PoolTimeout, psycopg_pool.TooManyRequests, psycopg_pool.PoolClosed) as error:
        raise unavailable(away) from error
    except pg.QueryCanceled as error:
        raise Problem(504, "The database took too long. Ask for a shorter window, or for a rollup.") from error
    except psycopg.Error as error:
        explained = explain(error, settings)
        if isinstance(explained, UnavailableError):
            raise unavailable(away) from error
        if isinstance(explained, SchemaError):
            raise unavailable("The database is not set up yet; its schema is too old.", seconds=30) from error
        raise explained from error
