"""What must hold after a load, asked of the database itself."""

from __future__ import annotations

import dataclasses
import datetime as dt

from hub.rollups.model import Rollup
from hub.timescale.connection import Connection


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
        "   WHERE event_timestamp >= %(start)s::date::timestamptz AND event_timestamp < %(end)s::date::timestamptz"
        "   GROUP BY 1) AS present USING (day)"
        " WHERE day >= %(start)s AND day < %(end)s ORDER BY day",
        {"start": start, "end": end},
    )
    return [DayBooks(*row) for row in rows]


def newest_reading(connection: Connection) -> dt.datetime | None:
    """Time of the newest reading, None in an empty table."""
    row = connection.execute("SELECT max(event_timestamp) FROM reading_analytics").fetchone()
    return row[0] if row else None


@dataclasses.dataclass(frozen=True)
class Totals:
    """What a window adds up to."""

    events: int
    value_count: int
    value_sum: float

    def matches(self, other: Totals) -> bool:
        """Equal, but for the last digits of a sum of floating-point numbers in another order."""
        tolerance = 1e-9 * max(1.0, abs(self.value_sum), abs(other.value_sum))
        return (
            self.events == other.events
            and self.value_count == other.value_count
            and abs(self.value_sum - other.value_sum) <= tolerance
        )


def raw_totals(connection: Connection, start: dt.date, end: dt.date) -> Totals:
    """Totals of the raw readings of the half-open range of UTC days."""
    return _totals(
        connection,
        "count(*), count(value), coalesce(sum(value), 0) FROM reading_analytics",
        "event_timestamp",
        start,
        end,
    )


def rollup_totals(connection: Connection, rollup: Rollup, start: dt.date, end: dt.date) -> Totals:
    """Totals of a rollup of readings over the same range."""
    columns = "coalesce(sum(events), 0)::bigint, coalesce(sum(value_count), 0)::bigint, coalesce(sum(value_sum), 0)"
    return _totals(connection, f"{columns} FROM {rollup.name}", "bucket", start, end)


def _totals(connection: Connection, what: str, time: str, start: dt.date, end: dt.date) -> Totals:
    row = connection.execute(
        f"SELECT {what} WHERE {time} >= %s::date::timestamptz AND {time} < %s::date::timestamptz",
        (start, end),
    ).fetchone()
    assert row is not None
    return Totals(*row)
