"""A bounded spool on disk: samples wait here, in order, until the database has them."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from hub.errors import HubError
from hub.metrics.model import Sample

log = logging.getLogger(__name__)

# Samples kept in memory while the spool itself cannot be written: six hours at five a minute, about 3 MB.
_IN_MEMORY = 2_000


class Spool:
    """Samples on disk in an SQLite file, each written (fsync) before `append` returns.

    It takes at most `limit_bytes`; when it is full the oldest samples go. Where the disk is full or
    broken, the newest samples wait in memory instead. One thread appends, another one may take.
    """

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.dropped = 0
        self._memory: collections.deque[str] = collections.deque(maxlen=_IN_MEMORY)
        self._writable = True
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked or full, not broken
                raise HubError(f"the spool {path} cannot be opened: {error}") from error
            aside = path.with_name(f"{path.name}.broken-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}")
            path.rename(aside)
            log.error("the spool %s is broken (%s); it was kept as %s and a new one begun", path, error, aside.name)
            self._prepare()

    def append(self, samples: Iterable[Sample]) -> None:
        """Write the samples to disk, or keep them in memory if that fails."""
        self._memory.extend(sample.to_json() for sample in samples)
        try:
            with self._open() as database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT INTO samples (sample) VALUES (?)", [(text,) for text in self._memory])
                self._make_room(database)
                database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writable:
                log.error("the spool %s cannot be written (%s); samples wait in memory", self.path, error)
            self._writable = False
        else:
            self._memory.clear()
            if not self._writable:
                log.info("the spool %s can be written again", self.path)
            self._writable = True

    def take(self, count: int) -> list[tuple[int, Sample]]:
        """The oldest samples with their numbers, at most `count`. They stay until `remove`."""
        with self._open() as database:
            rows = database.execute(
                "SELECT number, sample FROM samples WHERE NOT refused ORDER BY number LIMIT ?", (count,)
            ).fetchall()
        return [(number, Sample.from_json(text)) for number, text in rows]

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget samples that the database has."""
        self._each("DELETE FROM samples WHERE number = ?", numbers)

    def refuse(self, numbers: Sequence[int]) -> None:
        """Set aside samples that the database will never take, so that they do not hold up the others."""
        self._each("UPDATE samples SET refused = 1 WHERE number = ?", numbers)

    def waiting(self) -> int:
        """Number of samples that the database does not have yet."""
        with self._open() as database:
            row = database.execute("SELECT count(*) FROM samples WHERE NOT refused").fetchone()
        return int(row[0]) + len(self._memory)

    def _each(self, statement: str, numbers: Sequence[int]) -> None:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(statement, [(number,) for number in numbers])
            database.execute("COMMIT")

    def _make_room(self, database: sqlite3.Connection) -> None:
        def size() -> int:
            pages, free, length = (
                int(database.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * length

        while size() > self.limit_bytes:
            gone = database.execute(
                "DELETE FROM samples WHERE number IN (SELECT number FROM samples ORDER BY number LIMIT"
                " (SELECT max(1, count(*) / 32) FROM samples))"
            ).rowcount
            if not gone:
                return
            self.dropped += gone
            log.error("the spool %s is full: its %s oldest samples were dropped", self.path, gone)

    def _open(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        database.execute("PRAGMA synchronous = FULL")
        # No write-ahead log: it would grow beside the limit, and once a minute nothing is gained by it.
        database.execute("PRAGMA journal_mode = TRUNCATE")
        return contextlib.closing(database)

    def _prepare(self) -> None:
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS samples (number INTEGER PRIMARY KEY AUTOINCREMENT,"
                " sample TEXT NOT NULL, refused INTEGER NOT NULL DEFAULT 0)"
            )
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
