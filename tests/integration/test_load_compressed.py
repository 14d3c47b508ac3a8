"""Late readings reach chunks that are in TimescaleDB's columnstore already (level 1, TEST_DATABASE_URL)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson.objectid import ObjectId

from hub.loading.load import load
from hub.rollups.declared import READING_DAILY, READING_HOURLY
from hub.rollups.refresh import refresh_all
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection
from hub.timescale.level import detect
from tests.support.mongo_wire import WireServer

DAY = dt.date(2026, 3, 5)
NEXT = DAY + dt.timedelta(days=1)
COUNT = 3_000


def document(number: int, **more: Any) -> dict[str, Any]:
    time = dt.datetime(2026, 3, 5, tzinfo=dt.UTC) + dt.timedelta(seconds=number * 28)
    return {"_id": ObjectId(), "timestamp": time, "source": f"s{number % 7}", "payload": {"value": 1.0}} | more


@pytest.fixture
def compressed(settings: Settings, wire: WireServer, connection: Connection) -> list[dict[str, Any]]:
    """A loaded day whose chunk is in the columnstore."""
    if not detect(connection).continuous_aggregates:
        pytest.skip("the columnstore is TimescaleDB's, level 1")
    documents = [document(number) for number in range(COUNT)]
    wire.documents += documents
    load(settings, reading_of(settings), DAY, NEXT)
    refresh_all(connection, (READING_HOURLY, READING_DAILY))
    connection.execute("SELECT compress_chunk(chunk) FROM show_chunks('reading_analytics') AS chunk")
    return documents


def test_late_and_changed_readings_reach_a_compressed_chunk_and_its_rollups(
    compressed: list[dict[str, Any]], settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents[5] = compressed[5] | {"payload": {"value": 100.0}}
    wire.documents += [document(number) for number in range(50)]
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.inserted, report.updated, report.moved) == (50, 1, 0)
    refresh_all(connection, (READING_HOURLY, READING_DAILY))
    total = (COUNT + 50, COUNT + 50 + 99.0)
    assert connection.execute("SELECT count(*), sum(value) FROM reading_analytics").fetchone() == total
    assert connection.execute("SELECT sum(events), sum(value_sum) FROM reading_daily").fetchone() == total
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0


def test_a_document_that_moves_out_of_a_compressed_chunk_leaves_no_row_behind(
    compressed: list[dict[str, Any]], settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents[5] = compressed[5] | {"timestamp": compressed[5]["timestamp"] + dt.timedelta(days=1)}
    report = load(settings, reading_of(settings), NEXT, NEXT + dt.timedelta(days=1))
    assert (report.inserted, report.moved) == (0, 1)
    assert connection.execute("SELECT count(*) FROM reading_analytics").fetchone() == (COUNT,)
    refresh_all(connection, (READING_HOURLY, READING_DAILY))
    days = connection.execute("SELECT bucket::date, sum(events) FROM reading_daily GROUP BY 1 ORDER BY 1").fetchall()
    assert days == [(DAY, COUNT - 1), (NEXT, 1)]
