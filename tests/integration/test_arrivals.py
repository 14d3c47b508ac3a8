"""Looking for readings that arrived: what MongoDB has and no table holds, by id, a page at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from bson import DatetimeMS
from bson.objectid import ObjectId

from hub.arrivals import look as arrivals
from hub.arrivals.look import NewIds, look
from hub.loading.load import load
from hub.loading.model import Mapping
from hub.mongo import collection
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection, connect
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import DAY, NEXT, NOON, database, element, empty, extended, reading, text, without

NOW = NOON + dt.timedelta(hours=6)
OVERLAP = dt.timedelta(minutes=15)
MINUTE = dt.timedelta(minutes=1)
ZERO = ObjectId(bytes(12))


def made(time: dt.datetime, number: int = 1) -> ObjectId:
    """An ObjectId made at that time."""
    return ObjectId(ObjectId.from_datetime(time).binary[:4] + number.to_bytes(8, "big"))


class Looker:
    def __init__(self, settings: Settings, wire: WireServer, connection: Connection) -> None:
        self.settings, self.wire, self.connection = settings, wire, connection
        self.mapping = Mapping.of(reading_of(settings), NOW)

    def __call__(self, after: ObjectId = ZERO, *, page: int = arrivals.PAGE, now: dt.datetime = NOW) -> NewIds:
        with collection(self.settings, reading_of(self.settings)) as documents:
            found = look(documents, self.connection, reading_of(self.settings), self.mapping, after, OVERLAP, page, now)
        assert self.wire.errors == []
        return found

    def put(self, *documents: bytes) -> None:
        self.wire.documents += documents

    def load(self, first: dt.date = DAY, end: dt.date = NEXT) -> None:
        load(self.settings, reading_of(self.settings), first, end)


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[Looker]:
    with (
        WireServer() as wire,
        database(postgres, mongo_uri=wire.uri) as settings,
        connect(settings, autocommit=True) as connection,
    ):
        yield Looker(settings, wire, connection)


@pytest.fixture
def looker(shared: Looker) -> Looker:
    empty(shared.connection)
    shared.wire.documents.clear()
    shared.wire.commands.clear()
    shared.wire.faults = Faults()
    return shared


def test_an_empty_collection_moves_nothing(looker: Looker) -> None:
    assert looker() == NewIds(ZERO, frozenset(), 0)
    assert looker(made(NOON)) == NewIds(made(NOON), frozenset(), 0)


def test_new_documents_touch_the_days_of_their_times_and_not_of_their_ids(looker: Looker) -> None:
    looker.put(
        reading(made(NOON, 1), NOON),
        reading(made(NOON, 2), "2026-02-01T23:30:00-01:00"),
        reading(made(NOON, 3), NOON.replace(hour=0)),
        without("timestamp", identifier=made(NOON, 4), extracted_at=NOON - dt.timedelta(days=9)),
    )
    found = looker()
    assert found.days == {DAY, dt.date(2026, 2, 2), dt.date(2026, 2, 24)}
    assert (found.until, found.documents) == (made(NOON, 4), 4)


def test_loaded_documents_are_no_news(looker: Looker) -> None:
    looker.put(reading(made(NOON)), reading(made(NOON + MINUTE)))
    looker.load()
    assert looker() == NewIds(made(NOON + MINUTE), frozenset(), 0)
    looker.put(reading(made(NOON + 2 * MINUTE)))
    assert (looker().days, looker().documents) == ({DAY}, 1)


@pytest.mark.parametrize(
    "raw",
    [
        reading(made(NOON), time="soon"),
        reading(made(NOON), time=None),
        reading(made(NOON), time=5),
        reading(made(NOON), time=DatetimeMS(2**62)),
        reading(made(NOON), time=DatetimeMS(-(2**62))),
        reading(made(NOON), time=dt.datetime(9999, 1, 1, tzinfo=dt.UTC)),
        reading(made(NOON), payload="\0"),
        without("timestamp", identifier=made(NOON)),
        extended(without("timestamp", identifier=made(NOON)), element(2, b"timestamp", text(b"\xff"))),
        extended(reading(made(NOON)), element(2, b"note", text(b"\xff"))),
        extended(reading(made(NOON)), element(9, b"timestamp", bytes(8))),
        extended(reading(made(NOON)), element(0x42, b"what", b"????")),
    ],
)
def test_a_document_that_cannot_become_a_row_asks_for_one_load_and_no_other(looker: Looker, raw: bytes) -> None:
    looker.put(raw, reading(made(NOON, 2)))
    assert looker().days == {DAY}
    looker.load()
    assert (looker().days, looker().until) == (frozenset(), made(NOON, 2))


def test_a_document_without_a_usable_time_asks_for_a_day_that_is_a_partition(looker: Looker) -> None:
    looker.put(reading(made(dt.datetime(1990, 1, 1, tzinfo=dt.UTC)), time=None))
    assert looker().days == {looker.settings.reading_start_date}


@pytest.mark.parametrize(("early", "seen"), [(OVERLAP - MINUTE, True), (OVERLAP, True), (OVERLAP + MINUTE, False)])
def test_a_late_id_is_found_within_the_overlap(looker: Looker, early: dt.timedelta, seen: bool) -> None:
    looker.put(reading(made(NOON, 7)))
    looker.load()
    looker.put(reading(made(NOON - early)))
    found = looker(made(NOON, 7))
    assert found.documents == (1 if seen else 0)
    assert found.until == made(NOON, 7)


def test_only_what_comes_after_the_overlap_is_read(looker: Looker) -> None:
    looker.put(*(reading(made(NOON - dt.timedelta(hours=hours))) for hours in range(5)))
    looker(made(NOON))
    (query,) = [request["filter"] for request in looker.wire.requests if "find" in request][-1:]
    assert query == {"_id": {"$gte": ObjectId.from_datetime(NOON - OVERLAP)}}


def test_a_page_ends_where_the_next_look_begins(looker: Looker) -> None:
    looker.put(*(reading(made(NOON + number * 20 * MINUTE)) for number in range(5)))
    first = looker(page=2)
    assert (first.documents, first.until) == (2, made(NOON + 20 * MINUTE))
    second = looker(first.until, page=2)
    assert second.until == made(NOON + 60 * MINUTE)
    third = looker(second.until, page=2)
    assert third.until == made(NOON + 80 * MINUTE)


def test_documents_of_the_overlap_do_not_use_up_the_page(looker: Looker) -> None:
    looker.put(*(reading(made(NOON, number)) for number in range(1, 9)))
    looker.load()
    looker.put(reading(made(NOON + MINUTE)))
    assert looker(made(NOON, 8), page=2).until == made(NOON + MINUTE)


def test_many_documents_are_looked_up_in_parts(looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_LOOKUP", 3)
    looker.put(*(reading(made(NOON, number)) for number in range(1, 11)))
    looker.load()
    looker.put(*(reading(made(NOON + MINUTE, number), NOON - number * dt.timedelta(days=1)) for number in range(1, 8)))
    found = looker()
    assert (found.documents, len(found.days)) == (7, 7)


@pytest.mark.parametrize("identifier", ["text", 5, None, 1.5, {"a": 1}, True, b"12345"])
def test_ids_that_are_no_object_ids_are_left_to_the_daily_load(looker: Looker, identifier: Any) -> None:
    looker.put(reading(identifier))
    assert looker() == NewIds(ZERO, frozenset(), 0)


def test_a_server_that_returns_other_ids_too_is_understood(looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looker.wire, "matcher", lambda document, query: True)
    looker.put(reading("text"), reading(made(NOON)), reading(5), without("_id"))
    assert (looker().until, looker().documents) == (made(NOON), 1)


def test_a_document_that_moved_is_news_once(looker: Looker) -> None:
    looker.put(reading(made(NOON)))
    looker.load()
    looker.wire.documents[:] = [reading(made(NOON), NOON - dt.timedelta(days=3))]
    assert looker().days == {DAY - dt.timedelta(days=3)}
    looker.load(DAY - dt.timedelta(days=3), DAY - dt.timedelta(days=2))
    assert looker().days == frozenset()


def test_an_id_from_the_future_is_found_and_does_not_blind_the_next_look(looker: Looker) -> None:
    looker.put(reading(made(NOW - MINUTE)), reading(ObjectId("f" * 24)))
    found = looker()
    assert (found.documents, found.days) == (2, {DAY})
    assert made(NOW - MINUTE) <= found.until <= made(NOW + MINUTE)
    looker.load()
    looker.put(reading(made(NOW + MINUTE)))
    assert looker(found.until, now=NOW + 2 * MINUTE).documents == 1
