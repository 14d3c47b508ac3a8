"""Batches of raw BSON into COPY data: a fast path for usual documents, `convert` for all others.

The fast path gives byte for byte what `convert` and `rows.pack` give; a test holds them against each
other on generated documents. What it cannot be sure of, it hands over: a document, or the whole batch.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import math
import uuid
from binascii import hexlify
from typing import Any

import bson
import msgspec
from bson.binary import Binary
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from bson.objectid import ObjectId

from hub.readings import rows
from hub.readings.convert import MAX_NAME, OPTIONS, SAFE_INTEGER, Unusable, convert, event_time, number_at
from hub.readings.model import DAY_US, UNKNOWN, Mapping, Reject, Row

_UTC = dt.UTC
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MISSING = object()
_CACHED_NAMES = 10_000
_BATCH_OVERHEAD = 4 + 1 + 1 + 4 + 1 + 1  # {"": [ … ]} around the documents when they are encoded again


@dataclasses.dataclass(slots=True)
class Batch:
    """What became of one batch: COPY data of the window's rows, dead letters, counts.

    `days` counts the rows by UTC day (days since 1970). `elsewhere` counts documents of other days,
    which a scan for times that are not dates comes across.
    """

    documents: int
    data: bytes
    days: dict[int, int]
    rejects: list[Reject]
    elsewhere: int


class _Unusual(Exception):
    """Something that the fast path leaves to the careful one."""


class _Date(TypeDecoder):
    """Makes dates aware; three times as fast as bson's own `tz_aware`."""

    bson_type = dt.datetime

    def transform_bson(self, value: Any) -> Any:
        return value.replace(tzinfo=_UTC)


def _unusual(kind: type) -> TypeDecoder:
    """A decoder for a type that msgspec would turn into JSON in a way of its own, without a word."""

    class Refuse(TypeDecoder):
        bson_type = kind

        def transform_bson(self, value: Any) -> Any:
            raise _Unusual

    return Refuse()


_FAST: CodecOptions[dict[str, Any]] = OPTIONS.with_options(
    tz_aware=False,
    tzinfo=None,
    type_registry=TypeRegistry([_Date(), _unusual(bytes), _unusual(Binary), _unusual(uuid.UUID)]),
)


def _int64(value: Any) -> int:
    """What msgspec asks for a type that it does not know."""
    if type(value) is Int64 and -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return int(value)
    raise _Unusual


_encode_json = msgspec.json.Encoder(enc_hook=_int64).encode


