"""Self-test of the wire-protocol test server, through the real pymongo client."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import DatetimeMS, Decimal128, Int64, ObjectId, Regex
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, BulkWriteError, ConnectionFailure, CursorNotFound, OperationFailure

from tests.support.mongo_wire import CommandError, Faults, WireServer, split_documents

ROOT = Path(__file__).resolve().parents[2]


def element(kind: int, name: bytes, value: bytes) -> bytes:
    return bytes([kind]) + name + b"\0" + value


def document(*elements: bytes) -> bytes:
    body = b"".join(elements) + b"\0"
    return (len(body) + 4).to_bytes(4, "little") + body


def small(count: int) -> list[bytes]:
    return [bson.encode({"_id": number, "n": number % 7}) for number in range(count)]


@contextmanager
def connect(uri: str, **options: Any) -> Iterator[Collection[Any]]:
    """The served collection; a heartbeat that does not come in between, quick to give up."""
    with MongoClient(uri, serverSelectionTimeoutMS=2000, heartbeatFrequencyMS=60000, **options) as client:
        yield client["reading"]["events"]


def raw_documents(collection: Collection[Any], **options: Any) -> list[bytes]:
    return [raw for batch in collection.find_raw_batches(**options) for raw in split_documents(batch)]


NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
BAD_UTF8 = document(element(0x10, b"_id", b"\x02\0\0\0"), element(2, b"text", b"\x03\0\0\0\xff\xfe\0"))
DUPLICATES = document(element(0x10, b"_id", b"\x03\0\0\0"), *(element(0x10, b"a", bytes([i, 0, 0, 0])) for i in (7, 8)))
MALFORMED = document(element(0x10, b"_id", b"\x04\0\0\0"), element(0x42, b"what", b"????"))
VALUES = bson.encode(
    {
        "_id": 1,
        "d": Decimal128("1.10"),
        "l": Int64(5),
        "b": b"\0\xff",
        "f": float("nan"),
        "t": DatetimeMS(-(1 << 62)),
    }
)


def test_documents_arrive_byte_for_byte() -> None:
    sent = [VALUES, BAD_UTF8, DUPLICATES, MALFORMED]
    with WireServer(sent) as server, connect(server.uri) as events:
        assert raw_documents(events) == sent
        assert raw_documents(events, filter={"a": 7}) == [
            DUPLICATES,
            MALFORMED,
        ]  # first wins; malformed matches
        assert raw_documents(events, filter={"_id": {"$gte": 2}}, sort={"_id": -1})[1:] == [
            DUPLICATES,
            BAD_UTF8,
        ]
        assert raw_documents(events, filter={"a": 7}, projection=["a"]) == [DUPLICATES, MALFORMED]
        assert raw_documents(events, filter={"_id": 2}, projection={"text": 1, "_id": 0})[0] == document(
            element(2, b"text", b"\x03\0\0\0\xff\xfe\0")
        )
        assert events.find_one({"_id": 1}, {"d": 0, "b": 0, "t": 0, "f": 0}) == {"_id": 1, "l": 5}
        assert server.errors == []
        assert server.commands.count("find") == 6


def test_projection_walks_every_element_type() -> None:
    everything = {
        "null": None, "bool": True, "int": 1, "long": Int64(1), "double": 1.5, "decimal": Decimal128("1"),
        "str": "é", "doc": {"a": 1}, "list": [1, "x"], "bin": b"abc", "oid": ObjectId(), "date": NOON,
        "regex": Regex("a", "i"), "code": bson.Code("x"), "scope": bson.Code("x", {"y": 1}),
        "ts": bson.Timestamp(1, 2), "min": bson.MinKey(), "max": bson.MaxKey(), "_id": 1,
    }  # fmt: skip
    with WireServer([everything]) as server, connect(server.uri) as events:
        for name, value in everything.items():
            assert raw_documents(events, projection={"_id": 0, name: 1}) == [bson.encode({name: value})]


ID = ObjectId("65a000000000000000000000")
MIXED: list[dict[str, Any]] = [
    {"_id": 0},
    {"_id": 1, "v": None},
    {"_id": 2, "v": 5},
    {"_id": 3, "v": Decimal128("7.5")},
    {"_id": 4, "v": float("nan")},
    {"_id": 5, "v": "Abc"},
    {"_id": 6, "v": NOON},
    {"_id": 7, "v": ID},
    {"_id": 8, "v": True},
    {"_id": 9, "v": [1, 20]},
    {"_id": 10, "v": {"w": 5}},
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, range(11)),
        ({"v": 5}, [2]),
        ({"v": None}, [0, 1]),
        ({"v": {"$exists": False}}, [0]),
        ({"v": {"$gt": 6}}, [3, 9]),
        ({"v": {"$gte": 5, "$lt": 7}}, [2, 9]),  # each bound by another array element, as in MongoDB
        ({"v": {"$lte": 5}}, [2, 9]),
        ({"v": float("nan")}, [4]),
        ({"v": {"$gt": "A"}}, [5]),
        ({"v": {"$gte": NOON}}, [6]),
        ({"v": {"$lt": ObjectId("f" * 24)}}, [7]),
        ({"v": {"$type": "number"}}, [2, 3, 4, 9]),
        ({"v": {"$type": ["decimal", 9]}}, [3, 6]),
        ({"v": {"$not": {"$type": "number"}}}, [0, 1, 5, 6, 7, 8, 10]),
        ({"v": {"$ne": 5}, "_id": {"$lt": 4}}, [0, 1, 3]),
        ({"v": {"$in": [True, "Abc", 20]}}, [5, 8, 9]),
        ({"v": {"$nin": [None, 5]}, "_id": {"$lt": 4}}, [3]),
        ({"v": {"$regex": "^a", "$options": "i"}}, [5]),
        ({"v": Regex("b")}, [5]),
        ({"v.w": 5}, [10]),
        ({"$or": [{"_id": 1}, {"v": "Abc"}]}, [1, 5]),
        ({"$and": [{"_id": {"$gt": 1}}, {"_id": {"$lt": 3}}]}, [2]),
        ({"$nor": [{"_id": {"$gt": 1}}, {"v": None, "_id": 0}]}, [1]),
    ],
)
def test_matcher(query: dict[str, Any], expected: list[int], mixed: Collection[Any]) -> None:
    assert [found["_id"] for found in mixed.find(query)] == list(expected)
    assert mixed.count_documents(query) == len(expected)


@pytest.fixture(scope="module")
def mixed() -> Iterator[Collection[Any]]:
    with WireServer(MIXED) as server, connect(server.uri) as events:
        yield events
        assert server.errors == []


def test_sort_follows_type_order_and_unsupported_is_refused(mixed: Collection[Any]) -> None:
    assert [found["_id"] for found in mixed.find().sort("v")] == [0, 1, 4, 2, 3, 5, 10, 9, 7, 8, 6]
    assert [found["_id"] for found in mixed.find().sort("_id", -1).skip(1).limit(2)] == [9, 8]
    for query in ({"v": {"$elemMatch": {}}}, {"$expr": True}):
        with pytest.raises(OperationFailure, match="not supported"):
            list(mixed.find(query))
    with pytest.raises(OperationFailure, match="not supported"):
        list(mixed.aggregate([{"$lookup": {}}]))
    with pytest.raises(OperationFailure, match="no such command"):
        mixed.database.command("frobnicate")


def test_predicate_replaces_the_matcher() -> None:
    with (
        WireServer(small(20), matcher=lambda found, _: found["n"] == 3) as server,
        connect(server.uri) as events,
    ):
        assert [found["_id"] for found in events.find({"any": "thing"})] == [3, 10, 17]


def test_batches() -> None:
    with WireServer(small(1000)) as server, connect(server.uri) as events:
        sizes = [len(split_documents(batch)) for batch in events.find_raw_batches()]
        assert sizes == [101, 899]
        sizes = [len(split_documents(batch)) for batch in events.find_raw_batches(batch_size=400)]
        assert sizes == [400, 400, 200]
        cursor = events.find(batch_size=10)
        next(cursor)
        cursor.close()
        assert server.commands[-1] == "killCursors"
        assert not server._cursors
        assert server.batches_sent == 6
    with (
        WireServer([{"_id": i, "x": b"x" * 6_000_000} for i in range(4)]) as server,
        connect(server.uri) as events,
    ):
        assert [len(split_documents(batch)) for batch in events.find_raw_batches()] == [2, 2]


def test_metadata() -> None:
    indexes = [{"v": 2, "key": {"at": 1}, "name": "at_1"}]
    with WireServer(small(3), indexes=indexes) as server, connect(server.uri) as events:
        assert events.estimated_document_count() == 3
        assert set(events.index_information()) == {"_id_", "at_1"}
        assert events.database.list_collection_names() == ["events"]
        assert events.database.client.list_database_names() == ["reading"]
        assert events.database.command("ping")["ok"] == 1.0
        assert events.database.client.server_info()["version"] == "7.0.0"
        assert events.database.command("connectionStatus")["authInfo"]["authenticatedUsers"] == []
        assert list(events.database["other"].find()) == []
        assert events.database["other"].estimated_document_count() == 0
        assert server.requests[-1]["count"] == "other"


def test_handlers_script_further_commands() -> None:
    def refuse(_: Any) -> dict[str, Any]:
        raise CommandError(50, "MaxTimeMSExpired", "too slow")

    handlers = {"collStats": lambda command: {"of": command["collStats"]}, "count": refuse}
    with WireServer(handlers=handlers) as server, connect(server.uri) as events:
        assert events.database.command("collStats", "events")["of"] == "events"
        with pytest.raises(OperationFailure) as caught:
            events.estimated_document_count()
        assert caught.value.code == 50


def test_writes() -> None:
    with WireServer() as server, connect(server.uri) as events:
        raw = [RawBSONDocument(VALUES), {"_id": 2, "a": 1}, {"_id": 3, "a": 1}]
        events.insert_many(raw)
        assert server.documents[0] == VALUES
        with pytest.raises(BulkWriteError):
            events.insert_many([{"_id": 9}, {"_id": 2}])
        assert events.update_one({"_id": 1}, {"$set": {"l": Int64(6), "new": "x"}, "$unset": {"b": 1}}).modified_count
        assert server.documents[0] == bson.encode(
            {
                "_id": 1,
                "d": Decimal128("1.10"),
                "l": Int64(6),
                "f": float("nan"),
                "t": DatetimeMS(-(1 << 62)),
                "new": "x",
            }
        )
        assert events.update_many({"a": 1}, {"$set": {"a": 2}}).modified_count == 2
        assert events.replace_one({"_id": 2}, {"z": 1}).matched_count == 1
        assert events.update_one({"_id": 7}, {"$set": {"u": 1}}, upsert=True).upserted_id == 7
        events.bulk_write([UpdateOne({"_id": 7}, {"$set": {"u": 2}}), UpdateOne({"_id": 3}, {"$set": {"u": 2}})])
        assert list(events.find({"_id": {"$ne": 1}}, sort=[("_id", 1)])) == [
            {"_id": 2, "z": 1}, {"_id": 3, "a": 2, "u": 2}, {"_id": 7, "u": 2}, {"_id": 9},
        ]  # fmt: skip
        assert events.delete_one({"u": 2}).deleted_count == 1
        assert events.delete_many({}).deleted_count == 4
        server.documents.append({"_id": "from the test"})
        assert events.find_one() == {"_id": "from the test"}
        with pytest.raises(OperationFailure, match="not supported"):
            events.update_one({}, {"$inc": {"a": 1}})
        assert server.errors == []


def test_close_after_batches() -> None:
    with (
        WireServer(small(100), faults=Faults(close_after_batches=2)) as server,
        connect(server.uri) as events,
    ):
        seen = []
        with pytest.raises(AutoReconnect):
            seen.extend(events.find(batch_size=10))
        assert server.batches_sent == 2
        server.faults = Faults()
        assert len(list(events.find(batch_size=10))) == 100
        server.faults = Faults(close_after_batches=0, times=1)  # pymongo retries a find once
        assert len(list(events.find(batch_size=10))) == 100
        server.faults = Faults(close_after_batches=0)
        with pytest.raises(AutoReconnect):
            list(events.find())


def test_cursor_not_found() -> None:
    faults = Faults(cursor_not_found_after_batches=3, times=1)
    with WireServer(small(100), faults=faults) as server, connect(server.uri) as events:
        seen: list[Any] = []
        with pytest.raises(CursorNotFound) as caught:
            seen.extend(events.find(batch_size=10))
        assert (len(seen), caught.value.code) == (30, 43)
        assert len(list(events.find(batch_size=10))) == 100


def test_refused_authentication_and_command() -> None:
    with (
        WireServer(small(1), faults=Faults(refuse_commands={"find"})) as server,
        connect(server.uri) as events,
    ):
        with pytest.raises(OperationFailure) as caught:
            events.find_one()
        assert caught.value.code == 13
        assert events.count_documents({}) == 1
        with connect(server.uri, username="reader", password="secret", authSource="admin") as refused:
            with pytest.raises(OperationFailure) as caught:
                refused.count_documents({})
            assert caught.value.code == 18
        plain = {"username": "reader", "password": "any", "authMechanism": "PLAIN", "authSource": "$external"}
        with connect(server.uri, **plain) as accepted:
            assert accepted.count_documents({}) == 1
        server.faults = Faults(refuse_authentication=True)
        with connect(server.uri, **plain) as refused, pytest.raises(OperationFailure) as caught:
            refused.count_documents({})
        assert caught.value.code == 18


def test_stall_until_released() -> None:
    faults = Faults(stall_after_batches=1)
    with WireServer(small(30), faults=faults) as server, connect(server.uri) as events:
        seen: list[Any] = []
        reader = threading.Thread(target=lambda: seen.extend(events.find(batch_size=10)), daemon=True)
        reader.start()
        assert faults.stalled.wait(120)
        assert server.batches_sent == 1
        assert events.count_documents({}) == 30  # other connections go on
        faults.release.set()
        reader.join(120)
        assert len(seen) == 30


def test_close_ends_a_stall() -> None:
    before, faults = set(threading.enumerate()), Faults(stall_commands={"count"})
    with WireServer(faults=faults) as server, connect(server.uri, retryReads=False) as events:
        failures: list[Exception] = []

        def count() -> None:
            try:
                events.estimated_document_count()
            except ConnectionFailure as error:
                failures.append(error)

        reader = threading.Thread(target=count, daemon=True)
        reader.start()
        assert faults.stalled.wait(120)
        server.close()
        reader.join(120)
        assert len(failures) == 1
    assert "mongo-wire" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_hook_runs_before_each_batch() -> None:
    calls: list[tuple[int, int]] = []
    with WireServer(small(40)) as server, connect(server.uri) as events:

        def hook(number: int) -> None:
            calls.append((number, server.batches_sent))
            if number == 3:
                server.faults = Faults(close_after_batches=0, times=1)

        server.on_batch = hook
        assert events.find_one() == {"_id": 0, "n": 0}  # a probe is no batch
        with pytest.raises(AutoReconnect):
            list(events.find(batch_size=10))
        assert calls == [(1, 0), (2, 1), (3, 2)]
        server.on_batch = lambda number: 1 / 0
        with pytest.raises(OperationFailure, match="ZeroDivisionError"):
            list(events.find(batch_size=10))
        assert [type(error) for error in server.errors] == [ZeroDivisionError]


def test_drop_connections_and_concurrent_clients() -> None:
    with WireServer(small(500)) as server, connect(server.uri) as events:
        results: list[int] = []
        readers = [
            threading.Thread(target=lambda: results.append(len(list(events.find(batch_size=7))))) for _ in range(8)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(120)
        assert results == [500] * 8
        cursor = events.find(batch_size=7)
        next(cursor)
        server.drop_connections()
        with pytest.raises(AutoReconnect):
            list(cursor)
        assert events.count_documents({}) == 500


def test_replay_ignores_the_filter_but_not_a_limit() -> None:
    sent = small(95)
    with WireServer(sent, replay=True, replay_batch=10) as server, connect(server.uri) as events:
        batches = list(events.find_raw_batches({"no": "such"}, batch_size=3))
        assert [len(split_documents(batch)) for batch in batches] == [10] * 9 + [5]
        assert b"".join(batches) == b"".join(sent)
        assert events.find_one(sort=[("_id", -1)]) == {"_id": 94, "n": 3}
        assert events.estimated_document_count() == 95
        server.faults = Faults(cursor_not_found_after_batches=2)
        with pytest.raises(CursorNotFound):
            list(events.find())
    with WireServer(replay=True) as server, connect(server.uri) as events:
        assert list(events.find()) == []


def test_process_serves_files_and_documents(tmp_path: Path) -> None:
    path = tmp_path / "documents.bson"
    path.write_bytes(VALUES + BAD_UTF8)
    with WireServer.in_process(path, faults=Faults(refuse_commands={"count"})) as process:
        with connect(process.uri) as events:
            assert raw_documents(events) == [VALUES, BAD_UTF8]
            with pytest.raises(OperationFailure):
                events.estimated_document_count()
        handle = os.pidfd_open(process.pid)
    assert select.select([handle], [], [], 0)[0]
    os.close(handle)
    with pytest.raises(ValueError, match="stall"):
        WireServer.in_process([], faults=Faults(stall_after_batches=1))
    (tmp_path / "broken.bson").write_bytes(VALUES[:-1])
    with pytest.raises(RuntimeError, match="did not start"):
        WireServer.in_process(tmp_path / "broken.bson")


def test_process_ends_when_its_parent_is_killed() -> None:
    program = (
        "from tests.support.mongo_wire import WireServer\n"
        "process = WireServer.in_process([{'_id': 1}])\n"
        "print(process.pid, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        assert select.select([handle], [], [], 120)[0], "the server outlived its parent"
        os.close(handle)


def test_replay_rate(capsys: pytest.CaptureFixture[str]) -> None:
    one = bson.encode({"_id": ObjectId(), "pad": "x" * 241, "n": 1})
    assert len(one) == 280
    with WireServer.in_process([one] * 200_000, replay=True) as process, connect(process.uri) as events:
        begun = time.perf_counter()
        total = sum(len(batch) for batch in events.find_raw_batches())
        seconds = time.perf_counter() - begun
    assert total == 200_000 * 280
    with capsys.disabled():
        print(f"\nreplay: {200_000 / seconds:,.0f} documents/s, {total / seconds / 1e6:,.0f} MB/s")
