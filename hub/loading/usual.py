"""Usual documents: what the two fast ways of the converter have in common."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from math import isfinite
from typing import Any

import bson
import msgspec
from bson.binary import Binary
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64

from hub.loading import rows
from hub.loading.convert import MAX_NAME, MOST, OPTIONS, SAFE_INTEGER, number_at
from hub.loading.model import UNKNOWN

_UTC = dt.UTC
_CACHED_NAMES = 10_000
_MISSING = object()
_BATCH_OVERHEAD = 4 + 1 + 1 + 4 + 1 + 1  # {"": [ … ]} around the documents when they are encoded again

Names = dict[tuple[Any, Any], bytes]


class Unusual(Exception):
    """Something that a fast way leaves to the careful one."""


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
            raise Unusual

    return Refuse()


DECODE: CodecOptions[dict[str, Any]] = OPTIONS.with_options(
    tz_aware=False,
    tzinfo=None,
    type_registry=TypeRegistry([_Date(), _unusual(bytes), _unusual(Binary), _unusual(uuid.UUID)]),
)


def _int64(value: Any) -> int:
    """What msgspec asks for a type that it does not know."""
    if type(value) is Int64 and -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return int(value)
    raise Unusual


_encoder = msgspec.json.Encoder(enc_hook=_int64)


def json_of(value: Any) -> bytes:
    """JSON text. Raises Unusual where msgspec's would not be `convert`'s."""
    data = _encoder.encode(value)
    if _has_traces(data) and not _is_plain(value):
        raise Unusual
    return data


def json_of_each(values: list[Any]) -> list[bytes]:
    """JSON text of each value; raises as `json_of` does."""
    data = _encoder.encode_lines(values)
    lines = data.split(b"\n")  # in a string it is written \n
    lines.pop()
    if _has_traces(data):
        for value, line in zip(values, lines, strict=True):
            if _has_traces(line) and not _is_plain(value):
                raise Unusual
    return lines


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


def number(document: Any, path: tuple[str, ...]) -> float | None:
    """The measure in decoded values; quick for floats. Raises Unusual for a number that is none a sum can hold."""
    value = document
    for step in path:
        value = value.get(step) if type(value) is dict else None
    if value is None or (type(value) is float and -MOST <= value <= MOST):
        return value
    found = number_at({"": value}, ("",))
    if found is not None and abs(found) > MOST:
        raise Unusual
    return found


def names_and_meta(document: dict[str, Any], names: Names) -> tuple[bytes, bytes]:
    """The row's fields source and event type, and its last one, of the fields but `_id`, time and payload.

    `names` keeps the former. Takes the mapped fields out of `document`. Raises Unusual or TypeError.
    """
    named = (document.pop("source", UNKNOWN), document.pop("event_type", UNKNOWN))
    meta = document.pop("meta", _MISSING)
    if document:
        if type(meta) is dict:
            if not meta.keys().isdisjoint(document):
                raise Unusual
            meta.update(document)
        elif meta is _MISSING:
            meta = document
        else:
            raise Unusual
    packed = names.get(named) or _pack_names(named, names)
    return packed, rows.NULL if meta is _MISSING else rows.jsonb(json_of(meta))


def _pack_names(named: tuple[Any, Any], names: Names) -> bytes:
    """Only two usual strings get this far more than once."""
    for value in named:
        if type(value) is not str or not value or len(value) > MAX_NAME or "\0" in value:
            raise Unusual
    packed = rows.text(named[0]) + rows.text(named[1])
    if len(names) < _CACHED_NAMES:
        names[named] = packed
    return packed


def refuse_repeated_keys(documents: list[Any], size: int) -> None:
    """Raise Unusual if decoding dropped a key: then the documents encode to fewer bytes than their `size`."""
    count = len(documents)
    index_bytes = sum(
        (min(count, 10**digits) - (10 ** (digits - 1) if digits > 1 else 0)) * (digits + 2)
        for digits in range(1, len(str(max(count - 1, 0))) + 1)
    )
    encoded = len(bson.encode({"": documents}, codec_options=OPTIONS))
    if encoded - index_bytes - _BATCH_OVERHEAD != size:
        raise Unusual
