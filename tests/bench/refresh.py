"""The refresh of one touched day against the plain GROUP BY of that day's readings by hour.

Of the hourly rollup alone, which answers the same question, and of both rollups.
"""

from __future__ import annotations

import datetime as dt
import statistics
import time
from collections.abc import Iterator
from typing import Any

from hub.rollups.declared import READING_HOURLY, ROLLUPS
from hub.rollups.refresh import mark_dirty, refresh_all, window_of
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect
from tests.bench.servers import FIRST, database

SIZES = (5_000, 27_000, 270_000)
ROUNDS = 7
_DAY = dt.timedelta(days=1)


def run() -> Iterator[dict[str, Any]]:
    """Yield one line for each size of the touched day. The days around hold 5,000 readings each."""
    with database() as settings, connect(settings, autocommit=True) as connection:
        level = detect(connection).value
        days = {FIRST + number * 10 * _DAY: size for number, size in enumerate(SIZES, start=1)}
        for number in range(10 * (len(SIZES) + 1)):
            day = FIRST + number * _DAY
            _fill(connection, day, days.get(day, 5_000))
        window = window_of(FIRST, FIRST + 10 * (len(SIZES) + 1) * _DAY)
        mark_dirty(connection, READING_HOURLY, _hours(window[0], window[1]))
        refresh_all(connection, ROLLUPS)
        connection.execute("VACUUM ANALYZE")
        for day, size in days.items():
            yield {"what": "refresh", "level": level, "readings_of_the_day": size, **_touched(connection, day)}


def _touched(connection: Connection, day: dt.date) -> dict[str, Any]:
    start, end = window_of(day, day + _DAY)
    grouped = READING_HOURLY.select(
        time_bucket=False, where="event_timestamp >= %(start)s AND event_timestamp < %(end)s"
    )
    plain, hourly, refreshed = [], [], []
    for _ in range(ROUNDS + 1):
        with connection.transaction():  # touch every hour, in truth: TimescaleDB keeps books of its own
            connection.execute(
                "UPDATE reading_analytics SET value = value + 1 WHERE event_timestamp >= %(start)s"
                " AND event_timestamp < %(end)s AND source = 'source-1'",
                {"start": start, "end": end},
            )
            mark_dirty(connection, READING_HOURLY, _hours(start, end))
        began = time.perf_counter()
        connection.execute(grouped, {"start": start, "end": end}).fetchall()
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        reports = refresh_all(connection, ROLLUPS)
        refreshed.append(time.perf_counter() - began)
        hourly.append(next(report.seconds for report in reports if report.rollup == READING_HOURLY.name))
    group_by, seconds, alone = (statistics.median(times[1:]) for times in (plain, refreshed, hourly))
    return {
        "group_by_milliseconds": round(group_by * 1000, 1), "milliseconds": round(seconds * 1000, 1),
        "hourly_to_group_by": round(alone / group_by, 2), "refresh_to_group_by": round(seconds / group_by, 2), "bar": 1.5,
    }  # fmt: skip


def _hours(start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    return [start + dt.timedelta(hours=hour) for hour in range(int((end - start) / dt.timedelta(hours=1)))]


def _fill(connection: Connection, day: dt.date, count: int) -> None:
    connection.execute(
        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload)"
        " SELECT md5(%(day)s::text || n), %(day)s::date::timestamptz + n * (INTERVAL '1 day' / %(count)s),"
        " 'source-' || n %% 20, 'type-' || n / 20 %% 3, n %% 997, jsonb_build_object('page', n %% 700)"
        " FROM generate_series(0, %(count)s - 1) AS n",
        {"day": day, "count": count},
    )
