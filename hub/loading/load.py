"""Load a window of days of a stream from MongoDB into its table: idempotent, in one transaction."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import math
import time
from collections import Counter
from collections.abc import Generator, Sequence
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import errors as pg

from hub.errors import HubError, RefusedError
from hub.loading.digests import Digests
from hub.loading.elsewhere import Elsewhere
from hub.loading.known import Known
from hub.loading.model import EPOCH, Mapping
from hub.loading.prefetch import prefetch
from hub.loading.report import DayCount, LoadReport
from hub.loading.source import scan
from hub.loading.staging import Progress, Staged, stage
from hub.mongo import Documents, collection, missing, where
from hub.rollups.declared import ROLLUPS
from hub.rollups.model import Rollup
from hub.rollups.refresh import window_of
from hub.settings import Settings
from hub.streams.model import Mode, Stream
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect

# Loads wait for each other: two that touch the same documents would otherwise deadlock.
_LOAD_LOCK = 0x4C4F4144
DEFAULT_DELETE_SHARE = 0.2
_NOT_STAGED = "AND NOT EXISTS (SELECT FROM staged_rejects WHERE staged_rejects.mongo_id = $rejects.mongo_id)"


class _StartOver(Exception):
    """The direct COPY met a document that needs the merge."""


def load(
    settings: Settings,
    stream: Stream,
    start: dt.date,
    end: dt.date,
    *,
    mode: Mode | None = None,
    max_delete_share: float = DEFAULT_DELETE_SHARE,
    thorough: bool = False,
    progress: Progress | None = None,
) -> LoadReport:
    """Load the UTC days from `start` up to, but not including, `end`.

    `mode` is the stream's by default. Nothing is written if nothing changed; a load that fails or is killed changes nothing. `thorough`
    compares every row even if the documents are those of the last load. Days that are older than what the
    stream keeps are left out. `progress` is called with the number of documents so far. Raises UnavailableError, DeniedError or SchemaError
    for the servers, and RefusedError when `mirror` would delete more than `max_delete_share` of a day.
    """
    began, mode = time.monotonic(), mode or stream.mode
    now = dt.datetime.now(dt.UTC)
    first = stream.first_kept(start, end, now)
    skipped = (first - start).days
    if first == end:
        return LoadReport.of_nothing(window_of(start, end), mode, skipped)
    window = window_of(first, end)
    mapping = Mapping.of(stream, now)
    with collection(settings, stream) as documents, connect(settings) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOAD_LOCK,))
        if mode is Mode.MIRROR:
            refuse_expiring(documents, stream)
        job = _Load(connection, documents, stream, mapping, window, progress or (lambda _: None))
        report = job.run(mode, max_delete_share, thorough)
        if not report.documents and (why := missing(documents)):
            raise HubError(f"{where(settings, stream)}: {why} Set what your application writes to.")
    return dataclasses.replace(report, not_kept=skipped, seconds=time.monotonic() - began)


def refuse_expiring(documents: Documents, stream: Stream) -> None:
    """Raise RefusedError for a collection whose documents expire: to mirror it would delete history for it."""
    expiring = [index["name"] for index in documents.list_indexes() if "expireAfterSeconds" in index]
    if expiring:
        raise RefusedError(
            f"the stream {stream.name!r} cannot mirror {stream.database}.{stream.collection}: its index {expiring[0]!r} makes"
            " documents expire (TTL), and mirroring would delete their rows here. Use mode upsert, or drop the index."
        )


class _Load:
    """One load within one transaction."""

    def __init__(
        self,
        connection: Connection,
        documents: Documents,
        stream: Stream,
        mapping: Mapping,
        window: tuple[dt.datetime, dt.datetime],
        progress: Progress,
    ) -> None:
        self.connection = connection
        self.documents = documents
        self.stream = stream
        self.mapping = mapping
        self.window = window
        self.progress = progress
        # Times are counted and marked by bins that no bucket of a rollup, nor the end of a day, cuts in two.
        length = math.gcd(3600, *(rollup.seconds for rollup in _rollups(stream)))
        self.bounds = {"start": window[0], "end": window[1], "bin": dt.timedelta(seconds=length)}
        self.hypertable = detect(connection).hypertables
        self.elsewhere = Elsewhere(connection, stream, window, hypertable=self.hypertable)
        self.known = Known(connection, stream, window, mapping)
        self.digests = Digests(mapping)

    def run(self, mode: Mode, max_delete_share: float, thorough: bool) -> LoadReport:
        if self.hypertable:
            # Late readings may touch more rows of a compressed chunk than the server's default allows (100,000).
            self._sql("SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0")
        recalled = None if thorough else self.known.recall(mode)
        if recalled:
            with prefetch(scan(self.documents, self.mapping, self.window)) as batches:
                for batch in batches:
                    self.digests.add(batch)
            if recalled.are(self.digests, self.known.signature):
                self.known.done()
                return self.known.report(recalled, self.digests, mode)
        report = self._load(mode, max_delete_share)
        self.known.remember(self.digests, report, new=report.path == "copy")
        return report

    def _scan(self) -> Generator[bytes, None, None]:
        """The window's documents; `self.digests` are theirs at the end."""
        self.digests = Digests(self.mapping)
        return self.digests.watching(scan(self.documents, self.mapping, self.window))

    def _load(self, mode: Mode, max_delete_share: float) -> LoadReport:
        if not self._exists("event_timestamp >= %(start)s AND event_timestamp < %(end)s"):
            with contextlib.suppress(_StartOver), self.connection.transaction():
                return self._direct(mode)
        return self._merge(mode, max_delete_share)

    def _direct(self, mode: Mode) -> LoadReport:
        """COPY straight into the table: for a window that has no rows yet."""
        alone = self.elsewhere.nothing()
        try:
            staged = self._stage(self.stream.table)
        except pg.UniqueViolation:
            raise _StartOver from None
        new = "$table WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s"
        if staged.identifiers.may_repeat() and self._file("direct_check").fetchone():
            raise _StartOver
        if not alone and self.elsewhere.rows(new):
            raise _StartOver
        self.elsewhere.forget(new)
        bins = self._file("direct_bins").fetchall()
        found = Counter[int]()
        for start, count in bins:
            found[_day_number(start.date())] += count
        self._mark_dirty("unnest(%s::timestamptz[]) AS touched (event_timestamp)", [[start for start, _ in bins]])
        return self._finish(staged, found, mode, written=found, inserted=found.total(), path="copy")

    def _merge(self, mode: Mode, max_delete_share: float) -> LoadReport:
        """COPY into a temporary table, then write only what differs."""
        self._sql("CREATE TEMP TABLE touched (event_timestamp timestamptz NOT NULL) ON COMMIT DROP")
        self._sql("CREATE TEMP TABLE staged (LIKE $table INCLUDING DEFAULTS) ON COMMIT DROP")
        staged = self._stage("staged")
        self._sql("ANALYZE staged")
        repeated = [_day_number(day) for (day,) in self._file("deduplicate")]
        staged.rows.subtract(Counter(repeated))
        found = self._count_days("staged")
        deleted = self._mirror(max_delete_share) if mode is Mode.MIRROR else 0
        self._file("delta")
        inserted, total = self._sql("SELECT count(*) FILTER (WHERE is_new), count(*) FROM delta").fetchone() or (0, 0)
        moved = 0
        if total:
            if inserted:
                moved = self._move()
                self.elsewhere.forget("delta WHERE is_new")
            self._file("upsert")
            self._sql("INSERT INTO touched SELECT event_timestamp FROM delta")
        self._mark_dirty("touched")
        return self._finish(
            staged, found, mode, written=self._count_days("touched"), inserted=inserted - moved, updated=total - inserted, moved=moved,
            deleted=deleted, repeated=len(repeated),
        )  # fmt: skip

    def _stage(self, table: str) -> Staged:
        return stage(self.connection, table, self._scan(), self.mapping, self.window, self.progress)

    def _move(self) -> int:
        """Delete the old rows of documents whose time has changed, and take them out of their days' books."""
        moved = self._file("moved").fetchall() + self.elsewhere.rows("delta WHERE is_new")
        if moved:
            self._take_away(moved)
            with self.connection.cursor() as cursor:
                cursor.executemany("INSERT INTO touched (event_timestamp) VALUES (%s)", [(time,) for _, time in moved])
        return len(moved)

    def _bury(self, identifiers: list[str]) -> int:
        """Delete the rows of documents that have become dead letters: these have what the documents say now."""
        if not identifiers:
            return 0
        self._sql("CREATE TEMP TABLE buried ON COMMIT DROP AS SELECT unnest(%s::text[]) AS mongo_id", [identifiers])
        rows = self._file("buried").fetchall() + self.elsewhere.rows("buried")
        if rows:
            self._take_away(rows)
            self._mark_dirty("unnest(%s::timestamptz[]) AS touched (event_timestamp)", [[time for _, time in rows]])
        return len(rows)

    def _take_away(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Delete rows, by id and time, and take them out of their days' books.

        A row whose document the newest load of its day did not read any more is in no book: what is loaded is at
        most what is there.
        """
        with self.connection.cursor() as cursor:
            cursor.executemany(f"DELETE FROM {self.stream.table} WHERE mongo_id = %s AND event_timestamp = %s", rows)
        for day in sorted({moment.astimezone(dt.UTC).date() for _, moment in rows}):
            first, last = window_of(day, day + dt.timedelta(days=1))
            self._file("books_lessen", day=day, first=first, last=last)

    def _mirror(self, max_delete_share: float) -> int:
        for day, doomed, present in self._file("mirror_doomed").fetchall():
            if doomed > max_delete_share * present:
                raise RefusedError(
                    f"mirror would delete {doomed} of the {present} rows of {day}, more than the allowed share of"
                    f" {max_delete_share:.0%}: their documents are not in MongoDB. Nothing was changed. If they are"
                    " to go, launch with a larger max_delete_share."
                )
        return self._file("mirror_delete").rowcount

    def _finish(
        self,
        staged: Staged,
        found: dict[int, int],
        mode: Mode,
        *,
        written: dict[int, int],
        inserted: int,
        updated: int = 0,
        moved: int = 0,
        deleted: int = 0,
        repeated: int = 0,
        path: str = "merge",
    ) -> LoadReport:
        expected = {day: count for day, count in staged.rows.items() if count}
        if found != expected:
            raise HubError(
                f"rows were lost between MongoDB and the database ({_differences(expected, found)}), and nothing is kept"
                f" of this load. Look for a trigger or rule on {self.stream.table}."
            )
        heal = "rejects_heal" if path == "copy" else "rejects_heal_merged"
        undated_new = 0
        if staged.reasons:
            fresh = self._file("rejects_upsert").fetchall()
            undated_new = sum(undated for _, undated in fresh)
            rejects_changed = len(fresh) + self._file(heal, _NOT_STAGED).rowcount
            deleted += self._bury([identifier for identifier, _ in fresh])
        else:
            rejects_changed = self._file(heal).rowcount
        days = self._book(staged, found, written)
        return LoadReport(
            *self.window, mode, days, staged.documents, staged.rejects[None], staged.elsewhere, repeated,
            inserted, updated, moved, deleted, rejects_changed, undated_new, staged.unusable,
            dict(staged.reasons), path, 0.0,
        )  # fmt: skip

    def _book(self, staged: Staged, found: dict[int, int], written: dict[int, int]) -> tuple[DayCount, ...]:
        """Write down what each day of the window came to, where that differs from what is written."""
        first, last = self.window[0].date(), self.window[1].date()
        days = []
        for offset in range((last - first).days):
            day = first + dt.timedelta(days=offset)
            number = _day_number(day)
            loaded, rejected = found.get(number, 0), staged.rejects[day]
            days.append(DayCount(day, staged.rows[number] + rejected, loaded, rejected, written.get(number, 0)))
        columns = [[getattr(day, name) for day in days] for name in ("day", "read", "loaded", "rejected")]
        self.connection.execute(
            f"INSERT INTO {self.stream.days} AS old (day, read, loaded, rejected)"
            " SELECT * FROM unnest(%s::date[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " ON CONFLICT (day) DO UPDATE SET read = excluded.read, loaded = excluded.loaded,"
            " rejected = excluded.rejected, load_at = excluded.load_at"
            " WHERE (old.read, old.loaded, old.rejected) <> (excluded.read, excluded.loaded, excluded.rejected)",
            columns,
        )
        return tuple(days)

    def _mark_dirty(self, touched: str, parameters: Sequence[Any] | None = None) -> None:
        for rollup in _rollups(self.stream):
            self._sql(
                f"INSERT INTO rollup_dirty (rollup, bucket) SELECT DISTINCT '{rollup.name}',"
                f" {rollup.bucket_sql(time_bucket=False)} FROM {touched}",
                parameters,
            )

    def _count_days(self, table: str) -> dict[int, int]:
        counted = self._sql(
            f"SELECT (event_timestamp AT TIME ZONE 'UTC')::date, count(*) FROM {table}"
            " WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s GROUP BY 1"
        )
        return {_day_number(day): count for day, count in counted}

    def _exists(self, condition: str) -> bool:
        row = self._sql(f"SELECT EXISTS (SELECT FROM $table WHERE {condition})").fetchone()
        return bool(row and row[0])

    def _sql(self, statement: str, parameters: Sequence[Any] | None = None) -> psycopg.Cursor[tuple[Any, ...]]:
        return self.connection.execute(self.stream.sql(statement), self.bounds if "%(" in statement else parameters)

    def _file(self, name: str, condition: str = "", **given: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        text = (files("hub.loading") / "sql" / f"{name}.sql").read_text(encoding="utf-8") + condition
        return self.connection.execute(self.stream.sql(text), self.bounds | given if "%(" in text else None)


def _rollups(stream: Stream) -> list[Rollup]:
    return [rollup for rollup in ROLLUPS if rollup.source == stream.table]


def _differences(sent: dict[int, int], found: dict[int, int]) -> str:
    return ", ".join(
        f"{EPOCH.date() + dt.timedelta(days=day)}: {sent.get(day, 0)} sent, {found.get(day, 0)} found"
        for day in sorted(sent.keys() | found.keys())
        if sent.get(day) != found.get(day)
    )


def _day_number(day: dt.date) -> int:
    return (day - EPOCH.date()).days
