"""Recompute exactly the buckets that changed, from the finest rollup to the coarsest."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from psycopg.errors import LockNotAvailable

from hub.errors import SchemaError
from hub.rollups.dropped import dropped_before, would_lose
from hub.rollups.model import Rollup
from hub.timescale.connection import Connection, acting_as
from hub.timescale.level import Level, detect, timescale_version

Window = tuple[dt.datetime, dt.datetime]

# Advisory lock class; two refreshes of one rollup wait for each other.
_REFRESH_LOCK = 0x524F4C4C
# How long a refresh by somebody else is waited for.
_WAIT_SECONDS = 1800
# After the refresh of a rollup: its marks go, its children's come.
_BOOKS = """
WITH state AS (UPDATE rollup_state SET refreshed_at = now() WHERE rollup = %(rollup)s AND %(refreshed)s),
     gone AS (DELETE FROM rollup_dirty WHERE id = ANY(%(marks)s))
INSERT INTO rollup_dirty (rollup, bucket) SELECT * FROM unnest(%(children)s::text[], %(buckets)s::timestamptz[])
"""


@dataclasses.dataclass(frozen=True)
class RefreshReport:
    """What a refresh did. `windows` are half-open UTC ranges of whole buckets."""

    rollup: str
    level: Level
    windows: tuple[Window, ...]
    buckets: int
    seconds: float
    length: dt.timedelta
    """Of a bucket."""

    def buckets_by_day(self) -> Counter[dt.date]:
        """How many buckets were recomputed that begin on each UTC day."""
        days = Counter[dt.date]()
        for bucket, end in self.windows:
            while bucket < end:
                days[bucket.date()] += 1
                bucket += self.length
        return days


def mark_dirty(connection: Connection, rollup: Rollup, buckets: Iterable[dt.datetime]) -> None:
    """Note, in the caller's transaction, that these buckets of `rollup` are out of date."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO rollup_dirty (rollup, bucket) SELECT %s, unnest(%s::timestamptz[])",
            (rollup.name, sorted(set(buckets))),
        )


def merge(rollup: Rollup, buckets: Iterable[dt.datetime]) -> tuple[Window, ...]:
    """Merge buckets that touch into half-open windows."""
    length = dt.timedelta(seconds=rollup.seconds)
    windows: list[Window] = []
    for start in sorted(set(buckets)):
        if windows and windows[-1][1] == start:
            windows[-1] = (windows[-1][0], start + length)
        else:
            windows.append((start, start + length))
    return tuple(windows)


def refresh(
    connection: Connection,
    rollup: Rollup,
    children: Sequence[Rollup] = (),
    *,
    rebuild: Window | None = None,
) -> RefreshReport:
    """Bring `rollup` up to date in every bucket that is marked dirty, and in the window `rebuild`.

    `connection` must be in autocommit mode: a continuous aggregate cannot be refreshed in a transaction.
    `children` are the rollups built on this one; their buckets become dirty. Buckets whose raw rows retention has
    dropped are left as they are, also by a rebuild.
    Killed at any moment, the marks stay and the next refresh does the work. Raises SchemaError when the
    rollup does not exist.
    """
    began = dt.datetime.now(dt.UTC)
    level = detect(connection)
    locked = connection.execute(
        "SELECT to_regclass(%s), pg_advisory_lock(%s, hashtext(%s))", (rollup.name, _REFRESH_LOCK, rollup.name)
    ).fetchone()
    try:
        if locked is None or locked[0] is None:
            raise SchemaError(f"the rollup {rollup.name} does not exist. Run `hub db upgrade`.")
        marks = connection.execute("SELECT id, bucket FROM rollup_dirty WHERE rollup = %s", (rollup.name,)).fetchall()
        if rollup.streamed and level.continuous_aggregates:
            # Once refreshed, an open bucket would hide what comes into it until the next refresh.
            marks = [mark for mark in marks if mark[1] + dt.timedelta(seconds=rollup.seconds) <= began]
        buckets = {bucket for _, bucket in marks}
        if rebuild:
            buckets |= _buckets(rollup, rebuild)
        if gone := dropped_before(connection, rollup, level):
            buckets -= would_lose(connection, rollup, (bucket for bucket in buckets if bucket < gone))
        windows = merge(rollup, buckets)
        below = {(child.name, child.floor(bucket)) for child in children for bucket in buckets}
        books = {"rollup": rollup.name, "refreshed": bool(windows), "marks": [number for number, _ in marks],
                 "children": [name for name, _ in below], "buckets": [bucket for _, bucket in below]}  # fmt: skip
        if level.continuous_aggregates:
            _materialize(connection, rollup, windows)
            connection.execute(_BOOKS, books)
        else:
            with connection.transaction():
                for window in windows:
                    _recompute(connection, rollup, window, level)
                connection.execute(_BOOKS, books)
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_REFRESH_LOCK, rollup.name))
    seconds = (dt.datetime.now(dt.UTC) - began).total_seconds()
    return RefreshReport(rollup.name, level, windows, len(buckets), seconds, dt.timedelta(seconds=rollup.seconds))


