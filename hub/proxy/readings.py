"""What the API tells of readings, asked of the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from hub.proxy.database import Connection
from hub.proxy.listings import Key, Listing, fetch
from hub.rollups.declared import READING_DAILY, READING_HOURLY

Window = tuple[dt.datetime, dt.datetime]

READINGS = Listing(
    "reading_analytics",
    ("event_timestamp", "mongo_id"),
    ("event_timestamp", "mongo_id", "source", "event_type", "value", "payload", "meta", "ingested_at"),
    frozenset({"payload", "meta"}),
)
ROLLUPS = {
    name: Listing(rollup.name, ("bucket", *rollup.dimensions), rollup.columns)
    for name, rollup in (("hour", READING_HOURLY), ("day", READING_DAILY))
}

_SOME = 200


async def page(
    connection: Connection, window: Window, filters: Mapping[str, str], after: Key | None, limit: int
) -> list[tuple[Any, ...]]:
    """At most `limit` raw readings in the order of time.

    There is no index on the time alone (it would cost a quarter of the load), so that a page of a long
    window would sort all of it. The hourly rollup tells up to which hour there are enough readings; it may
    be out of date, which makes this slower and never wrong: the whole window is looked at if need be.
    """
    start, end = window
    position = max(start, after[0]) if after else start
    rows: list[tuple[Any, ...]] = []
    while position < end and len(rows) < limit:
        wanted = limit - len(rows)
        upper = await _enough(connection, (position, end), filters, wanted)
        rows += await fetch(connection, READINGS, (position, upper), filters, after, wanted)
        position = upper
    return rows


async def _enough(connection: Connection, window: Window, filters: Mapping[str, str], wanted: int) -> dt.datetime:
    """The end of the hour by which the rollup counts `wanted` readings, or that of the last hour looked at."""
    start, end = window
    hour = dt.timedelta(seconds=READING_HOURLY.seconds)
    conditions = "".join(f" AND {name} = %({name})s" for name in filters)
    found = await connection.execute(
        "SELECT bucket, sum(events)::bigint FROM reading_hourly WHERE bucket >= %(start)s AND bucket < %(end)s"
        f"{conditions} GROUP BY bucket ORDER BY bucket LIMIT {_SOME}",
        {"start": READING_HOURLY.floor(start), "end": end, **filters},
    )
    hours = await found.fetchall()
    counted = 0
    for bucket, events in hours:
        # The first hour may be one that an earlier page has begun: its count says little.
        counted += events if bucket >= start else 0
        if counted >= wanted:
            upper: dt.datetime = bucket + hour
            return min(upper, end)
    last: dt.datetime = hours[-1][0] + hour if len(hours) == _SOME else end
    return min(last, end)


async def summary(connection: Connection, window: tuple[dt.datetime | None, dt.datetime | None]) -> dict[str, Any]:
    """Totals of the buckets that begin in the window, by source and event type; the daily ones where they do."""
    whole_days = all(bound is None or READING_DAILY.floor(bound) == bound for bound in window)
    rollup = READING_DAILY if whole_days else READING_HOURLY
    query = (files("hub.proxy") / "sql" / "summary.sql").read_text(encoding="utf-8").format(rollup=rollup.name)
    found = await connection.execute(query, {"start": window[0], "end": window[1]})
    row = await found.fetchone()
    assert row is not None
    result: dict[str, Any] = row[0]
    return result
