"""Put a restored database into the place of the live one by renaming, and back again."""

from __future__ import annotations

import dataclasses

from psycopg import errors as pg
from psycopg import sql as compose

from hub.backups.facts import has_timescaledb
from hub.backups.load import databases, drop, identifier, of_kind, scratch_name
from hub.errors import HubError, UnavailableError
from hub.settings import Settings
from hub.timescale.connection import MAINTENANCE, Connection, connect, where

_ATTEMPTS = 10
KEPT = "before"


@dataclasses.dataclass(frozen=True)
class Swap:
    """The database that serves now, and the one that was kept; None where there was none."""

    live: str
    kept: str | None


def swap(settings: Settings, restored: str, live: str) -> Swap:
    """Rename `live` aside and `restored` to `live`, in one transaction: at every moment one of them serves.

    Sessions in either database are ended. The kept one takes no connections, so that neither an
    application nor a background job goes on writing to it. Raises UnavailableError when sessions keep
    coming back; then nothing was changed.
    """
    exists = live in databases(settings)
    kept = scratch_name(live, KEPT) if exists else None
    with connect(settings, database=MAINTENANCE, autocommit=True) as connection:
        for _ in range(_ATTEMPTS):
            _end_sessions(connection, [restored, live])
            try:
                with connection.transaction():
                    if kept:
                        _rename(connection, live, kept)
                        connection.execute(
                            compose.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(identifier(kept))
                        )
                    _rename(connection, restored, live)
                    connection.execute(
                        compose.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(identifier(live))
                    )
            except pg.ObjectInUse:
                continue
            _wake(settings, live)
            return Swap(live, kept)
    if exists:
        _wake(settings, live)
    raise UnavailableError(
        f"{where(settings)}: sessions keep coming back to {live!r}, so it could not be replaced. Nothing was changed:"
        f" stop what uses it and run the restore again, or look at the restored copy {restored!r}."
    )


def kept_databases(settings: Settings, live: str) -> list[str]:
    """Databases that swaps of `live` have kept, oldest first."""
    return of_kind(databases(settings), live, KEPT)


def undo(settings: Settings, live: str) -> Swap:
    """Put the database that was kept last back into its place; the present one is kept in turn."""
    settings = settings.as_admin()
    kept = kept_databases(settings, live)
    if not kept:
        raise HubError(f"{where(settings)}: no earlier restore has kept a database of {live!r}; nothing to go back to.")
    return swap(settings, kept[-1], live)


def drop_kept(settings: Settings, live: str) -> list[str]:
    """Drop all databases that swaps have kept; return their names."""
    settings = settings.as_admin()
    kept = kept_databases(settings, live)
    for name in kept:
        drop(settings, name)
    return kept


def _rename(connection: Connection, old: str, new: str) -> None:
    connection.execute(compose.SQL("ALTER DATABASE {} RENAME TO {}").format(identifier(old), identifier(new)))


def _wake(settings: Settings, database: str) -> None:
    """Start TimescaleDB's scheduler in a database whose sessions were ended, the scheduler's own among them."""
    with connect(settings, database=database, autocommit=True) as connection:
        if has_timescaledb(connection):
            connection.execute("SELECT _timescaledb_functions.start_background_workers()")


def _end_sessions(connection: Connection, names: list[str]) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
        " WHERE datname = ANY(%s) AND pid <> pg_backend_pid()",
        (names,),
    )
