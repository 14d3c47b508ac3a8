"""Late readings into a chunk that is in the columnstore already, beside a year of history (level 1)."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

from hub.loading.load import load
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import connect
from hub.timescale.level import detect
from tests.bench.load import source_settings
from tests.bench.servers import database, documents
from tests.bench.views import READINGS, fill
from tests.support.mongo_wire import WireServer

LATE = 1_000


def run() -> Iterator[dict[str, Any]]:
    """Yield one line for a compressed day, one for a day that is not."""
    with database() as settings, connect(settings, autocommit=True) as connection:
        if not detect(connection).continuous_aggregates:
            return
        fill(connection)
        began = time.perf_counter()
        connection.execute(
            "SELECT compress_chunk(chunk) FROM show_chunks('reading_analytics', older_than => INTERVAL '30 days') AS chunk"
        )
        compressing = time.perf_counter() - began
        today = dt.datetime.now(dt.UTC).date()
        for what, age in (("compressed day", 200), ("open day", 5)):
            day = today - dt.timedelta(days=age)
            with WireServer.in_process(documents(LATE, 1, day), replay="dates") as source:
                here = settings.model_copy(update=source_settings(source.uri))
                began = time.perf_counter()
                report = load(here, reading_of(here), day, day + dt.timedelta(days=1))
                seconds = time.perf_counter() - began
            assert report.inserted == LATE
            yield {
                "what": f"{LATE} late readings into a {what}", "readings": READINGS, "seconds": round(seconds, 2),
                "compressing_the_year_seconds": round(compressing, 1),
            }  # fmt: skip
