"""What must hold after a load, asked of the database itself."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from importlib.resources import files

from hub.rollups.model import Rollup
from hub.rollups.refresh import window_of
from hub.streams.model import Stream
from hub.timescale.connection import Connection
from hub.timescale.newest import newest


@dataclasses.dataclass(frozen=True)
class DayBooks:
    """The books of one day against its rows. `rows` can be more than `loaded`: MongoDB forgets, the hub does not."""

    day: dt.date
    read: int
    loaded: int
    rejected: int
    rows: int

    @property
    def balanced(self) -> bool:
        return self.read == self.loaded + self.rejected and self.rows >= self.loaded


def books(connection: Connection, start: dt.date, end: dt.date) -> list[DayBooks]:
    """The books of each day of the half-open range that a load has seen, in order."""
    rows = connection.execute(
        "SELECT day, read, loaded, rejected, coalesce(present.rows, 0) FROM reading_days"
        " LEFT JOIN (SELECT (event_timestamp AT TIME ZONE 'UTC')::date AS day, count(*) AS rows FROM reading_analytics"
        "   WHERE event_timestamp >= %s AND event_timestamp < %s GROUP BY 1) AS present USING (day)"
        " WHERE day >= %s AND day < %s ORDER BY day",
        (*window_of(start, end), start, end),
    )
    return [DayBooks(*row) for row in rows]


@dataclasses.dataclass(frozen=True)
class Plausible:
    """Whether what a run loaded can be all that there is. `problem` says why not, and what to do."""

    read: int
    loaded: int
    rejected: int
    undated: int
    values: int
    problem: str | None


def plausible(connection: Connection, stream: Stream, start: dt.date, end: dt.date, since: dt.datetime) -> Plausible:
    """Look at the newest loads of the half-open range of days; `since` is when the run began.

    Suspicious are loads that rejected everything, that read nothing where MongoDB's count says otherwise, and whose
    measures are all NULL where there were values in the thirty days before.
    """
    bounds = {"first": start, "last": end, "since": since, "before": start - dt.timedelta(days=30)}
    bounds |= {name: _instant(bounds[name]) for name in ("first", "last", "before")}
    bounds |= {"first_day": start, "end_day": end}
    row = connection.execute(
        stream.sql((files("hub.loading") / "sql" / "plausible.sql").read_text(encoding="utf-8")), bounds
    ).fetchone()
    assert row is not None
    read, loaded, rejected, undated, counted, values, earlier = row
    problem = None
    if rejected + undated and not loaded:
        problem = (
            f"all {rejected + undated:,} new documents became dead letters: was the time field renamed, or its format"
            f" changed? Look at the reasons in {stream.rejects}, mend the mapping, and load these days again."
        )
    elif not read and counted:
        problem = (
            f"no document was read of days of which MongoDB counts {counted:,}: look at `hub ledger`, and whether the user"
            " of MONGO_URI may read all of the collection."
        )
    elif loaded and not values and earlier:
        names = ", ".join(f"{column.name} ({column.path})" for column in stream.measures)
        problem = (
            f"no row of these days has a value, as {earlier:,} of the thirty days before had: was the field renamed that"
            f" the measure {names} comes from?"
        )
    return Plausible(read, loaded, rejected, undated, values, problem)


def undated_since(connection: Connection, stream: Stream, since: dt.datetime) -> int:
    """Dead letters of no day that are new, or have changed, since an instant."""
    row = connection.execute(
        f"SELECT count(*) FROM {stream.rejects} WHERE rejected_at >= %s"
        " AND (event_day IS NULL OR event_day < %s OR event_day > (now() AT TIME ZONE 'UTC')::date)",
        (since, stream.start),
    ).fetchone()
    return int(row[0]) if row else 0


def _instant(day: object) -> dt.datetime:
    assert isinstance(day, dt.date)
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def newest_reading(connection: Connection) -> dt.datetime | None:
    """Time of the newest reading, None in an empty table."""
    return newest(connection, "reading_analytics", "event_timestamp")


@dataclasses.dataclass(frozen=True)
class Totals:
    """What a window adds up to."""

    events: int
    value_count: int
    value_sum: float

    def matches(self, other: Totals) -> bool:
        """Equal, but for the last digits of a sum of floating-point numbers in another order."""
        same = math.isclose(self.value_sum, other.value_sum, rel_tol=1e-9, abs_tol=1e-9)
        nan = math.isnan(self.value_sum) and math.isnan(other.value_sum)
        return self.events == other.events and self.value_count == other.value_count and (same or nan)


def raw_totals(connection: Connection, start: dt.date, end: dt.date) -> Totals:
    """Totals of the raw readings of the half-open range of UTC days."""
    return _totals(
        connection,
        "count(*), count(value), coalesce(sum(value::numeric), 0) FROM reading_analytics",
        "event_timestamp",
        start,
        end,
    )


def rollup_totals(connection: Connection, rollup: Rollup, start: dt.date, end: dt.date) -> Totals:
    """Totals of a rollup of readings over the same range."""
    columns = (
        "coalesce(sum(events), 0)::bigint, coalesce(sum(value_count), 0)::bigint, coalesce(sum(value_sum::numeric), 0)"
    )
    return _totals(connection, f"{columns} FROM {rollup.name}", "bucket", start, end)


def _totals(connection: Connection, what: str, time: str, start: dt.date, end: dt.date) -> Totals:
    """Sums are of numeric: doubles beyond 1e300, which somebody may have written by SQL, overflow."""
    row = connection.execute(f"SELECT {what} WHERE {time} >= %s AND {time} < %s", window_of(start, end)).fetchone()
    assert row is not None
    return Totals(row[0], row[1], float(row[2]))
