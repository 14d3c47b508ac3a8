"""The fast path of the converter gives byte for byte what the careful one gives, whatever comes."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import itertools
import uuid
from typing import Any

import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, Regex, Timestamp
from bson.binary import Binary
from bson.dbref import DBRef
from bson.objectid import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.loading import rows
from hub.loading.batch import Converter
from hub.loading.columns import ColumnConverter
from hub.loading.convert import convert
from hub.loading.model import DAY_US, EPOCH, Mapping, Reject, microseconds
from tests.support.readings import ID, NOON, document, element, encode, extended, reading, text, without

START, END = microseconds(NOON.replace(hour=0)), microseconds(NOON.replace(hour=0) + dt.timedelta(days=1))
WINDOW = (START, END)
MAPPING = Mapping(("timestamp", "extracted_at"), ("payload", "value"), START - 3 * DAY_US, END + 3 * DAY_US)

QUICK = settings(max_examples=250)

# ------------------------------------------------------------------- documents of every kind

TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(
        ["", "\0", "a\0b", "\\u0000", "null", "-0", "-0.0", "NaN", "ä" * 201, "x" * 200, '\x7f\u2028\n"\\', "😀"]
    ),
)
NUMBERS = st.one_of(
    st.floats(),
    st.sampled_from([-0.0, 0.0, float("nan"), float("inf"), float("-inf"), 5e-324, 1e22, 1.7976931348623157e308]),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.sampled_from([Int64(2**53), Int64(2**53 + 1), Int64(-(2**53) - 1), Int64(-(2**63)), Int64(5)]),
    st.sampled_from(["0", "-0", "NaN", "Infinity", "1.10", "1E+6144", "1E-6176"]).map(Decimal128),
)
DATES = st.one_of(
    st.integers(START // 1000, END // 1000 - 1).map(DatetimeMS),
    st.sampled_from([START // 1000, END // 1000 - 1, END // 1000, START // 1000 - 1]).map(DatetimeMS),
    st.integers(-4 * 86_400_000, 4 * 86_400_000).map(lambda ms: DatetimeMS(START // 1000 + ms)),
    st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
)
ISO_TIMES = st.one_of(
    st.sampled_from(
        [
            "2026-03-05T12:00:00Z", "2026-03-05T12:00:00+02:00", "2026-03-06T01:30:00+02:00", "2026-03-05",
            "2026-03-05T12:00:00.123456", " 2026-03-05T12:00Z ", "2026-W10-4", "20260305T120000Z", "1970-01-01",
            "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-03-04T12:00:00Z", "2026-02-30", "soon",
        ]
    ),
    TEXTS,
)  # fmt: skip
ODD = st.sampled_from(
    [
        ID, b"", b"\0\xff", Binary(b"\1", 0x80), Binary(b"12", 2), Binary(bytes(16), 3), uuid.UUID(int=7),
        Regex("^a", "im"), Regex("b\\d", ""), DBRef("c", 1), DBRef("c", ID, "d", extra=-0.0),
        Code("f()"), Code("g()", {"x": 1}), Timestamp(1, 2), MinKey(), MaxKey(), None, True, False, {"$date": "x"}, {"$numberLong": "5"}, [], {},
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(TEXTS, NUMBERS, DATES, ODD),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(TEXTS.map(lambda key: key.replace("\0", "")), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.one_of(st.sampled_from(["kobo", "tolino"]), TEXTS, VALUES)
TIMES = st.one_of(DATES, DATES, DATES, ISO_TIMES, VALUES)
IDS = st.one_of(st.binary(min_size=12, max_size=12).map(ObjectId), st.just(ID), VALUES)

FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "_id": IDS, "timestamp": TIMES, "extracted_at": TIMES, "source": NAMES, "event_type": NAMES,
        "payload": st.one_of(VALUES, st.fixed_dictionaries({"value": VALUES})), "meta": VALUES, "status": VALUES,
        "_status": VALUES, "a.b": VALUES, "$set": VALUES, "value": NUMBERS,
    },
)  # fmt: skip
USUAL = {"_id": ID, "timestamp": NOON, "source": "kobo", "event_type": "page", "payload": {"value": 2.5}}
DOCUMENTS = st.one_of(
    FIELDS.map(encode),
    FIELDS.map(lambda fields: encode(USUAL | fields)),
    FIELDS.map(lambda fields: encode({**USUAL, "payload": {"value": 1, "list": list(fields.values())}})),
)
NULL_DB = element(10, b"$db", b"")
# Elements that no driver writes: repeated keys, invalid UTF-8, deprecated and unknown types.
WRONG = st.sampled_from(
    [
        element(16, b"status", bytes(4)), element(7, b"_id", ID.binary), element(2, b"x", text(b"\xff")),
        element(2, b"\xff", text(b"x")), element(2, b"x", text(b"\xed\xa0\x80")), element(6, b"u", b""),
        element(14, b"symbol", text(b"s")), element(12, b"pointer", text(b"ns") + bytes(12)),
        element(5, b"uuid", b"\3\0\0\0\4abc"), element(11, b"regex", b"a\0iz\0"),
        element(9, b"late", b"\xff" * 7 + b"\x7f"),
        element(3, b"sub", document(element(10, b"k", b""), element(10, b"k", b""))),
        element(4, b"array", document(element(16, b"7", bytes(4)), element(16, b"7", bytes(4)))),
        element(3, b"ref", document(element(2, b"$ref", text(b"c")), element(16, b"$id", bytes(4)), NULL_DB)),
        element(9, b"timestamp", bytes(8)), element(0x42, b"what", b"????"),
    ]
)  # fmt: skip
BROKEN = st.builds(extended, DOCUMENTS, WRONG)


def one_by_one(raws: list[bytes]) -> tuple[bytes, dict[int, int], list[Reject], int]:
    """What the batch must come to: the careful converter, document by document."""
    data, days, rejects, elsewhere = [], collections.Counter[int](), [], 0
    for raw in raws:
        made = convert(raw, MAPPING)
        if isinstance(made, Reject):
            known = made.day is not None and not made.reason.startswith("time_")
            if known and (made.day - EPOCH.date()).days != START // DAY_US:
                elsewhere += 1  # another day's to reject
            else:
                rejects.append(made)
        elif START <= made.time < END:
            data.append(rows.pack(made))
            days[made.time // DAY_US] += 1
        else:
            elsewhere += 1
    return b"".join(data), days, rejects, elsewhere


BY_COLUMNS, BY_ROWS = 1, 10**6  # from how many documents on


def assert_same(raws: list[bytes]) -> None:
    careful = one_by_one(raws)
    for many in (BY_COLUMNS, BY_ROWS):
        made = Converter(MAPPING, WINDOW, many=many).convert(b"".join(raws))
        assert (made.data, dict(made.days), made.rejects, made.elsewhere) == careful
        assert made.documents == len(raws) == sum(made.days.values()) + len(made.rejects) + made.elsewhere


@QUICK
@given(st.lists(DOCUMENTS, max_size=6))
def test_a_batch_is_what_its_documents_are(raws: list[bytes]) -> None:
    assert_same(raws)


@QUICK
@given(st.lists(st.one_of(DOCUMENTS, BROKEN, BROKEN), min_size=1, max_size=4))
def test_a_batch_with_broken_documents_is_what_its_documents_are(raws: list[bytes]) -> None:
    assert_same(raws)


# Documents of the shapes that go by columns, with the values that those must leave to others.
FIELD_ORDER = st.permutations(["_id", "timestamp", "source", "event_type", "payload", "meta", "status"])
OF_A_SHAPE = st.fixed_dictionaries(
    {
        "_id": st.binary(min_size=12, max_size=12).map(ObjectId), "timestamp": DATES,
        "source": st.one_of(st.sampled_from(["kobo", "tolino"]), TEXTS),
        "event_type": st.sampled_from(["page", "\0", "", "x" * 201]),
        "payload": st.dictionaries(st.sampled_from(["value", "b", "$ref", "$id"]), VALUES, max_size=3),
        "meta": st.one_of(st.just({"host": "h"}), st.dictionaries(st.sampled_from(["status", "b"]), VALUES)),
        "status": st.one_of(st.just("done"), VALUES),
    }
)  # fmt: skip


@QUICK
@given(FIELD_ORDER, st.lists(OF_A_SHAPE, min_size=1, max_size=8), st.integers(1, 7))
def test_a_batch_of_one_shape_is_what_its_documents_are(
    order: list[str], fields: list[dict[str, Any]], count: int
) -> None:
    assert_same([encode({name: values[name] for name in order[:count]}) for values in fields])


@QUICK
@given(st.lists(OF_A_SHAPE, min_size=2, max_size=6), st.data())
def test_a_batch_of_one_shape_with_a_flipped_byte_is_what_its_documents_are(
    fields: list[dict[str, Any]], data: st.DataObject
) -> None:
    raws = [bytearray(encode(values)) for values in fields]
    for raw in raws[1:]:
        position = data.draw(st.integers(4, len(raw) - 2))
        raw[position] = data.draw(st.integers(0, 255))
    assert_same([bytes(raw) for raw in raws])


@QUICK
@given(DOCUMENTS, st.lists(st.tuples(st.integers(4, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_flipped_byte_makes_the_converter_fail(raw: bytes, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(raw)
    for position, value in flips:
        damaged[4 + position % (len(raw) - 4)] = value
    damaged[-1] = 0
    assert_same([reading(), bytes(damaged), reading()])


@pytest.mark.parametrize(
    "raw",
    [
        reading(),
        reading(payload={"value": float("nan")}),
        reading(payload={"text": "\\u0000"}),
        reading(payload={"text": "-0 null \\u0000 \0"}),
        reading(payload={"a": {"b": [-0.0, None]}}),
        reading(meta={"status": 1}, status=2),
        reading(source="ä" * 201),
        reading(source=Code("kobo")),
        reading("text"),
        reading(time="2026-03-05T23:30:00-02:00"),
        reading(time="2026-03-06T01:30:00+02:00"),
        without("_id"),
        without("payload"),
        without("timestamp", extracted_at=NOON),
    ],
)
def test_documents_that_once_went_different_ways_go_the_same(raw: bytes) -> None:
    assert_same([raw])
    assert_same([reading(), raw, reading("other")])
    assert_same([raw, extended(reading(), element(2, b"x", text(b"\xff")))])  # the whole batch goes the careful way


@QUICK
@given(st.lists(st.lists(st.one_of(st.just(reading()), DOCUMENTS), max_size=3), min_size=2, max_size=4))
def test_what_a_batch_becomes_does_not_depend_on_the_batches_before_it(batches: list[list[bytes]]) -> None:
    converter = Converter(MAPPING, WINDOW, many=BY_COLUMNS)
    for raws in batches:
        made = converter.convert(b"".join(raws))
        assert (made.data, dict(made.days), made.rejects, made.elsewhere) == one_by_one(raws)


@pytest.mark.parametrize("many", [BY_COLUMNS, BY_ROWS])
def test_names_learned_from_one_batch_are_right_in_the_next(many: int) -> None:
    converter = Converter(MAPPING, WINDOW, many=many)
    for source in ("kobo", "page", "kobo"):
        raws = [reading(source=source, event_type="page"), reading(source="page", event_type=source)]
        assert converter.convert(b"".join(raws)).data == one_by_one(raws)[0]


def test_a_dead_letter_holds_its_own_bytes_and_not_its_neighbours() -> None:
    raws = [reading(), reading(payload="\0"), reading("other"), reading(time="soon")]
    made = Converter(MAPPING, WINDOW).convert(b"".join(raws))
    assert [letter.raw for letter in made.rejects] == [raws[1], raws[3]]
    assert dataclasses.replace(made.rejects[0], raw=b"").reason == "nul_character"


@pytest.mark.parametrize("depth", [100, 250])
@pytest.mark.parametrize("end", [0.5, None, -0.0], ids=str)
def test_the_deepest_documents_of_mongodb_go_the_same_way(depth: int, end: Any) -> None:
    value: Any = end
    for _ in range(depth):
        value = {"a": value}
    assert_same([reading(payload=value)])


def test_usual_documents_go_by_columns_and_others_do_not() -> None:
    raws = [
        reading(),
        reading("text"),
        reading(ObjectId(), payload={"x": 1}),
        reading(time="2026-03-05"),
        without("payload"),
    ]
    raws += [reading(), reading(extra=5), reading(source=None), reading(payload=[1])]
    offsets = [0, *itertools.accumulate(map(len, raws))]
    made, left = ColumnConverter(MAPPING, WINDOW, {}).convert(b"".join(raws), offsets)
    by_columns = sorted(position for columns in made for position in columns.positions.tolist())
    assert (by_columns, left.tolist()) == ([0, 2, 4, 5, 6], [1, 3, 7, 8])
