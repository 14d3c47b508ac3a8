"""The table backup_runs: what was done with backups and how it ended; and the word to NOTIFY_URLS about it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator

from hub.backups.store import BusyError
from hub.errors import HubError
from hub.notify import tell
from hub.settings import Settings
from hub.timescale.connection import connect

_log = logging.getLogger(__name__)
# Kinds that one process does at a time: an older row that still runs when a new one begins was killed.
_ALONE = frozenset({"backup", "prune"})


@dataclasses.dataclass
class Entry:
    """What the block of `recorded` learns while it works; written down when it ends. The one mutable thing here."""

    backup: str | None = None
    bytes: int | None = None
    bytes_live: int | None = None
    rows: int | None = None
    manifest_sha256: str | None = None
    # A result that is bad although nothing was raised: damage that was found, a drill that differs.
    problem: str | None = None


@contextlib.contextmanager
def recorded(settings: Settings, kind: str, backup: str | None = None, *, quiet: bool = False) -> Iterator[Entry]:
    """Keep a row of backup_runs for the block, and tell of its failure and of its recovery.

    Books that cannot be kept (no database, no such table yet) and notifications that cannot be sent are
    logged; they never change how the block ends. That another process is at work is no failure.
    """
    entry, started = Entry(backup), time.monotonic()
    number = None if quiet else _open(settings, kind, backup)
    try:
        yield entry
    except BusyError as error:
        _close(settings, number, entry, "failed", str(error), time.monotonic() - started)
        raise
    except BaseException as error:
        message = str(error) if isinstance(error, HubError) else f"{type(error).__name__}: {error}"
        _close(settings, number, entry, "failed", message, time.monotonic() - started)
        if isinstance(error, Exception) and not quiet:
            say(settings, kind, message)
        raise
    state = "failed" if entry.problem else "done"
    _close(settings, number, entry, state, entry.problem or "", time.monotonic() - started)
    if not quiet:
        say(settings, kind, entry.problem)


def say(settings: Settings, kind: str, problem: str | None) -> None:
    """Tell of a failure or of its end; what goes wrong with that is logged."""
    try:
        tell(settings, f"backup {kind}" if kind != "backup" else kind, problem)
    except HubError as error:
        _log.warning("not notified: %s", error)


def manifest_digest(settings: Settings, backup: str) -> str | None:
    """The digest that a backup's manifest had when it was taken, None if the books do not know it."""
    with contextlib.suppress(HubError), connect(settings) as connection:
        row = connection.execute(
            "SELECT manifest_sha256 FROM backup_runs WHERE kind = 'backup' AND backup = %s"
            " AND manifest_sha256 IS NOT NULL ORDER BY id DESC LIMIT 1",
            (backup,),
        ).fetchone()
        return None if row is None else str(row[0])
    return None


def _open(settings: Settings, kind: str, backup: str | None) -> int | None:
    try:
        with connect(settings) as connection:
            row = connection.execute(
                "INSERT INTO backup_runs (kind, backup, state, started_at)"
                " VALUES (%s, %s, 'running', now()) RETURNING id",
                (kind, backup),
            ).fetchone()
            assert row is not None
            return int(row[0])
    except HubError as error:
        _log.info("backup_runs is not kept: %s", error)
        return None


def _close(settings: Settings, number: int | None, entry: Entry, state: str, message: str, seconds: float) -> None:
    if number is None:
        return
    try:
        with connect(settings) as connection:
            connection.execute(
                "UPDATE backup_runs SET state = %s, message = %s, seconds = %s, finished_at = now(), backup = %s,"
                " bytes = %s, bytes_live = %s, rows = %s, manifest_sha256 = %s WHERE id = %s",
                (
                    state, message or None, round(seconds, 3), entry.backup, entry.bytes, entry.bytes_live,
                    entry.rows, entry.manifest_sha256, number,
                ),
            )  # fmt: skip
    except HubError as error:
        _log.warning("backup_runs is not kept: %s", error)


def mark_lost(settings: Settings) -> int:
    """Mark runs of killed processes; call while holding the store's lock. Returns how many there were."""
    with contextlib.suppress(HubError), connect(settings) as connection:
        return connection.execute(
            "UPDATE backup_runs SET state = 'lost', message = 'its process ended without a word'"
            " WHERE state = 'running' AND kind = ANY(%s) AND started_at < now() - interval '1 minute'",
            (sorted(_ALONE),),
        ).rowcount
    return 0
