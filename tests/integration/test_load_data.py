"""Data that must survive: each kind of document becomes the right row, or a dead letter with its raw BSON."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, Regex, Timestamp
from bson.binary import Binary
from bson.dbref import DBRef

from hub.loading.load import load
from hub.loading.report import LoadReport
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection, connect
from tests.support.mongo_wire import WireServer
from tests.support.readings import (
    DAY,
    ID,
    NEXT,
    NOON,
    balanced,
    database,
    document,
    element,
    empty,
    encode,
    extended,
    reading,
    rejects,
    rows,
    text,
    without,
)

PAYLOAD, META = 5, 6
NOON_TEXT = "2026-03-05T12:00:00Z"
TIME_FIELD = element(9, b"timestamp", int(NOON.timestamp() * 1000).to_bytes(8, "little"))


class Case:
    """A loader, its source and its database."""

    def __init__(self, settings: Settings, wire: WireServer, connection: Connection) -> None:
        self.settings, self.wire, self.connection = settings, wire, connection

    def load(self, *documents: bytes, scanned: int | None = None) -> LoadReport:
        """Load the day from these documents, of which the scan returns `scanned`, usually all of them once."""
        self.wire.documents[:] = documents
        report = load(self.settings, reading_of(self.settings), DAY, NEXT)
        assert report.documents == (len(documents) if scanned is None else scanned)
        assert balanced(report)
        assert self.wire.errors == []
        return report

    def row(self, raw: bytes) -> tuple[Any, ...]:
        """Load the document; it must become the one row."""
        assert self.load(raw).loaded == 1
        (found,) = rows(self.connection)
        assert rejects(self.connection) == []
        return found

    def dead_letter(self, raw: bytes) -> tuple[str, str, dt.date | None]:
        """Load the document; it must become the one dead letter, with its bytes as they were."""
        report = self.load(raw)
        assert (report.loaded, report.rejected) == (0, 1)
        ((identifier, reason, day, kept),) = rejects(self.connection)
        assert kept == raw
        assert rows(self.connection) == []
        return identifier, reason, day


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[Case]:
    """One database and one source for all cases: a database of its own for each would take minutes."""
    with (
        WireServer() as wire,
        database(postgres, mongo_uri=wire.uri) as settings,
        connect(settings, autocommit=True) as connection,
    ):
        yield Case(settings, wire, connection)


@pytest.fixture
def case(shared: Case) -> Case:
    """The shared case, empty."""
    empty(shared.connection)
    shared.wire.documents.clear()
    return shared


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"value": 1}
    for _ in range(depth):
        value = {"deeper": [value]}
    return value


# ------------------------------------------------------------------- _id


@pytest.mark.parametrize(
    ("identifier", "shown"),
    [
        (ID, "69a96e400000000000000001"),
        ("invoice-7", "invoice-7"),
        ("Zoë/😀", "Zoë/😀"),
        ("69a96e400000000000000001", '"69a96e400000000000000001"'),
        ("42", '"42"'),
        ("null", '"null"'),
        ("", '""'),
        ("with\0nul", '"with\\u0000nul"'),
        (42, "42"),
        (-1, "-1"),
        (Int64(2**60), str(2**60)),
        (True, "true"),
        (None, "null"),
        (1.5, '{"$numberDouble": "1.5"}'),
        (
            uuid.UUID("12345678-1234-5678-1234-567812345678"),
            '{"$binary": {"base64": "EjRWeBI0VngSNFZ4EjRWeA==", "subType": "04"}}',
        ),
        (Binary(b"\1\2", 5), '{"$binary": {"base64": "AQI=", "subType": "05"}}'),
        ({"device": "a", "n": 1}, '{"device": "a", "n": {"$numberInt": "1"}}'),
        (NOON, '{"$date": {"$numberLong": "1772712000000"}}'),
        ("x" * 1024, "x" * 1024),
    ],
    ids=repr,
)
def test_an_id_of_any_type_becomes_its_text(case: Case, identifier: Any, shown: str) -> None:
    assert case.row(reading(identifier))[0] == shown


def test_ids_that_look_alike_stay_apart(case: Case) -> None:
    alike = [42, "42", ID, str(ID), True, "true", None, "null", {"a": 5}, {"a": {"$numberInt": "5"}}, Code("x"), "x"]
    assert case.load(*map(reading, alike)).loaded == len(alike)
    assert len(rows(case.connection)) == len(alike)


def test_an_id_too_long_for_an_index_is_a_dead_letter_of_its_day(case: Case) -> None:
    identifier, reason, day = case.dead_letter(reading("x" * 1025))
    assert (reason, day) == ("id_too_long", DAY)
    assert identifier.startswith("sha256:")


def test_documents_without_an_id_are_dead_letters_and_not_one_row(case: Case) -> None:
    report = case.load(without("_id"), without("_id", source="other"))
    assert (report.loaded, report.rejected, report.reasons) == (0, 2, {"id_missing": 2})
    assert len(rejects(case.connection)) == 2


# ------------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("time", "at"),
    [
        (NOON, NOON),
        (NOON.replace(hour=0), NOON.replace(hour=0)),
        (
            NOON.replace(hour=23, minute=59, second=59, microsecond=999000),
            NOON.replace(hour=23, minute=59, second=59, microsecond=999000),
        ),
        ("2026-03-05T12:00:00Z", NOON),
        ("2026-03-05T12:00:00", NOON),
        ("2026-03-05 12:00:00", NOON),
        ("2026-03-05", NOON.replace(hour=0)),
        ("2026-03-05T14:00:00+02:00", NOON),
        ("2026-03-06T01:59:59+14:00", NOON.replace(hour=11, minute=59, second=59)),
        ("2026-03-04T13:00:00-11:00", NOON.replace(hour=0)),
        ("2026-03-05T23:59:59.999999Z", NOON.replace(hour=23, minute=59, second=59, microsecond=999999)),
        ("2026-03-05T12:00:00.123456", NOON.replace(microsecond=123456)),
        ("20260305T120000Z", NOON),
        ("2026-W10-4T12:00:00Z", NOON),
        ("  2026-03-05T12:00:00Z\n", NOON),
    ],
    ids=str,
)
def test_a_time_of_any_accepted_form_is_found_and_exact(case: Case, time: Any, at: dt.datetime) -> None:
    assert case.row(reading(time=time))[1] == at


@pytest.mark.parametrize(
    "time", ["2025-W10-4T12:00Z", "20250306T120000Z", " 2025-03-06T12:00Z", "2025-03-06T12:00:00.000+00:00"]
)
def test_a_time_of_a_past_year_is_found_whatever_it_sorts_like(case: Case, time: str) -> None:
    case.wire.documents[:] = [reading(time=time)]
    report = load(case.settings, reading_of(case.settings), dt.date(2025, 3, 6), dt.date(2025, 3, 7))
    assert (report.loaded, report.documents) == (1, 1)


@pytest.mark.parametrize(
    ("time", "reason", "day"),
    [
        (dt.datetime(1970, 1, 1, tzinfo=dt.UTC), "time_before_start", dt.date(1970, 1, 1)),
        (dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC), "time_in_future", dt.date(9999, 12, 31)),
        (dt.datetime(1, 1, 1, tzinfo=dt.UTC), "time_before_start", dt.date(1, 1, 1)),
        ("1970-01-01T00:00:00Z", "time_before_start", dt.date(1970, 1, 1)),
        ("9999-12-31T23:59:59-23:59", "time_in_future", None),
        (DatetimeMS(2**63 - 1), "time_in_future", None),
        (DatetimeMS(-(2**63)), "time_before_start", None),
        (None, "time_null", None),
        (1772712000, "time_not_a_date", None),
        (Int64(1772712000000), "time_not_a_date", None),
        (1.5, "time_not_a_date", None),
        (True, "time_not_a_date", None),
        (Timestamp(1772712000, 1), "time_not_a_date", None),
        ([NOON], "time_not_a_date", None),
        ({"$date": 5}, "time_not_a_date", None),
        (Code("2026-03-05"), "time_not_a_date", None),
        ("yesterday", "time_unparseable", None),
        ("2026-03-05 in the morning", "time_unparseable", None),
        ("2026-02-30T12:00:00Z", "time_unparseable", None),
        ("", "time_unparseable", None),
        ("\0", "time_unparseable", None),
    ],
    ids=repr,
)
def test_a_time_that_cannot_be_used_is_a_dead_letter(case: Case, time: Any, reason: str, day: dt.date | None) -> None:
    if time == "2026-02-30T12:00:00Z":  # no scan of a day in March comes across it
        case.wire.documents[:] = [reading(time=time)]
        report = load(case.settings, reading_of(case.settings), dt.date(2026, 2, 28), dt.date(2026, 3, 1))
        assert (report.rejected, report.reasons) == (1, {reason: 1})
        return
    assert case.dead_letter(reading(time=time)) == (str(ID), reason, day)


def test_a_document_without_a_time_is_a_dead_letter(case: Case) -> None:
    assert case.dead_letter(without("timestamp")) == (str(ID), "time_missing", None)


@pytest.mark.parametrize("first", [None, "absent"])
def test_the_second_time_field_counts_where_the_first_is_missing_or_null(case: Case, first: Any) -> None:
    raw = reading(extracted_at=NOON, time=None)
    if first:
        raw = without("timestamp", extracted_at=NOON)
    assert case.row(raw)[1] == NOON


def test_a_first_time_field_that_is_wrong_is_not_papered_over_by_the_second(case: Case) -> None:
    assert case.dead_letter(reading(time="soon", extracted_at=NOON))[1] == "time_unparseable"


@pytest.mark.parametrize("other", ["2026-03-04T23:59:59.999999Z", "2026-03-06T00:00:00Z", "2026-03-06T01:00:00+00:30"])
def test_a_reading_of_another_day_is_left_to_that_day(case: Case, other: str) -> None:
    report = case.load(reading(time=other, payload={"x": "nul \0"}))
    assert (report.loaded, report.rejected, report.elsewhere) == (0, 0, 1)


def test_a_dead_letter_of_the_future_becomes_a_row_when_its_time_is_right(case: Case) -> None:
    case.dead_letter(reading(time=dt.datetime(9999, 1, 1, tzinfo=dt.UTC)))
    assert case.row(reading())[0] == str(ID)


# ------------------------------------------------------------------- payload


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        ([1, "two", {"three": None}], [1, "two", {"three": None}]),
        ("a string", "a string"),
        (7, 7),
        (None, None),
        ({}, {}),
        (nested(45), nested(45)),
        ({"text": "ä" * 500_000}, {"text": "ä" * 500_000}),
        ({"a.b": 1, "$set": 2, "": 3, "with space": 4}, {"a.b": 1, "$set": 2, "": 3, "with space": 4}),
        ({"text": "\\u0000"}, {"text": "\\u0000"}),
        ({"text": '\\"\n\t\x01\x7f\u2028'}, {"text": '\\"\n\t\x01\x7f\u2028'}),
        ({"n": Decimal128("1.10")}, {"n": {"$numberDecimal": "1.10"}}),
        ({"n": Decimal128("NaN")}, {"n": {"$numberDecimal": "NaN"}}),
        ({"n": Int64(2**53)}, {"n": 2**53}),
        ({"n": Int64(2**53 + 1)}, {"n": {"$numberLong": "9007199254740993"}}),
        ({"n": Int64(-(2**63))}, {"n": {"$numberLong": "-9223372036854775808"}}),
        ({"b": b"\0\xff"}, {"b": {"$binary": {"base64": "AP8=", "subType": "00"}}}),
        ({"b": Binary(b"\1", 128)}, {"b": {"$binary": {"base64": "AQ==", "subType": "80"}}}),
        ({"n": float("nan")}, {"n": {"$numberDouble": "NaN"}}),
        ({"n": float("inf")}, {"n": {"$numberDouble": "Infinity"}}),
        ({"n": float("-inf")}, {"n": {"$numberDouble": "-Infinity"}}),
        ({"n": -0.0}, {"n": {"$numberDouble": "-0.0"}}),
        ({"n": 0.1, "tiny": 5e-324}, {"n": 0.1, "tiny": 5e-324}),
        ({"huge": 1.7976931348623157e308}, {"huge": 17976931348623157 * 10**292}),
        ({"r": Regex("^a.*", "im")}, {"r": {"$regularExpression": {"pattern": "^a.*", "options": "im"}}}),
        ({"ref": DBRef("books", ID, "db")}, {"ref": {"$ref": "books", "$id": {"$oid": str(ID)}, "$db": "db"}}),
        ({"at": NOON, "list": [{"at": NOON}]}, {"at": NOON_TEXT, "list": [{"at": NOON_TEXT}]}),
        ({"at": DatetimeMS(2**62)}, {"at": {"$date": {"$numberLong": str(2**62)}}}),
        ({"o": ID}, {"o": {"$oid": str(ID)}}),
        ({"u": uuid.UUID(int=1)}, {"u": {"$binary": {"base64": "AAAAAAAAAAAAAAAAAAAAAQ==", "subType": "04"}}}),
        ({"c": Code("f()", {"x": 1})}, {"c": {"$code": "f()", "$scope": {"x": 1}}}),
        ({"t": Timestamp(1, 2)}, {"t": {"$timestamp": {"t": 1, "i": 2}}}),
        ({"a": MinKey(), "z": MaxKey()}, {"a": {"$minKey": 1}, "z": {"$maxKey": 1}}),
        ({"yes": True, "no": False, "none": None}, {"yes": True, "no": False, "none": None}),
        ({"$date": "of the user"}, {"$date": "of the user"}),
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_a_payload_is_stored_without_loss(case: Case, payload: Any, stored: Any) -> None:
    assert case.row(reading(payload=payload))[PAYLOAD] == stored
    assert case.load(reading(payload=payload)).changed == 0


def test_a_missing_payload_is_null_and_a_null_payload_is_json_null(case: Case) -> None:
    case.load(without("payload", identifier="missing"), reading("null!", payload=None))
    found = case.connection.execute(
        "SELECT mongo_id, payload IS NULL, jsonb_typeof(payload), value FROM reading_analytics ORDER BY mongo_id"
    ).fetchall()
    assert found == [("missing", True, None, None), ("null!", False, "null", None)]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (3, 3.0), (2.5, 2.5), (Int64(2**60), float(2**60)), (Decimal128("1.5"), 1.5), (-0.0, -0.0),
        (float("nan"), None), (float("inf"), None), (Decimal128("NaN"), None), (Decimal128("1E+6000"), None),
        (True, None), ("3", None), ([3], None), ({"value": 3}, None), (None, None),
    ],
    ids=repr,
)  # fmt: skip
def test_only_a_finite_number_is_a_value(case: Case, value: Any, stored: float | None) -> None:
    assert case.row(reading(payload={"value": value}))[4] == stored


# ------------------------------------------------------------------- text that PostgreSQL cannot hold


SURROGATE = b"\xed\xa0\x80"


@pytest.mark.parametrize(
    ("raw", "reason", "day"),
    [
        (reading(payload={"x": "a\0b"}), "nul_character", DAY),
        (reading(meta={"x": ["\0"]}), "nul_character", DAY),
        (reading(source="ko\0bo"), "nul_character", DAY),
        (reading(event_type="pa\0ge"), "nul_character", DAY),
        (extended(reading(), element(2, b"note", text(SURROGATE))), "invalid_utf8", DAY),
        (extended(reading(), element(2, b"note", text(b"\xff\xfe"))), "invalid_utf8", DAY),
        (extended(reading(), element(2, b"\xff\xfe", text(b"key"))), "invalid_utf8", DAY),
        (extended(reading(), element(16, b"twice", bytes(4)), element(16, b"twice", bytes(4))), "repeated_key", DAY),
        (extended(reading(), element(5, b"uuid", b"\3\0\0\0\4abc")), "invalid_bson", None),
    ],
    ids=["nul", "nul in meta", "nul in source", "nul in event_type", "lone surrogate", "invalid UTF-8",
         "invalid UTF-8 in a key", "repeated key", "short UUID"],
)  # fmt: skip
def test_what_json_cannot_hold_is_a_dead_letter_with_its_raw_bson(
    case: Case, raw: bytes, reason: str, day: dt.date | None
) -> None:
    assert case.dead_letter(raw) == (str(ID), reason, day)


def test_a_document_that_is_no_bson_is_one_dead_letter_however_often_the_scan_returns_it(case: Case) -> None:
    raw = extended(reading(), element(0x42, b"what", b"????"))
    case.load(raw, scanned=3)  # the test server finds it by each of the three queries
    assert rejects(case.connection) == [(str(ID), "invalid_bson", None, raw)]


def test_one_bad_document_does_not_cost_its_batch(case: Case) -> None:
    good = [reading(identifier, payload={"value": 1, "note": "ä"}) for identifier in ("a", "b", ID, 7)]
    bad = [
        extended(reading("bad utf-8"), element(2, b"note", text(b"\xff"))),
        extended(reading("repeated"), element(16, b"n", bytes(4)), element(16, b"n", bytes(4))),
        reading("nul", payload="\0"),
        reading("future", time=DatetimeMS(2**62)),
    ]
    report = case.load(good[0], bad[0], good[1], bad[1], bad[2], good[2], bad[3], good[3])
    assert (report.loaded, report.rejected) == (4, 4)
    assert [row[0] for row in rows(case.connection)] == sorted([str(ID), "7", "a", "b"])
    assert {raw for *_, raw in rejects(case.connection)} == set(bad)


@pytest.mark.parametrize("depth", [100, 250, 480, 900])
def test_documents_nested_beyond_what_mongodb_allows_never_stop_a_load(case: Case, depth: int) -> None:
    value = document(element(10, b"end", b""))
    for _ in range(depth):
        value = document(element(3, b"a", value))
    deep = document(element(2, b"_id", text(b"deep")), TIME_FIELD, element(3, b"payload", value))
    report = case.load(deep, reading())
    assert report.loaded + report.rejected == 2
    assert str(ID) in [row[0] for row in rows(case.connection)]
    assert depth > 250 or report.loaded == 2


# ------------------------------------------------------------------- the other fields


def test_unknown_top_level_fields_are_kept_in_meta(case: Case) -> None:
    raw = reading(meta={"app": "x"}, status="new", device={"id": 7}, tags=["a"], **{"a.b": 1, "$weird": 2})
    assert case.row(raw)[META] == {
        "app": "x", "status": "new", "device": {"id": 7}, "tags": ["a"], "a.b": 1, "$weird": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "meta"),
    [
        ({}, None),
        ({"meta": None}, None),
        ({"meta": {}}, {}),
        ({"meta": "text"}, "text"),
        ({"meta": "text", "status": 1}, {"meta": "text", "status": 1}),
        ({"meta": None, "status": 1}, {"meta": None, "status": 1}),
        ({"meta": {"status": "inner"}, "status": "outer"}, {"status": "inner", "_status": "outer"}),
        ({"meta": {"status": 1, "_status": 2}, "status": 3}, {"status": 1, "_status": 2, "__status": 3}),
        ({"extracted_at": "2026-03-05T13:00:00Z"}, {"extracted_at": "2026-03-05T13:00:00Z"}),
    ],
    ids=str,
)  # fmt: skip
def test_meta_and_unknown_fields_never_overwrite_each_other(case: Case, fields: dict[str, Any], meta: Any) -> None:
    assert case.row(reading(**fields))[META] == meta


@pytest.mark.parametrize("field", ["source", "event_type"])
@pytest.mark.parametrize(
    ("value", "name", "kept"),
    [
        (None, "unknown", {"": None}),
        (5, "5", {"": 5}),
        (True, "true", {"": True}),
        (["a"], '["a"]', {"": ["a"]}),
        ({"a": 1}, '{"a":1}', {"": {"a": 1}}),
        (ID, f'{{"$oid":"{ID}"}}', {"": {"$oid": str(ID)}}),
        (Code("x"), '{"$code":"x"}', {"": {"$code": "x"}}),
        ("", "unknown", None),
        ("ä" * 201, "ä" * 200, {"": "ä" * 201}),
        ("ok", "ok", None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_source_or_event_type_that_is_no_text_is_named_and_kept(
    case: Case, field: str, value: Any, name: str, kept: dict[str, Any] | None
) -> None:
    row = case.row(reading(**{field: value}))
    assert row[{"source": 2, "event_type": 3}[field]] == name
    assert row[META] == (kept and {field: kept[""]})


@pytest.mark.parametrize("field", ["source", "event_type"])
def test_a_missing_source_or_event_type_is_unknown(case: Case, field: str) -> None:
    row = case.row(without(field))
    assert row[{"source": 2, "event_type": 3}[field]] == "unknown"
    assert row[META] is None


def test_the_fields_are_settings(case: Case) -> None:
    settings = case.settings.model_copy(
        update={"reading_time_field": ("when",), "reading_value_path": "data.pages.read"}
    )
    raw = encode({"_id": 1, "when": NOON, "data": {"pages": {"read": 12}}, "timestamp": "not looked at"})
    ((*_, value, payload, meta),) = [Case(settings, case.wire, case.connection).row(raw)]
    assert (value, payload) == (12.0, None)
    assert meta == {"data": {"pages": {"read": 12}}, "timestamp": "not looked at"}