def convert_batch(raw: bytes, mapping: Mapping, window: tuple[int, int], names: dict[str, bytes]) -> Batch:
    """Convert concatenated raw documents; keep the rows whose time is in the half-open `window` (µs since 1970).

    `names` caches the COPY form of sources and event types; pass the same dictionary for every batch.
    """
    try:
        documents = bson.decode_all(raw, _FAST)
        _refuse_repeated_keys(documents, len(raw))
    except (_Unusual, bson.errors.BSONError, ValueError, OverflowError, RecursionError):
        return _careful_batch(raw, mapping, window)
    out: list[bytes] = []
    days: dict[int, int] = collections.defaultdict(int)
    result = Batch(len(documents), b"", days, [], 0)
    start, end = window
    fields = mapping.time_fields
    first = fields[0]
    path = mapping.value_path
    offsets: list[int] = []
    for position, document in enumerate(documents):
        try:
            moment = document.get(first)
            if type(moment) is dt.datetime:
                name = first
                delta = moment - _EPOCH
                time = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
                if not mapping.first <= time < mapping.end:
                    raise _Unusual
            else:
                name, time = event_time(document, mapping)
            if not start <= time < end:
                result.elsewhere += 1
                continue
            packed = _pack(document, name, time, path, names)
        except (_Unusual, Unusable, TypeError, RecursionError):
            if not offsets:
                offsets = _offsets(raw)
            _careful(raw[offsets[position] : offsets[position + 1]], mapping, window, out, result)
            continue
        out.extend(packed)
        days[time // DAY_US] += 1
    result.data = b"".join(out)
    return result


def _pack(
    document: dict[str, Any], name: str, time: int, path: tuple[str, ...], names: dict[str, bytes]
) -> tuple[bytes, ...]:
    """The fields of one row. Takes the mapped fields out of `document`. Raises _Unusual or TypeError."""
    identifier = document.pop("_id", None)
    if type(identifier) is not ObjectId:
        raise _Unusual
    value: Any = document
    for step in path:
        value = value.get(step, _MISSING) if type(value) is dict else _MISSING
    if type(value) is float and math.isfinite(value):
        number = rows.double(8, value)
    elif type(value) is int:
        number = rows.double(8, float(value))
    else:
        found = number_at({"": None if value is _MISSING else value}, ("",))
        number = rows.NULL if found is None else rows.double(8, found)
    del document[name]
    source = document.pop("source", UNKNOWN)
    event_type = document.pop("event_type", UNKNOWN)
    payload = document.pop("payload", _MISSING)
    meta = document.pop("meta", _MISSING)
    if document:
        if type(meta) is dict:
            if not meta.keys().isdisjoint(document):
                raise _Unusual
            meta.update(document)
        elif meta is _MISSING:
            meta = document
        else:
            raise _Unusual
    return (
        rows.FIELD_COUNT + b"\0\0\0\x18" + hexlify(identifier.binary),
        rows.timestamp(8, time - rows.POSTGRES_EPOCH_US),
        names.get(source) or _name(source, names),
        names.get(event_type) or _name(event_type, names),
        number,
        rows.NULL if payload is _MISSING else _jsonb(payload),
        rows.NULL if meta is _MISSING else _jsonb(meta),
    )


def _name(value: Any, names: dict[str, bytes]) -> bytes:
    if type(value) is not str or not value or len(value) > MAX_NAME or "\0" in value:
        raise _Unusual
    packed = rows.text(value)
    if len(names) < _CACHED_NAMES:
        names[value] = packed
    return packed


def _jsonb(value: Any) -> bytes:
    data = _encode_json(value)
    # Traces of what msgspec writes without a word: NaN and the infinities (null), U+0000, -0.0.
    if (b"null" in data or b"\\u0000" in data or b"-0" in data) and not _is_plain(value):
        raise _Unusual
    return rows.jsonb_length(len(data) + 1, 1) + data


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return "\0" not in value
    if kind is float:
        return math.isfinite(value) and (value != 0 or math.copysign(1.0, value) > 0)
    if kind is dict:
        return all("\0" not in key and _is_plain(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_plain, value))
    return True


def _refuse_repeated_keys(documents: list[dict[str, Any]], size: int) -> None:
    """Raise _Unusual if decoding dropped a key: then the documents encode to fewer bytes than they were."""
    count = len(documents)
    index_bytes = sum(
        (min(count, 10**digits) - (10 ** (digits - 1) if digits > 1 else 0)) * (digits + 2)
        for digits in range(1, len(str(max(count - 1, 0))) + 1)
    )
    encoded = len(bson.encode({"": documents}, codec_options=OPTIONS))
    if encoded - index_bytes - _BATCH_OVERHEAD != size:
        raise _Unusual


def _offsets(raw: bytes) -> list[int]:
    """Start of each document, and the end of the last one."""
    offsets, position, size = [], 0, len(raw)
    while position < size:
        offsets.append(position)
        position += max(int.from_bytes(raw[position : position + 4], "little"), 5)
    return [*offsets, size]


def _careful_batch(raw: bytes, mapping: Mapping, window: tuple[int, int]) -> Batch:
    out: list[bytes] = []
    result = Batch(0, b"", collections.defaultdict(int), [], 0)
    offsets = _offsets(raw)
    for begin, finish in zip(offsets, offsets[1:], strict=False):
        result.documents += 1
        _careful(raw[begin:finish], mapping, window, out, result)
    result.data = b"".join(out)
    return result


def _careful(raw: bytes, mapping: Mapping, window: tuple[int, int], out: list[bytes], result: Batch) -> None:
    converted = convert(raw, mapping)
    if isinstance(converted, Reject):
        if _elsewhere(converted, window):
            result.elsewhere += 1
        else:
            result.rejects.append(converted)
    elif window[0] <= converted.time < window[1]:
        out.append(rows.pack(converted))
        result.days[converted.time // DAY_US] += 1
    else:
        result.elsewhere += 1


def _elsewhere(reject: Reject, window: tuple[int, int]) -> bool:
    """Documents of other days are theirs to reject. One whose time is the trouble belongs to no day."""
    if reject.day is None or reject.reason.startswith("time_"):
        return False
    return not window[0] <= (reject.day - _EPOCH.date()).days * DAY_US < window[1]


__all__ = ["Batch", "Row", "convert_batch"]