def _materialize(connection: Connection, rollup: Rollup, windows: Sequence[Window]) -> None:
    """Level 1: each window in one go, its rows hashed.

    From 2.28 on, TimescaleDB cuts a window into batches of ten buckets, and reads the whole chunk for each. Its
    planner takes the rows of a window for a few hundred, and sorts them on disk. For a day of 270,000 readings
    these two made it 3.4 times the plain GROUP BY; without them, 1.4.

    Its commits need not wait for the disk: the one that takes the marks away comes after them and does.
    """
    if not windows:
        return
    version = timescale_version(connection) or ""
    whole = """, options => '{"buckets_per_batch": 0}'""" if _numbers(version) >= (2, 28) else ""
    with as_owner(connection, rollup.name):
        connection.execute(
            "SELECT set_config('enable_sort', 'off', false), set_config('synchronous_commit', 'off', false)"
        )
        try:
            for start, end in windows:
                _when_free(
                    lambda window=(start, end): connection.execute(  # type: ignore[misc]
                        f"CALL refresh_continuous_aggregate(%s, %s, %s{whole})", (rollup.name, *window)
                    )
                )
        finally:
            if not connection.closed:
                connection.execute("RESET enable_sort; RESET synchronous_commit")


def _when_free(refresh: Callable[[], object]) -> None:
    """Wait for a refresh of the same buckets that is at work, that of a policy: TimescaleDB refuses a second one."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            refresh()
            return
        except LockNotAvailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


@contextlib.contextmanager
def as_owner(connection: Connection, relation: str) -> Iterator[None]:
    """Be the owner of a relation for the block, where the role of the connection is not.

    TimescaleDB lets only an owner refresh a continuous aggregate. The writer may become the owner (SET ROLE),
    and has none of its rights otherwise, so that nothing else that it does can drop or alter a table.
    """
    row = connection.execute(
        "SELECT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE oid = %s::regclass AND NOT pg_has_role(relowner, 'USAGE')",
        (relation,),
    ).fetchone()
    with acting_as(connection, row[0]) if row else contextlib.nullcontext():
        yield


def _buckets(rollup: Rollup, window: Window) -> set[dt.datetime]:
    start, end, length = rollup.floor(window[0]), rollup.ceil(window[1]), dt.timedelta(seconds=rollup.seconds)
    return {start + length * number for number in range(int((end - start) / length))}


def _recompute(connection: Connection, rollup: Rollup, window: Window, level: Level) -> None:
    """Levels 2 and 3: make the buckets of one window what they should be, writing only rows that differ."""
    key = ("bucket", *rollup.dimensions)
    measures = [measure.name for measure in rollup.measures]
    same_key = " AND ".join(f"old.{name} = fresh.{name}" for name in key)
    old_values, fresh_values = (", ".join(f"{side}.{name}" for name in measures) for side in ("old", "fresh"))
    select = rollup.select(time_bucket=False, where=f"{rollup.time} >= %s AND {rollup.time} < %s")
    connection.execute(
        f"WITH fresh AS MATERIALIZED ({select}),"
        f" gone AS (DELETE FROM {rollup.name} AS old WHERE old.bucket >= %s AND old.bucket < %s"
        f" AND NOT EXISTS (SELECT FROM fresh WHERE {same_key}))"
        f" INSERT INTO {rollup.name} ({', '.join(rollup.columns)})"
        f" SELECT {', '.join(f'fresh.{name}' for name in rollup.columns)} FROM fresh WHERE NOT EXISTS ("
        f"SELECT FROM {rollup.name} AS old WHERE {same_key} AND old.bucket >= %s AND old.bucket < %s"
        f" AND ({old_values}) IS NOT DISTINCT FROM ({fresh_values}))"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET"
        f" {', '.join(f'{name} = excluded.{name}' for name in measures)}",
        window * 3,
    )


def window_of(start: dt.date, end: dt.date) -> Window:
    """The UTC days from `start` up to, but not including, `end` as a window."""
    return dt.datetime.combine(start, dt.time(), dt.UTC), dt.datetime.combine(end, dt.time(), dt.UTC)


def refresh_all(connection: Connection, rollups: Sequence[Rollup]) -> list[RefreshReport]:
    """Refresh every rollup that has dirty buckets, each after the one that it is built on."""
    return [refresh(connection, rollup, [child for child in rollups if child.parent == rollup]) for rollup in rollups]
