"""The cursor of raw batches gives what pymongo's own gives, and leaves to it what it does not understand."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Timestamp
from bson.binary import Binary
from bson.int64 import Int64
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from hub.loading.raw_batches import RawBatches, cut_out
from tests.support.mongo_wire import WireServer
from tests.support.readings import element, reading, text

DOCUMENTS = [reading(str(number), payload={"text": "x" * number}) for number in range(1234)]


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1234])
@pytest.mark.parametrize("size", [2, 10, 101, 2000])
def test_batches_are_those_of_pymongo(count: int, size: int) -> None:
    with WireServer(DOCUMENTS[:count]) as server, MongoClient[dict[str, Any]](server.uri) as client:
        collection = client["reading"]["events"]
        ours = list(RawBatches(collection, {}, batch_size=size))
        assert ours == list(collection.find_raw_batches({}, batch_size=size))
        assert b"".join(ours) == b"".join(DOCUMENTS[:count])


def reply(name: str, documents: Any, **others: Any) -> dict[str, Any]:
    return {"$clusterTime": {"clusterTime": Timestamp(1, 2), "signature": {"hash": Binary(b"x" * 20)}}, **others,
            "cursor": {"partialResultsReturned": True, name: documents, "id": Int64(7), "ns": "a.b"}, "ok": 1.0}  # fmt: skip


@given(st.sampled_from(["firstBatch", "nextBatch"]), st.integers(0, 120), st.integers(0, 3))
def test_a_batch_is_cut_out_and_the_rest_stays(name: str, count: int, width: int) -> None:
    documents = [{"number": number, "text": "ä" * width} for number in range(count)]
    cut = cut_out(bson.encode(reply(name, documents)))
    assert cut is not None
    assert cut[0] == name
    assert cut[1] == b"".join(map(bson.encode, documents))
    assert bson.decode(cut[2]) == bson.decode(bson.encode(reply(name, [])))


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": 0.0, "errmsg": "no", "code": 43},
        {"cursor": 5, "ok": 1.0},
        {"cursor": {"id": 0}, "ok": 1.0},
        reply("nextBatch", {"0": {}}),
        reply("nextBatch", [{"a": 1}, 5]),
        reply("nextBatch", [{}], other=bson.Code("f()")),
    ],
    ids=str,
)
def test_other_replies_are_left_to_pymongo(answer: dict[str, Any]) -> None:
    assert cut_out(bson.encode(answer)) is None


def test_names_of_elements_that_are_no_numbers_in_order_are_left_to_pymongo() -> None:
    documents = b"".join(element(3, name, bson.encode({"a": 1})) for name in (b"0", b"zehn"))
    array = (len(documents) + 5).to_bytes(4, "little") + documents + b"\0"
    cursor = element(4, b"firstBatch", array) + element(2, b"ns", text(b"a.b"))
    inner = (len(cursor) + 5).to_bytes(4, "little") + cursor + b"\0"
    outer = element(3, b"cursor", inner)
    assert cut_out((len(outer) + 5).to_bytes(4, "little") + outer + b"\0") is None


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_no_damaged_reply_is_cut_wrongly(position: int, damage: bytes) -> None:
    whole = bytearray(bson.encode(reply("firstBatch", [{"a": number} for number in range(12)])))
    position %= len(whole)
    whole[position : position + len(damage)] = damage
    cut = cut_out(bytes(whole))
    if cut is not None:
        assert len(cut[1]) + len(cut[2]) <= len(whole)
