"""Loading a window: idempotent, lossless, in one transaction."""

from __future__ import annotations

import datetime as dt

from bson.objectid import ObjectId

from hub.readings.load import load
from hub.settings import Settings
from hub.timescale.connection import Connection
from tests.support.mongo_wire import WireServer

DAY = dt.date(2026, 3, 5)
NOON = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)
NEXT = DAY + dt.timedelta(days=1)


def test_a_day_loads_and_loading_it_again_changes_nothing(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [{"_id": ObjectId(), "timestamp": NOON, "source": "kobo", "payload": {"value": 2.5}}]
    first = load(settings, DAY, NEXT)
    assert (first.loaded, first.inserted, first.rejected) == (1, 1, 0)
    before = connection.execute("SELECT xmin::text, * FROM reading_analytics").fetchall()
    again = load(settings, DAY, NEXT)
    assert (again.loaded, again.changed) == (1, 0)
    assert connection.execute("SELECT xmin::text, * FROM reading_analytics").fetchall() == before
