"""The weekly report over very many sources."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from typing import Any

from hub.report.weekly_file import make
from hub.report.weekly_model import Week
from hub.rollups.declared import READING_DAILY, READING_HOURLY
from hub.rollups.refresh import refresh, window_of
from hub.timescale.connection import connect
from hub.timescale.level import detect
from tests.bench.servers import database

SOURCES = int(os.environ.get("BENCH_SOURCES", "100000"))
MONDAY = dt.date(2026, 3, 30)
FIRST = MONDAY - dt.timedelta(weeks=12)


def run() -> Iterator[dict[str, Any]]:
    """Yield the line of a week in which each source was read from once a week, for a quarter of a year."""
    with database() as settings, connect(settings, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value)"
            " SELECT week || '-' || n, %s + week * interval '1 week' + n %% 7 * interval '1 day' + interval '12 hours',"
            " 'source-' || n, 'article', n %% 97 FROM generate_series(0, 12) AS week, generate_series(1, %s) AS n",
            (FIRST, SOURCES),
        )
        connection.execute(
            "INSERT INTO reading_days (day, read, loaded, rejected, whole)"
            " SELECT %s + n, 0, 0, 0, true FROM generate_series(0, 90) AS n",
            (FIRST,),
        )
        quarter = window_of(FIRST, MONDAY + dt.timedelta(weeks=1))
        refresh(connection, READING_HOURLY, [READING_DAILY], rebuild=quarter)
        refresh(connection, READING_DAILY)
        connection.execute("VACUUM ANALYZE")
        began = time.perf_counter()
        made = make(settings, Week(MONDAY), MONDAY + dt.timedelta(weeks=2))
        assert made.report.readings.now == SOURCES
        yield {
            "what": "a week", "level": detect(connection).value, "sources": SOURCES,
            "seconds": round(time.perf_counter() - began, 1), "bar_seconds": 10,
            "report_kb": round(len(made.markdown) / 1000),
        }  # fmt: skip
