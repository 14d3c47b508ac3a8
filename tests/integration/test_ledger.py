"""The ledger: MongoDB's count of each day beside what was read, and what is asked for because of it."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from typing import Any

import bson
import pymongo
import pytest
from bson import DatetimeMS, Decimal128, Int64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.arrivals import count as counting
from hub.arrivals import ledger
from hub.arrivals.count import count
from hub.embedded.mongo import EmbeddedMongo
from hub.loading.convert import Unusable, decode, event_time
from hub.loading.load import load
from hub.loading.model import DAY_US, EPOCH, Mapping
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.streams.model import Stream
from hub.timescale.connection import Connection, connect
from tests.support import aggregation
from tests.support.mongo_wire import WireServer
from tests.support.readings import DAY, NEXT, NOON, database, empty, encode, reading, readings, without

NOW = dt.datetime.now(dt.UTC)
_DAY = dt.timedelta(days=1)
needs_node = pytest.mark.skipif(aggregation.missing() is not None, reason=str(aggregation.missing()))


def mapping_of(**fields: Any) -> Mapping:
    start, end = (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 12, 1, tzinfo=dt.UTC))
    us = [(one - EPOCH) // dt.timedelta(microseconds=1) for one in (start, end)]
    return Mapping(("timestamp", "extracted_at"), ("payload", "value"), *us, **fields)


def expected(raws: list[bytes], mapping: Mapping) -> tuple[dict[dt.date, int], int]:
    """What the converter makes of the times, one by one."""
    days: dict[dt.date, int] = {}
    undated = 0
    for raw in raws:
        try:
            time = event_time(decode(raw), mapping)[1]
        except Unusable:
            undated += 1
        else:
            day = (EPOCH + dt.timedelta(days=time // DAY_US)).date()
            days[day] = days.get(day, 0) + 1
    return days, undated


TIMES: list[Any] = [
    NOON,
    NOON.replace(hour=0),
    NOON.replace(hour=23, minute=59, second=59, microsecond=999000),
    DatetimeMS(2**60),
    DatetimeMS(-(2**60)),
    dt.datetime(1969, 12, 31, 23, 59, tzinfo=dt.UTC),
    dt.datetime(2027, 1, 1, tzinfo=dt.UTC),
    "2026-03-05T23:30:00-01:00",
    "2026-03-05T00:30:00+01:00",
    "2026-03-05T05:15:00+05:30",
    "2026-03-05T05:45:00+05:30",
    "2026-03-05 12:00:00",
    "2026-03-05T12:00:00.123Z",
    "2026-03-05",
    "2026-02-30T10:00:00Z",
    "2026-02-29T10:00:00Z",
    "2024-02-29T10:00:00Z",
    "2026-03-05T24:00:00Z",
    "2026-03-05T10:00:60Z",
    "2026-03-05T10:60:00Z",
    "2026-03-05t10:00:00z",
    "2026-03-05 10:00 PM",
    " 2026-03-05T10:00:00Z ",
    "2026-03-05T10:00:00Z\n",
    "20260305T100000Z",
    "2026-W10-4",
    "2019-12-31T23:30:00-01:00",
    "soon",
    "",
    5,
    Int64(1772712000000),
    1772712000.5,
    Decimal128("1772712000"),
    True,
    [NOON],
    {"$date": "2026-03-05"},
    None,
]


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


def counted(wire: WireServer, mapping: Mapping) -> counting.Counted:
    with pymongo.MongoClient[dict[str, Any]](wire.uri, tz_aware=True) as client:
        return count(client[wire.database][wire.collection], mapping)


def documents_of_all_times() -> list[bytes]:
    raws = [reading(number, time) for number, time in enumerate(TIMES)]
    raws += [encode({"_id": f"x{number}", "extracted_at": time}) for number, time in enumerate(TIMES)]
    raws.append(without("timestamp", identifier="none"))
    raws.append(reading("both", None, extracted_at=NOON))
    return raws


@needs_node
def test_the_aggregation_counts_as_the_converter_does(wire: WireServer) -> None:
    raws = [raw for raw in documents_of_all_times() if not isinstance(decode(raw).get("timestamp"), DatetimeMS)]
    raws = [raw for raw in raws if not isinstance(decode(raw).get("extracted_at"), DatetimeMS)]  # beyond JavaScript
    raws = [raw for raw in raws if b"$date" not in raw]  # a date on its way there
    wire.documents += raws
    with aggregation.aggregating(wire) as asked:
        found = counted(wire, mapping_of())
    assert (found.days, found.undated) == expected(raws, mapping_of())
    assert len(asked) == 2  # the probe and the count: MongoDB sends no document
    assert "find" not in wire.commands


@needs_node
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.from_regex(
            r"(19|20)\d\d-[01]\d-[0-3]\d[T t][0-2]\d:[0-6]\d(:[0-6]\d([.,]\d{1,9})?)?(Z|z|[+-]\d\d:?[0-6]\d)? ?",
            fullmatch=True,
            alphabet=st.characters(codec="ascii"),
        ),
        min_size=30,
        max_size=60,
    )
)
def test_no_string_is_counted_for_another_day_than_it_is_loaded_for(wire: WireServer, texts: list[str]) -> None:
    raws = [reading(number, text) for number, text in enumerate(texts)]
    wire.documents[:] = raws
    with aggregation.aggregating(wire):
        found = counted(wire, mapping_of())
    assert (found.days, found.undated) == expected(raws, mapping_of())


@needs_node
def test_a_year_comes_back_as_a_few_groups_a_day(wire: WireServer) -> None:
    texts = [(NOON + dt.timedelta(minutes=7 * number)).isoformat() for number in range(3_000)]
    wire.documents += [reading(number, text) for number, text in enumerate(texts)]
    with aggregation.aggregating(wire) as asked, pymongo.MongoClient[dict[str, Any]](wire.uri) as client:
        found = count(client[wire.database][wire.collection], mapping_of())
        groups = list(client[wire.database][wire.collection].aggregate(asked[-1]))
    assert found.documents == 3_000
    assert len(groups) <= 24 * len(found.days)


def test_a_server_that_does_not_know_the_operators_is_asked_for_the_times(wire: WireServer) -> None:
    raws = documents_of_all_times()
    wire.documents += raws
    found = counted(wire, mapping_of())
    assert (found.days, found.undated) == expected(raws, mapping_of())
    (query,) = [request for request in wire.requests if "find" in request]
    assert query["projection"] == {"_id": 0, "timestamp": 1, "extracted_at": 1}


def test_a_server_that_answers_wrongly_is_not_asked_to_count(wire: WireServer) -> None:
    wire.documents += readings(3)
    answers = [{**{name: value for name, (_, value) in counting._PROBE.items()}, "early": ["day", 0]}]
    namespace = f"{wire.database}.{wire.collection}"
    wire.handlers["aggregate"] = lambda command: {"cursor": {"id": 0, "ns": namespace, "firstBatch": answers}}
    assert counted(wire, mapping_of()).days == {DAY: 3}


def test_a_refused_aggregation_is_an_error_and_no_count_of_nothing(wire: WireServer) -> None:
    wire.faults.refuse_commands = ["aggregate"]
    with pytest.raises(pymongo.errors.OperationFailure):
        counted(wire, mapping_of())


def test_the_embedded_server_counts_as_the_converter_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = EmbeddedMongo(tmp_path_factory.mktemp("mongo"))
    server.start()
    try:
        with pymongo.MongoClient[dict[str, Any]](server.environment()["MONGO_URI"], tz_aware=True) as client:
            stored = client["reading"]["events"]
            plain = [time for time in TIMES if not isinstance(time, Decimal128 | DatetimeMS | dict)]
            stored.insert_many([{"_id": number, "timestamp": time} for number, time in enumerate(plain)])
            found = count(stored, mapping_of())
    finally:
        server.stop()
    raws = [bson.encode({"timestamp": time}) for time in plain]
    assert (found.days, found.undated) == expected(raws, mapping_of())


# --- Beside what was read ------------------------------------------------------------------------------------


class Books:
    def __init__(self, given: Settings, wire: WireServer, connection: Connection) -> None:
        self.settings, self.wire, self.connection = given, wire, connection
        self.stream = reading_of(given)

    def put(self, *raws: bytes) -> None:
        self.wire.documents += raws

    def load(self, first: dt.date = DAY, end: dt.date = NEXT) -> None:
        load(self.settings, self.stream, first, end)

    def count(self, stream: Stream | None = None) -> ledger.Ledger:
        return ledger.update(self.settings, stream or self.stream)

    def wanted(self, now: dt.datetime = NOW) -> frozenset[dt.date]:
        return ledger.wanted(self.connection, self.stream, now)


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[Books]:
    with (
        WireServer() as wire,
        database(postgres, mongo_uri=wire.uri) as given,
        connect(given, autocommit=True) as connection,
    ):
        yield Books(given, wire, connection)


@pytest.fixture
def books(shared: Books) -> Books:
    empty(shared.connection)
    shared.wire.documents.clear()
    return shared


def test_an_empty_collection_is_complete(books: Books) -> None:
    found = books.count()
    assert (found.complete, found.documents, found.days) == (True, 0, ())


def test_what_was_never_loaded_is_missing_by_day_and_asked_for(books: Books) -> None:
    books.put(*readings(3), *readings(2, NOON - 400 * _DAY), reading("text", NOON - 3 * _DAY))
    found = books.count()
    assert {day.day: day.missing for day in found.wrong} == {DAY - 400 * _DAY: 2, DAY - 3 * _DAY: 1, DAY: 3}
    assert (found.missing, found.complete) == (6, False)
    assert books.wanted() == {day.day for day in found.wrong}


def test_what_is_loaded_is_complete(books: Books) -> None:
    books.put(*readings(3), reading("late", NOON - 3 * _DAY))
    books.count()
    books.load(DAY - 3 * _DAY)
    found = books.count()
    assert found.complete
    assert books.wanted() == frozenset()
    assert [(day.documents, day.read, day.loaded) for day in found.days if day.documents] == [(1, 1, 1), (3, 3, 3)]


def test_dead_letters_of_a_day_were_read(books: Books) -> None:
    books.put(*readings(2), reading("bad", payload="\0"))
    books.load()
    found = books.count()
    assert found.complete
    assert [(day.read, day.loaded, day.rejected) for day in found.days] == [(3, 2, 1)]
    assert found.dead_letters == 1


def test_documents_of_no_day_are_asked_for_by_any_day_and_are_whole_afterwards(books: Books) -> None:
    books.put(*readings(1), reading("soon", "soon"), without("timestamp", identifier="none"))
    found = books.count()
    assert (found.undated, found.missing_undated, found.missing) == (2, 2, 3)
    assert books.wanted() == {DAY, NOW.date()}
    books.load()
    found = books.count()
    assert (found.complete, found.undated, found.undated_read) == (True, 2, 2)
    assert books.wanted() == frozenset()


def test_500_documents_with_a_renamed_time_field_are_not_read_as_nothing(books: Books) -> None:
    books.put(*(without("timestamp", identifier=number, when=NOON) for number in range(500)))
    found = books.count()
    assert (found.complete, found.missing) == (False, 500)


def test_what_mongodb_forgets_is_no_fault_and_does_not_hide_what_is_new(books: Books) -> None:
    books.put(*readings(10))
    books.load()
    books.count()
    del books.wire.documents[:4]
    found = books.count()
    assert (found.complete, found.days[0].forgotten) == (True, 4)
    books.put(reading("new"))
    found = books.count()
    assert (found.complete, found.missing) == (False, 1)
    books.load()
    assert books.count().complete
    assert books.wanted() == frozenset()


def test_a_day_that_mongodb_forgets_wholly_stays_in_the_ledger_with_nothing(books: Books) -> None:
    books.put(*readings(2))
    books.load()
    books.count()
    books.wire.documents.clear()
    found = books.count()
    assert [(day.documents, day.forgotten) for day in found.days] == [(0, 2)]
    assert found.complete


def test_a_day_that_stays_wanting_is_asked_for_again_after_an_hour_and_at_once_after_a_failure(books: Books) -> None:
    books.put(*readings(1))
    books.count()
    ledger.mark_asked(books.connection, books.stream, DAY, DAY, NOW)
    assert books.wanted(NOW + dt.timedelta(minutes=59)) == frozenset()
    assert books.wanted(NOW + dt.timedelta(minutes=61)) == {DAY}
    ledger.mark_asked(books.connection, books.stream, DAY, DAY, None)
    assert books.wanted(NOW) == {DAY}


def test_a_count_that_changes_nothing_writes_nothing_about_days(books: Books) -> None:
    books.put(*readings(3), reading("never loaded", NOON - _DAY))
    books.load()
    books.count()
    before = books.connection.execute("SELECT xmin::text, * FROM reading_ledger ORDER BY day").fetchall()
    books.count()
    assert books.connection.execute("SELECT xmin::text, * FROM reading_ledger ORDER BY day").fetchall() == before


def test_what_is_older_than_what_is_kept_is_counted_apart_and_not_asked_for(books: Books) -> None:
    keep = (NOW.date() - DAY).days + 10
    stream = Stream(**{**vars(books.stream), "keep": dt.timedelta(days=keep)})
    books.put(*readings(3), *readings(2, NOON - 30 * _DAY))
    books.load()
    found = books.count(stream)
    assert (found.complete, found.expired, found.documents) == (True, 2, 5)


def test_a_start_that_is_moved_makes_no_day_wanting_for_ever(books: Books) -> None:
    books.put(*readings(2))
    books.count()
    stream = Stream(**{**vars(books.stream), "start": NEXT})
    found = books.count(stream)
    assert (found.wrong, found.undated) == ((), 2)


def test_documents_that_just_came_are_on_their_way_and_older_ones_are_overdue(books: Books) -> None:
    books.put(reading("now", NOW))
    found = books.count()
    assert (found.missing, found.overdue()) == (1, ())
    books.connection.execute("UPDATE reading_ledger SET since = since - INTERVAL '16 minutes'")
    assert [day.day for day in books.count().overdue()] == [NOW.date()]
    books.put(reading("old"))
    assert DAY in {day.day for day in books.count().overdue()}


def test_every_count_is_kept_for_the_dashboards(books: Books) -> None:
    books.put(*readings(3), reading("soon", "soon"))
    books.count()
    (row,) = books.connection.execute(
        "SELECT stream, documents, undated, missing, missing_days, changed_days FROM ledger_runs"
    ).fetchall()
    assert row == ("reading", 4, 1, 4, 1, 0)


def test_the_ledger_as_json_has_every_day_that_is_not_as_it_should_be(books: Books) -> None:
    books.put(*readings(3))
    data = json.loads(json.dumps(books.count().to_dict()))
    assert (data["stream"], data["complete"], data["missing"]) == ("reading", False, 3)
    assert [(day["day"], day["documents"], day["missing"]) for day in data["days"]] == [(str(DAY), 3, 3)]
    assert books.count().between(NEXT, None).complete
    assert not books.count().between(None, DAY).complete


def test_random_histories_end_complete(books: Books) -> None:
    """Whatever comes, goes and moves: once what is asked for is loaded, nothing is missing and nothing is asked for."""
    chance = random.Random(11)
    for _ in range(8):
        for _ in range(chance.randrange(12)):
            time: Any = NOON - chance.randrange(5) * _DAY
            time = chance.choice([time, time.isoformat(), "soon", None, time])
            books.put(reading(f"{chance.random()}", time))
        for _ in range(chance.randrange(4)):
            if books.wire.documents:
                books.wire.documents.pop(chance.randrange(len(books.wire.documents)))
        books.count()
        for day in sorted(books.wanted()):
            books.load(day, day + _DAY)
        assert books.count().complete
        assert books.wanted() == frozenset()
