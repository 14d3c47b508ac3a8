"""One raw BSON document into one row or one dead letter: the careful path, exact for every type."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
import uuid
from decimal import Decimal
from typing import Any

import bson
import msgspec
from bson import json_util
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.son import SON

from hub.loading.model import DAY_US, EPOCH, UNKNOWN, Mapping, Reject, Row, microseconds

# Out-of-range dates stay DatetimeMS; all others are aware datetimes, which JSON shows with their `Z`.
OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    tzinfo=dt.UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=bson.codec_options.DatetimeConversion.DATETIME_AUTO,
)
# The extended JSON of a duplicate-preserving decode; only used to look for repeated keys.
_RELAXED = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED, uuid_representation=UuidRepresentation.STANDARD, tz_aware=True, tzinfo=dt.UTC
)
_CANONICAL = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    uuid_representation=UuidRepresentation.STANDARD,
    tz_aware=True,
    tzinfo=dt.UTC,
)

# Reasons of dead letters of which decoding would lose something.
LOST = {
    "repeated_key": "a key stands twice in one document: JSON cannot hold it",
    "reference": "a DBPointer, or a DBRef whose $db is null: it would become an ordinary DBRef",
}

encode_json = msgspec.json.Encoder(order=None).encode

SAFE_INTEGER = 2**53
# Beyond it, a sum may overflow, which fails the refresh of a whole rollup. Such a number stays in the document.
MOST = 1e300
MAX_ID_BYTES = 1024  # a B-tree entry holds 2,704 bytes
MAX_NAME = 200  # source and event_type are keys of the rollups
# An `_id` that is a string stands as it is, unless it could be taken for another type's text.
_AMBIGUOUS_ID = re.compile(r'[0-9a-f]{24}|-?\d+|true|false|null|sha256:.*|["{\[].*|', re.DOTALL)
# Bytes of an `_id` by BSON type: fixed ones, and what comes on top of the length that others begin with.
_ID_SIZES = {1: 8, 7: 12, 8: 1, 9: 8, 16: 4, 17: 8, 18: 8, 19: 16}
_ID_PREFIXES = {2: 4, 5: 5}
MAPPED = frozenset(("_id", "source", "event_type", "payload", "meta"))


class Unusable(Exception):
    """The document cannot become a row: (reason, detail)."""

    def __init__(self, reason: str, detail: str, day: dt.date | None = None) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail, self.day = reason, detail, day


def convert(raw: bytes, mapping: Mapping) -> Row | Reject:
    """Turn one raw document into a row, or into a dead letter that says why not. Never raises for bad data."""
    document: dict[str, Any] | None = None
    try:
        document = decode(raw)
        return _row(document, mapping)
    except Unusable as why:
        if document is None:  # it could not be decoded, but its time may tell the day that it belongs to
            why = Unusable(why.reason, why.detail, _day_of(lenient(raw), mapping))
        return _reject(raw, document, why)
    except RecursionError:  # MongoDB itself stops at 100 levels
        return _reject(raw, document, Unusable("too_deep", "documents are nested too deeply in each other"))


def _reject(raw: bytes, document: dict[str, Any] | None, why: Unusable) -> Reject:
    return Reject(reject_id(raw, document), why.reason, why.detail[:500].replace("\0", "\\0"), why.day, raw)


def decode(raw: bytes) -> dict[str, Any]:
    """Decode a document. Raises Unusable where that is impossible or would lose something."""
    try:
        document = bson.decode(raw, OPTIONS)
    except UnicodeDecodeError as error:
        raise Unusable("invalid_utf8", f"not UTF-8: {error.reason} at byte {error.start}") from None
    except (bson.errors.BSONError, ValueError, OverflowError, RecursionError) as error:
        reason = "invalid_utf8" if "utf" in str(error).lower() else "invalid_bson"
        raise Unusable(reason, str(error)) from None
    if lost := lost_in_decoding(raw, document):
        raise Unusable(lost, LOST[lost])
    return document


def lenient(raw: bytes) -> dict[str, Any]:
    """What can be decoded of a document that `decode` refuses; nothing where that is nothing."""
    try:
        return bson.decode(raw, OPTIONS.with_options(unicode_decode_error_handler="replace"))
    except (bson.errors.BSONError, ValueError, OverflowError, RecursionError):
        return {}


def _day_of(document: dict[str, Any], mapping: Mapping) -> dt.date | None:
    try:
        return (EPOCH + dt.timedelta(days=event_time(document, mapping)[1] // DAY_US)).date()
    except Unusable:
        return None


def lost_in_decoding(raw: bytes, document: dict[str, Any]) -> str | None:
    """What decoding dropped, a name in LOST. `document` is what `raw` decoded to: a dict holds each key once."""
    if len(bson.encode(document, codec_options=OPTIONS)) == len(raw):
        return None  # the cheap test, true for nearly all
    assigned = 0

    class Counting(SON):  # type: ignore[type-arg]
        """A document that counts how often a key is assigned while it is decoded."""

        def __setitem__(self, key: Any, value: Any) -> None:
            nonlocal assigned
            assigned += 1
            super().__setitem__(key, value)

    plain: CodecOptions[Any] = CodecOptions(document_class=Counting, datetime_conversion=3)
    counted = bson.decode(raw, plain)
    kept = _count_keys(counted)
    if assigned == kept:
        return None
    # A DBPointer comes out as a DBRef, whose keys were never assigned; a DBRef forgets a `$db` that is null.
    return "reference" if assigned < kept or b"\n$db\0" in raw else "repeated_key"


def _count_keys(value: Any) -> int:
    if isinstance(value, DBRef):
        value = value.as_doc()
    elif isinstance(value, Code):
        value = value.scope
    if isinstance(value, dict):
        return len(value) + sum(_count_keys(item) for item in value.values())
    if isinstance(value, list):
        return sum(_count_keys(item) for item in value)
    return 0


def _row(document: dict[str, Any], mapping: Mapping) -> Row:
    name, time = event_time(document, mapping)
    fields: dict[str, Any] = {key: value for key, value in document.items() if key not in MAPPED and key != name}
    day = (EPOCH + dt.timedelta(days=time // DAY_US)).date()
    try:
        if "_id" not in document:  # a view can leave it out; without one, documents cannot be told apart
            raise Unusable("id_missing", "the document has no _id")
        identifier = id_text(document["_id"])
        source = _name(document, "source", fields)
        event_type = _name(document, "event_type", fields)
        payload = json_bytes(document["payload"]) if "payload" in document else None
        meta = _meta(document, fields)
    except Unusable as why:
        raise Unusable(why.reason, why.detail, day) from None
    value = number_at(document, mapping.value_path)
    usable = value is None or abs(value) <= MOST
    return Row(identifier, time, source, event_type, value if usable else None, payload, meta, not usable)


def event_time(document: dict[str, Any], mapping: Mapping) -> tuple[str, int]:
    """Name of the field that holds the time, and the time in microseconds since 1970.

    The first field that is present and not null counts. Raises Unusable.
    """
    for name in mapping.time_fields:
        value = document.get(name)
        if value is not None:
            return name, _bounded(name, _instant(name, value), mapping)
    present = [name for name in mapping.time_fields if name in document]
    if present:
        raise Unusable("time_null", f"{' and '.join(present)}: null")
    raise Unusable("time_missing", f"none of the fields {', '.join(mapping.time_fields)} is present")


def _instant(name: str, value: Any) -> int:
    if isinstance(value, dt.datetime):
        return microseconds(value)
    if isinstance(value, DatetimeMS):
        return int(value) * 1000
    if type(value) is str:  # JavaScript code is a subclass of str
        try:
            text = value.strip()
            # RFC 3339 allows a small z, of which Python knows nothing.
            parsed = dt.datetime.fromisoformat(text[:-1] + "Z" if text.endswith("z") else text)
            aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)
            return microseconds(aware)
        except (ValueError, OverflowError):
            raise Unusable("time_unparseable", f"{name} is not an ISO 8601 time: {value[:100]!r}") from None
    raise Unusable("time_not_a_date", f"{name} is of type {type(value).__name__}, not a date or an ISO 8601 string")


def _bounded(name: str, time: int, mapping: Mapping) -> int:
    if mapping.first <= time < mapping.end:
        return time
    try:
        shown = (EPOCH + dt.timedelta(microseconds=time)).isoformat()
        day: dt.date | None = (EPOCH + dt.timedelta(microseconds=time)).date()
    except OverflowError:
        shown, day = f"{time // 1000} ms since 1970", None
    if time < mapping.first:
        raise Unusable("time_before_start", f"{name} is {shown}, before READING_START_DATE", day)
    raise Unusable("time_in_future", f"{name} is {shown}, later than the day of this load", day)


def id_text(value: Any) -> str:
    """Text of an `_id`, different for every two different ids. Raises Unusable when too long for an index."""
    if isinstance(value, ObjectId):
        return str(value)
    if type(value) in (int, Int64):
        return str(int(value))
    if type(value) is str and not _AMBIGUOUS_ID.fullmatch(value) and "\0" not in value:
        text = value
    elif type(value) is str:
        text = encode_json(value).decode()
    elif _imitates_extended_json(value):
        text = f'{{"$bson": "{bson.encode({"_id": value}, codec_options=OPTIONS).hex()}"}}'
    else:
        text = json_util.dumps({"_id": value}, json_options=_CANONICAL)[len('{"_id": ') : -1]
    if len(text.encode()) > MAX_ID_BYTES:
        raise Unusable("id_too_long", f"_id takes {len(text.encode())} bytes as text, more than {MAX_ID_BYTES}")
    return text


def _imitates_extended_json(value: Any) -> bool:
    """Whether a key in it begins with `$`, as those do that extended JSON writes for types."""
    if isinstance(value, dict):
        return any(key.startswith("$") or _imitates_extended_json(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_imitates_extended_json, value))


def reject_id(raw: bytes, document: dict[str, Any] | None) -> str:
    """The dead letter's key: the id's text where there is one, a digest of the document otherwise."""
    if document is None:
        document = decode_id(raw)
    if document is not None and "_id" in document:
        try:
            return id_text(document["_id"])
        except (Unusable, RecursionError):
            pass
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def decode_id(raw: bytes) -> dict[str, Any] | None:
    """The `_id` of a document whose other fields cannot be decoded; MongoDB stores it first."""
    try:
        if raw[5:9] == b"_id\0":
            length = _ID_SIZES.get(raw[4]) or int.from_bytes(raw[9:13], "little") + _ID_PREFIXES[raw[4]]
            body = raw[4 : 9 + length] + b"\0"
            return bson.decode((len(body) + 4).to_bytes(4, "little") + body, OPTIONS)
    except (bson.errors.BSONError, ValueError, LookupError):
        pass
    return None


def _name(document: dict[str, Any], field: str, unmapped: dict[str, Any]) -> str:
    """A source or event type as text; what it cannot say exactly stays in `unmapped`, under its own name."""
    value = document.get(field)
    if value is None:
        if field in document:
            unmapped[field] = None
        return UNKNOWN
    if type(value) is str:
        text = value
    else:
        unmapped[field] = value
        text = encode_json(plain(value)).decode()
    if "\0" in text:
        raise Unusable("nul_character", f"{field} contains U+0000, which PostgreSQL cannot store")
    if len(text) > MAX_NAME:
        unmapped[field] = value
        text = text[:MAX_NAME]
    return text or UNKNOWN


def _meta(document: dict[str, Any], fields: dict[str, Any]) -> bytes | None:
    """`meta` with the unmapped top-level fields in it; a name that meta has already gets a leading `_`."""
    if not fields:
        return json_bytes(document["meta"]) if "meta" in document else None
    meta = document.get("meta")
    kept = {"meta": meta} if "meta" in document else {}
    merged = dict(meta) if isinstance(meta, dict) else kept
    for name, value in fields.items():
        while name in merged:
            name = f"_{name}"
        merged[name] = value
    return json_bytes(merged)


def number_at(document: Any, path: tuple[str, ...]) -> float | None:
    """The number at a dotted path, None where there is none. A measure is one of at most MOST."""
    value = document
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    if isinstance(value, Decimal128):
        decimal: Decimal = value.to_decimal()
        value = float(decimal) if not decimal.is_snan() else math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return math.inf if math.isnan(number) else number


def json_bytes(value: Any) -> bytes:
    """JSON text of a BSON value for jsonb. Raises Unusable for U+0000, which jsonb cannot hold."""
    return encode_json(plain(value))


def plain(value: Any) -> Any:
    """A BSON value as JSON types: relaxed extended JSON only where a type has no plain form.

    Dates are ISO 8601 strings; integers beyond 2^53, Decimal128, binary data, NaN, the infinities and
    -0.0 (jsonb would forget its sign) are extended JSON.
    """
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise Unusable("nul_character", "a string contains U+0000, which jsonb cannot store")
        return value
    if value is None or kind is bool or kind is dt.datetime:
        return value
    if kind is int or kind is Int64:
        return int(value) if -SAFE_INTEGER <= value <= SAFE_INTEGER else {"$numberLong": str(int(value))}
    if kind is float:
        if math.isfinite(value) and (value or math.copysign(1.0, value) > 0):
            return value
        return {"$numberDouble": "-0.0" if value == 0 else json_util.default(value, _CANONICAL)["$numberDouble"]}
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return _extended(value)


def _extended(value: Any) -> Any:
    if isinstance(value, DBRef):
        return plain(value.as_doc())
    if isinstance(value, DatetimeMS):
        return {"$date": {"$numberLong": str(int(value))}}
    if isinstance(value, bytes) and not isinstance(value, Binary):
        value = Binary(value)
    if isinstance(value, uuid.UUID):
        value = Binary.from_uuid(value)
    return plain(json_util.default(value, _RELAXED))
