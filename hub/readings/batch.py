"""Batches of raw BSON into COPY data: a fast path for usual documents, `convert` for all others.

The fast path gives byte for byte what `convert` and `rows.pack` give; a test holds them against each
other on generated documents. What it cannot be sure of, it hands over: a document, or the whole batch.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import itertools
import math
import re
import uuid
from binascii import hexlify
from collections.abc import Callable
from math import isfinite
from typing import Any

import bson
import msgspec
from bson.binary import Binary
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from bson.objectid import ObjectId

from hub.readings import rows
from hub.readings.convert import MAX_NAME, OPTIONS, SAFE_INTEGER, Unusable, convert, event_time, number_at
from hub.readings.model import DAY_US, EPOCH, UNKNOWN, Mapping, Reject

_UTC = dt.UTC
_NAIVE_EPOCH = dt.datetime(1970, 1, 1)
_MISSING = object()
_CACHED_NAMES = 10_000
Names = tuple[Any, Any]
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


_REFUSED = [_unusual(bytes), _unusual(Binary), _unusual(uuid.UUID)]
_NAIVE: CodecOptions[dict[str, Any]] = OPTIONS.with_options(
    tz_aware=False, tzinfo=None, type_registry=TypeRegistry(_REFUSED)
)
_AWARE: CodecOptions[dict[str, Any]] = _NAIVE.with_options(type_registry=TypeRegistry([_Date(), *_REFUSED]))

# In the trusting mode dates are naive, and msgspec would write those of a payload without their Z.
_DATE_TRACE = re.compile(rb"T\d\d:\d\d:\d\d").search


def _int64(value: Any) -> int:
    """What msgspec asks for a type that it does not know."""
    if type(value) is Int64 and -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return int(value)
    raise _Unusual


_encode_json = msgspec.json.Encoder(enc_hook=_int64).encode


class Converter:
    """Converts one batch after the other; keeps the rows whose time is in the half-open `window`.

    The window's bounds are microseconds since 1970. It begins in a trusting mode, which looks for traces
    of unusual values once in a whole batch; where there are some, as with payloads that hold nulls or
    dates, it goes on document by document.
    """

    def __init__(self, mapping: Mapping, window: tuple[int, int]) -> None:
        self._mapping = mapping
        self._window = window
        self._names: dict[Names, bytes] = {}
        self._trusting = True

    def convert(self, raw: bytes) -> Batch:
        """Convert concatenated raw documents. Never raises for bad data."""
        try:
            if self._trusting:
                batch = self._fast(raw, _NAIVE, _NAIVE_EPOCH, _encode_json)
                if not _has_traces(batch.data) and not _DATE_TRACE(batch.data):
                    return batch
                self._trusting = False
            return self._fast(raw, _AWARE, EPOCH, _checked_json)
        except (_Unusual, bson.errors.BSONError, ValueError, OverflowError, RecursionError):
            return self._careful(raw)

    def _fast(
        self, raw: bytes, options: CodecOptions[dict[str, Any]], epoch: dt.datetime, json: Callable[[Any], bytes]
    ) -> Batch:
        documents = bson.decode_all(raw, options)
        _refuse_repeated_keys(documents, len(raw))
        out: list[bytes] = []
        days: dict[int, int] = collections.defaultdict(int)
        result = Batch(len(documents), b"", days, [], 0)
        start, end = self._window
        mapping = self._mapping
        first = mapping.time_fields[0]
        path = mapping.value_path
        names = self._names
        offsets: list[int] = []
        for position, document in enumerate(documents):
            try:
                moment = document.get(first)
                if type(moment) is dt.datetime:
                    name = first
                    delta = moment - epoch
                    time = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
                    if not mapping.first <= time < mapping.end:
                        raise _Unusual
                elif options is _NAIVE and any(
                    type(document.get(field)) is dt.datetime for field in mapping.time_fields
                ):
                    raise _Unusual
                else:
                    name, time = event_time(document, mapping)
                if not start <= time < end:
                    result.elsewhere += 1
                    continue
                packed = _pack(document, name, time, path, names, json)
            except (_Unusual, Unusable, TypeError, RecursionError):
                if not offsets:
                    offsets = _offsets(raw)
                self._one(raw[offsets[position] : offsets[position + 1]], out, result)
                continue
            out.extend(packed)
            days[time // DAY_US] += 1
        result.data = b"".join(out)
        return result

    def _careful(self, raw: bytes) -> Batch:
        """The whole batch document by document."""
        out: list[bytes] = []
        result = Batch(0, b"", collections.defaultdict(int), [], 0)
        for begin, finish in itertools.pairwise(_offsets(raw)):
            result.documents += 1
            self._one(raw[begin:finish], out, result)
        result.data = b"".join(out)
        return result

    def _one(self, raw: bytes, out: list[bytes], result: Batch) -> None:
        """One document by the careful path."""
        converted = convert(raw, self._mapping)
        if isinstance(converted, Reject):
            if _elsewhere(converted, self._window):
                result.elsewhere += 1
            else:
                result.rejects.append(converted)
        elif self._window[0] <= converted.time < self._window[1]:
            out.append(rows.pack(converted))
            result.days[converted.time // DAY_US] += 1
        else:
            result.elsewhere += 1


def _pack(
    document: dict[str, Any],
    name: str,
    time: int,
    path: tuple[str, ...],
    names: dict[Names, bytes],
    json: Callable[[Any], bytes],
) -> tuple[bytes, ...]:
    """The fields of one row. Takes the mapped fields out of `document`. Raises _Unusual or TypeError."""
    identifier = document.pop("_id", None)
    if type(identifier) is not ObjectId:
        raise _Unusual
    value: Any = document
    for step in path:
        value = value.get(step) if type(value) is dict else None
    if type(value) is not float or not isfinite(value):
        value = None if value is None else number_at({"": value}, ("",))
    del document[name]
    pop = document.pop
    named = (pop("source", UNKNOWN), pop("event_type", UNKNOWN))
    payload = pop("payload", _MISSING)
    meta = pop("meta", _MISSING)
    if document:
        if type(meta) is dict:
            if not meta.keys().isdisjoint(document):
                raise _Unusual
            meta.update(document)
        elif meta is _MISSING:
            meta = document
        else:
            raise _Unusual
    start = rows.row_start(len(rows.COLUMNS), 24, hexlify(identifier.binary), 8, time - rows.POSTGRES_EPOCH_US)
    middle = names.get(named) or _names(named, names)
    if meta is _MISSING:
        end: tuple[bytes, ...] = (rows.NULL,)
    else:
        data = json(meta)
        end = (rows.jsonb_length(len(data) + 1, 1), data)
    if payload is _MISSING:
        return (start, middle, rows.NULL if value is None else rows.double(8, value), rows.NULL, *end)
    data = json(payload)
    if value is None:
        return (start, middle, rows.NULL, rows.jsonb_length(len(data) + 1, 1), data, *end)
    return (start, middle, rows.number_and_jsonb_length(8, value, len(data) + 1, 1), data, *end)


def _names(named: Names, names: dict[Names, bytes]) -> bytes:
    """The fields source and event type. Only two usual strings get this far more than once."""
    for value in named:
        if type(value) is not str or not value or len(value) > MAX_NAME or "\0" in value:
            raise _Unusual
    packed = rows.text(named[0]) + rows.text(named[1])
    if len(names) < _CACHED_NAMES:
        names[named] = packed
    return packed


def _checked_json(value: Any) -> bytes:
    data = _encode_json(value)
    if _has_traces(data) and not _is_plain(value):
        raise _Unusual
    return data


def _has_traces(data: bytes) -> bool:
    """Whether there are traces of what msgspec writes without a word: NaN and the infinities (null), U+0000, -0.0."""
    return b"null" in data or b"\\u0000" in data or b"-0.0" in data


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return "\0" not in value
    if kind is float:
        return isfinite(value) and (value != 0 or math.copysign(1.0, value) > 0)
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


def _elsewhere(reject: Reject, window: tuple[int, int]) -> bool:
    """Documents of other days are theirs to reject. One whose time is the trouble belongs to no day."""
    if reject.day is None or reject.reason.startswith("time_"):
        return False
    return not window[0] <= (reject.day - EPOCH.date()).days * DAY_US < window[1]
