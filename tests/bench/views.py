"""The views that dashboards use, against the same question asked of the raw readings."""

from __future__ import annotations

import datetime as dt
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

from hub.rollups.declared import READING_DAILY, READING_HOURLY
from hub.rollups.refresh import refresh, window_of
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect
from tests.bench.servers import database

READINGS = int(os.environ.get("BENCH_READINGS", "10000000"))
ROUNDS = 5
_DAY = "date_trunc('day', event_timestamp, 'UTC')"

# Each view, and the same question asked of `reading_analytics`.
QUESTIONS = {
    "reading_last_24_hours": (
        "SELECT date_trunc('hour', event_timestamp), source, event_type, count(*), sum(value) FROM reading_analytics"
        " WHERE event_timestamp >= date_trunc('hour', now()) - INTERVAL '24 hours' GROUP BY 1, 2, 3"
    ),
    "reading_last_30_days": (
        f"SELECT {_DAY}, source, event_type, count(*), sum(value) FROM reading_analytics"
        " WHERE event_timestamp >= date_trunc('day', now(), 'UTC') - INTERVAL '30 days' GROUP BY 1, 2, 3"
    ),
    "reading_year_by_source": (
        "SELECT date_trunc('month', event_timestamp, 'UTC'), source, count(*), sum(value) FROM reading_analytics"
        " WHERE event_timestamp >= date_trunc('month', now(), 'UTC') - INTERVAL '12 months' GROUP BY 1, 2"
    ),
    "reading_top_sources": (
        f"SELECT source, count(*), sum(value), count(DISTINCT {_DAY}), max(event_timestamp) FROM reading_analytics"
        " WHERE event_timestamp >= date_trunc('day', now(), 'UTC') - INTERVAL '30 days' GROUP BY 1"
    ),
    "reading_streaks": f"SELECT {_DAY}, count(*) FROM reading_analytics GROUP BY 1",
    "reading_weekday_hours": (
        "SELECT extract(isodow FROM event_timestamp), extract(hour FROM event_timestamp), count(*), sum(value)"
        " FROM reading_analytics WHERE event_timestamp >= date_trunc('day', now(), 'UTC') - INTERVAL '91 days' GROUP BY 1, 2"
    ),
}


def run() -> Iterator[dict[str, Any]]:
    """Yield one line for each view."""
    with database() as settings, connect(settings, autocommit=True) as connection:
        level = detect(connection).value
        fill(connection)
        for view, raw in QUESTIONS.items():
            rolled = _warm(connection, f"SELECT * FROM {view}")
            asked = _warm(connection, raw)
            yield {
                "what": view, "level": level, "readings": READINGS, "milliseconds": round(rolled * 1000, 1),
                "raw_milliseconds": round(asked * 1000, 1), "raw_to_view": round(asked / rolled, 1), "bar_ms": 100,
            }  # fmt: skip


def fill(connection: Connection) -> None:
    """A year of readings up to now: 20 sources, 3 event types."""
    connection.execute(
        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload)"
        " SELECT lpad(to_hex(n), 24, '0'), now() - n * (INTERVAL '365 days' / %(n)s), 'source-' || n %% 20,"
        " 'type-' || n / 20 %% 3, n %% 997, jsonb_build_object('page', n %% 700)"
        " FROM generate_series(1, %(n)s) AS n",
        {"n": READINGS},
    )
    today = dt.datetime.now(dt.UTC).date()
    whole_year = window_of(today - dt.timedelta(days=366), today + dt.timedelta(days=1))
    refresh(connection, READING_HOURLY, [READING_DAILY], rebuild=whole_year)
    refresh(connection, READING_DAILY)
    connection.execute("VACUUM ANALYZE")


def _warm(connection: Connection, query: str) -> float:
    """Median seconds of a query that has run before."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        connection.execute(query).fetchall()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
