"""The careful converter: different ids have different texts, and dead letters are found again by theirs."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import bson
import pytest
from bson import Code, Decimal128, Int64, MaxKey, MinKey, Regex, Timestamp
from bson.binary import Binary
from bson.dbref import DBRef
from bson.objectid import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.loading.convert import OPTIONS, Unusable, convert, decode, decode_id, id_text, number_at
from hub.loading.model import Mapping, Reject, Row, microseconds
from tests.support.readings import ID, NOON, document, element, encode, extended, reading, text

MAPPING = Mapping(("timestamp",), ("payload", "value"), 0, microseconds(NOON) * 2)
QUICK = settings(max_examples=250)
NULL_DB = element(10, b"$db", b"")

WORDS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.sampled_from(["", "5", "-5", "true", "false", "null", "{", '"', "[1]", "a\0", "\\u0000", str(ID), "sha256:00"]),
    st.sampled_from(['"5"', '"true"', '{"$numberDouble": "1.5"}', '{"$oid": "x"}', '"a\\u0000"', "٣"]),
)
KEYS = st.one_of(
    st.sampled_from(["a", "$numberInt", "$numberLong", "$oid", "$code", "$date", "$bson", "$ref", "$binary"]),
    WORDS.map(lambda word: word.replace("\0", "")),
)
PLAIN = st.one_of(
    WORDS, st.integers(-20, 20), st.booleans(), st.none(), st.floats(allow_nan=False).filter(lambda x: x != 0),
    st.sampled_from([ID, Decimal128("5"), uuid.UUID(int=5), b"5", Binary(b"5", 5), Regex("5")]),
    st.sampled_from([Code("5"), Code("5", {})]),
    st.sampled_from([Timestamp(5, 5), MinKey(), MaxKey(), DBRef("5", 5), NOON]),
)  # fmt: skip
IDENTIFIERS = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=2)), max_leaves=4
)


def as_bson(identifier: Any) -> bytes:
    return encode({"_id": identifier})


@QUICK
@given(IDENTIFIERS, IDENTIFIERS)
def test_different_ids_have_different_texts(one: Any, other: Any) -> None:
    one, other = (bson.decode(as_bson(identifier), OPTIONS)["_id"] for identifier in (one, other))
    assert (id_text(one) == id_text(other)) == (as_bson(one) == as_bson(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, "true"), (False, "false"), (None, "null"), (5, "5"), (-5, "-5"), (ID, str(ID)), (Code("x"), "x"),
        ("a\0", "a\\u0000"), ("a\0", '"a\\u0000"'), ("5", '"5"'), ("", '""'), (b"5", "5"), (1.5, "1.5"),
        ({"a": 5}, {"a": {"$numberInt": "5"}}), ({"a": ID}, {"a": {"$oid": str(ID)}}), ({"a": 5}, '{"a": 5}'),
        ({"a": [{"b": Code("x")}]}, {"a": [{"b": {"$code": "x"}}]}), (1.5, {"$numberDouble": "1.5"}),
        ([5], '["5"]'), (Decimal128("1.0"), Decimal128("1.00")), (Binary(b"5", 5), b"5"),
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), {"$date": {"$numberLong": "1767225600000"}}),
    ],
    ids=repr,
)  # fmt: skip
def test_ids_that_look_alike_have_different_texts(one: Any, other: Any) -> None:
    assert id_text(one) != id_text(other)


def test_the_same_integer_is_the_same_id_in_either_width() -> None:
    assert id_text(5) == id_text(Int64(5)) == "5"


@pytest.mark.parametrize(
    "identifier", ["x" * 1025, "ä" * 513, "\0" * 200, {"a": "x" * 1020}, {"$a": "x" * 600}], ids=len
)
def test_an_id_too_long_for_an_index_is_unusable(identifier: Any) -> None:
    with pytest.raises(Unusable) as unusable:
        id_text(identifier)
    assert unusable.value.reason == "id_too_long"


@pytest.mark.parametrize(
    "identifier",
    [ID, "text", "", 5, Int64(2**40), 1.5, True, NOON, Decimal128("1.5"), Timestamp(1, 2), Binary(b"12", 5)],
)
def test_a_dead_letter_that_cannot_be_decoded_has_the_text_of_its_id(identifier: Any) -> None:
    raw = extended(reading(identifier), element(2, b"note", text(b"\xff")))
    letter = convert(raw, MAPPING)
    assert isinstance(letter, Reject)
    assert (letter.mongo_id, letter.reason, letter.raw) == (id_text(identifier), "invalid_utf8", raw)


def test_dead_letters_without_a_usable_id_are_told_apart_by_a_digest() -> None:
    letters = [convert(document(element(2, b"x", text(b"\xff" + bytes([n])))), MAPPING) for n in (1, 2)]
    assert all(isinstance(letter, Reject) and letter.mongo_id.startswith("sha256:") for letter in letters)
    assert letters[0].mongo_id != letters[1].mongo_id
    string = convert(reading(letters[0].mongo_id), MAPPING)
    assert string.mongo_id not in {letter.mongo_id for letter in letters}


@pytest.mark.parametrize("raw", [b"", b"\5\0\0\0\0", b"\xff" * 12, document(element(2, b"_id", b"\xff\xff\xff\x7f"))])
def test_an_id_that_is_not_there_is_not_made_up(raw: bytes) -> None:
    assert decode_id(raw) is None


def repeated(*path: bytes) -> bytes:
    """A document in which the last name of the path stands twice, at the depth of the path."""
    *outer, name = path
    inner = element(16, name, bytes(4)) + element(16, name, b"\1\0\0\0")
    for step in reversed(outer):
        inner = element(4 if step.isdigit() else 3, step, document(inner))
    return extended(reading(), inner)


@pytest.mark.parametrize(
    "raw", [repeated(b"a"), repeated(b"a", b"b"), repeated(b"a", b"b", b"c"), repeated(b"source"), repeated(b"")]
)
def test_a_repeated_key_is_noticed_at_any_depth(raw: bytes) -> None:
    with pytest.raises(Unusable) as unusable:
        decode(raw)
    assert unusable.value.reason == "repeated_key"


@pytest.mark.parametrize(
    "value",
    [
        element(12, b"at", text(b"db.books") + ID.binary),
        element(3, b"at", document(element(2, b"$ref", text(b"books")), element(16, b"$id", bytes(4)), NULL_DB)),
    ],
    ids=["DBPointer", "DBRef with $db null"],
)
def test_a_reference_that_decoding_would_change_is_told_as_one(value: bytes) -> None:
    for raw in (extended(reading(), value), extended(reading(), element(4, b"list", document(value)))):
        letter = convert(raw, MAPPING)
        assert isinstance(letter, Reject)
        assert (letter.reason, letter.raw) == ("reference", raw)


@pytest.mark.parametrize(
    "value",
    [
        DBRef("c", 1),
        DBRef("c", 1, "d", x=1),
        Regex("a", "im"),
        [Code("f", {"a": 1})],
        {"a": {"a": {"a": 1}}},
        Binary(b"x", 2),
    ],
)
def test_the_same_key_in_different_documents_is_no_repetition(value: Any) -> None:
    raw = extended(reading(payload={"value": value}, meta={"value": value}), element(11, b"flags", b"a\0zi\0"))
    assert isinstance(convert(raw, MAPPING), Row)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("a", None),
        ("a.b", 5.0),
        ("a.b.c", None),
        ("a.b.", None),
        ("", None),
        ("a.x", None),
        ("d.0", None),
        ("_id", None),
    ],
)
def test_the_number_at_a_path(path: str, number: float | None) -> None:
    assert number_at({"a": {"b": 5}, "d": [5], "_id": ObjectId()}, tuple(path.split("."))) == number


def test_the_detail_of_a_dead_letter_is_short_and_storable() -> None:
    letter = convert(reading(time="\0" * 2000), MAPPING)
    assert isinstance(letter, Reject)
    assert len(letter.detail) <= 500
    assert "\0" not in letter.detail
