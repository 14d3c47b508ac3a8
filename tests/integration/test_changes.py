"""Change streams: what came and changed, resumed by token; and every way in which they are no longer to be had."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson.objectid import ObjectId
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from hub.arrivals import changes, ledger
from hub.arrivals.changes import NoChangeStreamError, watch
from hub.arrivals.cursor import Cursor, Mark
from hub.arrivals.decide import Arrivals
from hub.arrivals.find import find
from hub.embedded.mongo import EmbeddedMongo
from hub.loading.load import load
from hub.mongo import Documents
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.streams.model import Mode, Stream
from hub.timescale.connection import Connection, connect
from tests.support.mongo_wire import WireServer
from tests.support.readings import DAY, NEXT, NOON, database, empty

OVERLAP = dt.timedelta(minutes=15)
NOW = dt.datetime.now(dt.UTC)
_DAYS = dt.timedelta(days=1)


def document(identifier: Any = None, time: Any = NOON, **fields: Any) -> dict[str, Any]:
    return {"_id": identifier or ObjectId(), "timestamp": time, "source": "kobo", "payload": {"value": 1.0}, **fields}


# --- The stream itself, on a server that imitates a replica set, and on the embedded one ---------------------


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with WireServer(change_streams=True) as server:
        yield server


@pytest.fixture
def documents(wire: WireServer) -> Iterator[Documents]:
    with pymongo.MongoClient[dict[str, Any]](wire.uri) as client:
        yield client[wire.database][wire.collection]


def test_a_stream_begins_now_and_says_that_something_may_have_come_before(documents: Documents) -> None:
    documents.insert_one(document(1))
    found = watch(documents, None, None, wait=0)
    assert (found.written, found.deleted) == ([], [])
    assert found.token
    assert "begins now" in found.lost


def test_inserts_updates_and_replacements_come_with_their_ids_and_deletions_apart(documents: Documents) -> None:
    token = watch(documents, None, None, wait=0).token
    documents.insert_many([document(1), document("two"), document({"a": 3})])
    documents.update_one({"_id": 1}, {"$set": {"timestamp": NOON}})
    documents.replace_one({"_id": "two"}, {"source": "x"})
    documents.delete_one({"_id": 1})
    found = watch(documents, token, None, wait=5)
    assert [one for one in found.written if one in (1, "two", {"a": 3})] == found.written
    assert {repr(one) for one in found.written} == {"1", "'two'", "{'a': 3}"}
    assert found.deleted == [1]
    assert found.lost == ""
    assert watch(documents, found.token, None, wait=0) == changes.Changes(found.token, None, [], [])


def test_what_came_while_nobody_looked_is_found_by_the_token(documents: Documents) -> None:
    token = watch(documents, None, None, wait=0).token
    documents.insert_one(document(1))
    first = watch(documents, token, None, wait=0)
    assert set(first.written) == {1}
    assert set(watch(documents, token, None, wait=0).written) == {1}  # until the token moves
    assert watch(documents, first.token, None, wait=0).written == []


def test_a_token_that_the_server_no_longer_knows_begins_anew_and_says_so(
    wire: WireServer, documents: Documents
) -> None:
    token = watch(documents, None, None, wait=0).token
    documents.insert_one(document(1))
    wire.forget_changes()
    found = watch(documents, token, None, wait=0)
    assert found.written == []
    assert "ChangeStreamHistoryLost" in found.lost
    documents.insert_one(document(2))
    assert set(watch(documents, found.token, None, wait=0).written) == {2}


def test_a_dropped_collection_ends_the_stream_and_the_next_one_begins_anew(
    wire: WireServer, documents: Documents
) -> None:
    token = watch(documents, None, None, wait=0).token
    documents.insert_one(document(1))
    wire.drop()
    found = watch(documents, token, None, wait=0)
    assert found.token is None
    assert "dropped or renamed" in found.lost
    again = watch(documents, found.token, None, wait=0)
    documents.insert_one(document(2))
    assert set(watch(documents, again.token, None, wait=0).written) == {2}


def test_a_token_from_an_invalidate_event_is_no_end(wire: WireServer, documents: Documents) -> None:
    watch(documents, None, None, wait=0)
    wire.drop()
    found = watch(documents, wire.events[-1]["_id"], None, wait=0)
    assert "InvalidResumeToken" in found.lost
    assert found.token


def test_a_server_without_change_streams_says_why(wire: WireServer, documents: Documents) -> None:
    wire.change_streams = False
    for token in (None, {"_data": "00"}):
        with pytest.raises(NoChangeStreamError, match="only supported on replica sets"):
            watch(documents, token, None, wait=0)


def test_a_server_that_is_away_is_no_server_without_change_streams(wire: WireServer) -> None:
    wire.close()
    with (
        pymongo.MongoClient[dict[str, Any]](wire.uri, serverSelectionTimeoutMS=500) as client,
        pytest.raises((ServerSelectionTimeoutError, AutoReconnect)),
    ):
        watch(client[wire.database][wire.collection], None, None, wait=0)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongo]:
    server = EmbeddedMongo(tmp_path_factory.mktemp("mongo"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def stored(embedded: EmbeddedMongo, request: pytest.FixtureRequest) -> Iterator[Documents]:
    """A collection of the embedded server."""
    with pymongo.MongoClient[dict[str, Any]](embedded.environment()["MONGO_URI"], tz_aware=True) as client:
        yield client["reading"][f"c{abs(hash(request.node.name))}"]


def test_the_embedded_server_resumes_too(stored: Documents) -> None:
    first = watch(stored, None, "", wait=0)
    identifier = ObjectId()
    stored.insert_many([document(7), document("text"), document(identifier)])
    found = watch(stored, first.token, first.server, wait=5)
    for one in (7, "text", identifier):
        assert one in found.written
    assert found.lost == ""
    assert found.server == first.server != ""


def test_a_restart_of_the_embedded_server_is_noticed(tmp_path: Path) -> None:
    """It never refuses a token, and forgets what it had recorded."""
    server = EmbeddedMongo(tmp_path)
    server.start()
    with pymongo.MongoClient[dict[str, Any]](server.environment()["MONGO_URI"]) as client:
        first = watch(client["reading"]["events"], None, None, wait=0)
    port = server.port
    server.stop()
    server.start(port)
    try:
        with pymongo.MongoClient[dict[str, Any]](server.environment()["MONGO_URI"]) as client:
            found = watch(client["reading"]["events"], first.token, first.server, wait=0)
    finally:
        server.stop()
    assert "started anew" in found.lost


def test_more_changes_than_the_embedded_server_keeps_are_told_as_a_gap(stored: Documents) -> None:
    first = watch(stored, None, "", wait=0)
    stored.insert_many([document(number + 1) for number in range(1_000)])
    assert "keeps no more than 1,000" in watch(stored, first.token, first.server, wait=5).lost


# --- A look: the days, whatever the server offers -----------------------------------------------------------


class Finder:
    def __init__(self, settings: Settings, wire: WireServer, connection: Connection, documents: Documents) -> None:
        self.settings, self.wire, self.connection, self.documents = settings, wire, connection, documents
        self.stream = reading_of(settings)
        self.cursor = Cursor()

    def __call__(self, now: dt.datetime = NOW, *, wait: float = 0, stream: Stream | None = None) -> Arrivals:
        """One look; the runs that it asks for succeed."""
        found = find(
            self.documents, self.connection, stream or self.stream, self.cursor, overlap=OVERLAP, wait=wait, now=now
        )
        self.cursor = Cursor(found.mark)
        return found


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[Finder]:
    with (
        WireServer(change_streams=True) as wire,
        database(postgres, mongo_uri=wire.uri) as settings,
        connect(settings, autocommit=True) as connection,
        pymongo.MongoClient[dict[str, Any]](wire.uri, tz_aware=True) as client,
    ):
        yield Finder(settings, wire, connection, client[wire.database][wire.collection])


@pytest.fixture
def finder(shared: Finder) -> Finder:
    empty(shared.connection)
    shared.wire.documents.clear()
    shared.wire.change_streams = True
    shared.wire.forget_changes()
    shared.cursor = Cursor()
    return shared


def test_the_first_look_asks_the_ledger_and_the_next_ones_do_not(finder: Finder) -> None:
    assert finder().gap
    assert not finder().gap


@pytest.mark.parametrize("identifier", ["text", 5, 1.5, {"a": 1}, None], ids=repr)
def test_a_document_of_any_id_and_age_asks_for_its_day(finder: Finder, identifier: Any) -> None:
    finder()
    finder.documents.insert_one(document(identifier, NOON - 40 * _DAYS))
    found = finder()
    assert (found.days, found.documents) == ({DAY - 40 * _DAYS}, 1)
    assert finder().days == frozenset()


def test_a_document_of_the_embedded_server_asks_for_its_day(finder: Finder, stored: Documents) -> None:
    """Whatever it makes of ids in its changes; one that it cannot look up stops no other, and is left to the ledger."""
    on_embedded = Finder(finder.settings, finder.wire, finder.connection, stored)
    on_embedded()
    for days, identifier in enumerate([ObjectId(), "text", 5, b"bytes", {"a": 1}]):
        stored.insert_one(document(identifier, NOON - days * _DAYS))
    assert on_embedded(wait=5).days >= {DAY - days * _DAYS for days in range(3)}


def test_a_corrected_value_asks_for_its_day_again(finder: Finder) -> None:
    finder.documents.insert_one(document(1))
    finder()
    load(finder.settings, finder.stream, DAY, NEXT)
    finder.documents.update_one({"_id": 1}, {"$set": {"payload": {"value": 9.0}}})
    assert finder().days == {DAY}


def test_a_document_that_moves_asks_for_the_day_that_it_moves_to(finder: Finder) -> None:
    finder.documents.insert_one(document(1))
    finder()
    finder.documents.update_one({"_id": 1}, {"$set": {"timestamp": NOON + 3 * _DAYS}})
    assert finder().days == {DAY + 3 * _DAYS}


def test_a_document_without_a_usable_time_asks_for_a_day_that_reads_it(finder: Finder) -> None:
    finder()
    finder.documents.insert_one(document("no time", "soon"))
    assert finder().days == {NOW.date()}


def test_what_is_deleted_at_once_asks_for_nothing(finder: Finder) -> None:
    finder()
    finder.documents.insert_one(document(1))
    finder.documents.delete_one({"_id": 1})
    found = finder()
    assert (found.days, found.gone, found.gap) == (frozenset(), 1, False)


def test_a_deletion_asks_for_its_day_only_where_the_stream_mirrors(finder: Finder) -> None:
    finder.documents.insert_many([document(1), document(2, NOON + _DAYS)])
    load(finder.settings, finder.stream, DAY, NEXT + _DAYS)
    finder()
    finder.documents.delete_one({"_id": 2})
    before = finder.cursor
    assert finder().days == frozenset()
    finder.cursor = before
    mirrors = Stream(**{**vars(finder.stream), "mode": Mode.MIRROR})
    assert finder(stream=mirrors).days == {NEXT}


def test_days_that_the_ledger_finds_wanting_are_asked_for_once_an_hour(finder: Finder) -> None:
    finder.documents.insert_many([document("early", NOON - 9 * _DAYS), document("late", NOON)])
    finder()
    ledger.update(finder.settings, finder.stream)
    days = finder().days
    assert days == {DAY - 9 * _DAYS, DAY}
    ledger.mark_asked(finder.connection, finder.stream, DAY - 9 * _DAYS, DAY, NOW)
    assert finder().days == frozenset()
    assert finder(NOW + dt.timedelta(minutes=61)).days == days
    load(finder.settings, finder.stream, DAY - 9 * _DAYS, NEXT)
    ledger.update(finder.settings, finder.stream)
    assert finder(NOW + dt.timedelta(minutes=61)).days == frozenset()


def test_without_a_change_stream_object_ids_are_looked_at_and_the_ledger_is_asked_once(finder: Finder) -> None:
    finder.wire.change_streams = False
    first = finder()
    assert first.gap
    assert "found by their ObjectIds" in first.note
    finder.documents.insert_one(document(ObjectId.from_datetime(NOW)))
    found = finder()
    assert (found.days, found.gap, found.note) == ({DAY}, False, first.note)


def test_without_a_change_stream_changes_are_found_by_updated_at(finder: Finder) -> None:
    finder.wire.change_streams = False
    stream = Stream(**{**vars(finder.stream), "updated_at": "modified"})
    finder.documents.insert_one(document("old", NOON, modified=NOW - _DAYS))
    assert "changed ones by modified" in finder(stream=stream).note
    finder.documents.update_one({"_id": "old"}, {"$set": {"modified": NOW + dt.timedelta(seconds=5)}})
    later = NOW + dt.timedelta(minutes=1)
    assert finder(later, stream=stream).days == {DAY}
    assert finder(later, stream=stream).days == frozenset()


def test_a_change_stream_that_comes_and_goes_is_used_again_behind_the_ledger(finder: Finder) -> None:
    finder()
    finder.wire.change_streams = False
    assert finder().gap
    finder.wire.change_streams = True
    found = finder()
    assert (found.gap, found.note) == (True, "")
    assert finder.cursor.mark.token


def test_a_cursor_of_the_first_version_goes_on_from_its_id(finder: Finder) -> None:
    finder.wire.change_streams = False
    finder.cursor = Cursor(Mark(identifier=ObjectId.from_datetime(NOON)))
    finder.documents.insert_one(document(ObjectId.from_datetime(NOON + _DAYS)))
    found = finder()
    assert (found.days, found.gap) == ({DAY}, False)


def test_many_pages_of_loaded_ids_are_passed_in_one_look(finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.arrivals.look.look.__defaults__", (3, None))
    finder.wire.change_streams = False
    finder.cursor = Cursor(Mark(identifier=ObjectId.from_datetime(NOON)))
    stamp = ObjectId.from_datetime(NOON + _DAYS).binary[:4]
    finder.documents.insert_many([document(ObjectId(stamp + number.to_bytes(8, "big"))) for number in range(40)])
    load(finder.settings, finder.stream, DAY, NEXT)
    finder.documents.insert_one(document(ObjectId.from_datetime(NOON + 2 * _DAYS), NOON + _DAYS))
    assert finder().days == {NEXT}
