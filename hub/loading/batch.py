"""Batches of raw BSON into COPY data, in three ways: by columns, by rows, and by `convert`, the careful one.

Each gives byte for byte what `convert` and `rows.pack` give; a test holds them against each other on
generated documents. What one cannot be sure of it hands to the next: a document, or the whole batch.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import itertools
import re
import struct
from binascii import hexlify
from typing import Any

import bson
from bson.objectid import ObjectId

from hub.loading import rows
from hub.loading.columns import FAILURES, ColumnConverter
from hub.loading.convert import convert, event_time
from hub.loading.model import DAY_US, EPOCH, Mapping, Reject
from hub.loading.usual import DECODE, Names, Unusual, json_of, names_and_meta, number, refuse_repeated_keys

_MISSING = object()
_OBJECT_ID = re.compile("[0-9a-f]{24}").fullmatch
_length = struct.Struct("<I").unpack_from
# Fewer documents than this take longer by columns than by rows.
_MANY = 50


@dataclasses.dataclass(slots=True)
class Batch:
    """What became of one batch: COPY data of the window's rows, dead letters, counts.

    `days` counts the rows by UTC day (days since 1970). `elsewhere` counts documents of other days,
    which a scan for times that are not dates comes across. The rows' ids are `object_ids`, in pieces of
    twelve bytes each, and the texts `other_ids`.
    """

    documents: int
    data: bytes
    days: dict[int, int]
    rejects: list[Reject]
    elsewhere: int
    object_ids: list[bytes] = dataclasses.field(default_factory=list)
    other_ids: list[str] = dataclasses.field(default_factory=list)
    unusable: int = 0
    """Rows whose document has a number that no sum can hold."""


class Converter:
    """Converts one batch after the other; keeps the rows whose time is in the half-open `window`.

    The window's bounds are microseconds since 1970. Batches of `many` documents or more go by columns first.
    """

    def __init__(self, mapping: Mapping, window: tuple[int, int], *, many: int = _MANY) -> None:
        self._mapping = mapping
        self._window = window
        self._many = many
        self._names: Names = {}
        self._columns = ColumnConverter(mapping, window, self._names)

    def convert(self, raw: bytes) -> Batch:
        """Convert concatenated raw documents. Never raises for bad data."""
        offsets = offsets_of(raw)
        try:
            return self._fast(raw, offsets)
        except FAILURES:
            return self._careful(raw, offsets)

    def _fast(self, raw: bytes, offsets: list[int]) -> Batch:
        count = len(offsets) - 1
        result = Batch(count, b"", collections.defaultdict(int), [], 0)
        left: list[int] = list(range(count))
        out: list[bytes] = [b""] * count
        if count >= self._many:
            made, others = self._columns.convert(raw, offsets)
            left = others.tolist()
            for columns in made:
                result.object_ids.append(columns.object_ids)
                for day, number_of_rows in columns.days.items():
                    result.days[day] += number_of_rows
                if len(columns.positions) == count:
                    result.data = b"".join(itertools.chain.from_iterable(columns.pieces))
                    return result
                for position, pieces in zip(columns.positions.tolist(), columns.pieces, strict=True):
                    out[position] = b"".join(pieces)
        if left:
            documents = [raw[offsets[position] : offsets[position + 1]] for position in left]
            self._rows(documents, left, out, result)
        result.data = b"".join(out)
        return result

    def _rows(self, raws: list[bytes], positions: list[int], out: list[bytes], result: Batch) -> None:
        """Convert the documents, put each row in its position of `out`, and count."""
        joined = b"".join(raws)
        documents = bson.decode_all(joined, DECODE)
        refuse_repeated_keys(documents, len(joined))
        start, end = self._window
        mapping = self._mapping
        first = mapping.time_fields[0]
        for document, raw, position in zip(documents, raws, positions, strict=True):
            try:
                moment = document.get(first)
                if type(moment) is dt.datetime:
                    name = first
                    delta = moment - EPOCH
                    time = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
                    if not mapping.first <= time < mapping.end:
                        raise Unusual
                else:
                    name, time = event_time(document, mapping)
                if not start <= time < end:
                    result.elsewhere += 1
                    continue
                identifier: Any = document.get("_id")
                out[position] = _pack(document, name, time, mapping.value_path, self._names)
            except FAILURES:
                out[position] = self._one(raw, result)
            else:
                result.days[time // DAY_US] += 1
                result.object_ids.append(identifier.binary)

    def _careful(self, raw: bytes, offsets: list[int]) -> Batch:
        """The whole batch document by document."""
        result = Batch(len(offsets) - 1, b"", collections.defaultdict(int), [], 0)
        result.data = b"".join([self._one(raw[begin:end], result) for begin, end in itertools.pairwise(offsets)])
        return result

    def _one(self, raw: bytes, result: Batch) -> bytes:
        """One document by the careful way: its row, empty if it is none of the window's."""
        converted = convert(raw, self._mapping)
        if isinstance(converted, Reject):
            if _elsewhere(converted, self._window):
                result.elsewhere += 1
            else:
                result.rejects.append(converted)
        elif self._window[0] <= converted.time < self._window[1]:
            result.days[converted.time // DAY_US] += 1
            result.unusable += converted.unusable
            if _OBJECT_ID(converted.mongo_id):  # the text of no other type looks like one
                result.object_ids.append(bytes.fromhex(converted.mongo_id))
            else:
                result.other_ids.append(converted.mongo_id)
            return rows.pack(converted)
        else:
            result.elsewhere += 1
        return b""


def _pack(document: dict[str, Any], name: str, time: int, path: tuple[str, ...], names: Names) -> bytes:
    """One row. Takes the mapped fields out of `document`. Raises Unusual or TypeError."""
    identifier = document.pop("_id", None)
    if type(identifier) is not ObjectId:
        raise Unusual
    value = number(document, path)
    del document[name]
    payload = document.pop("payload", _MISSING)
    middle, end = names_and_meta(document, names)
    start = rows.row_start(len(rows.COLUMNS), 24, hexlify(identifier.binary), 8, time - rows.POSTGRES_EPOCH_US)
    double = rows.NULL if value is None else rows.double(8, value)
    return b"".join((start, middle, double, rows.NULL if payload is _MISSING else rows.jsonb(json_of(payload)), end))


def offsets_of(raw: bytes) -> list[int]:
    """Start of each document, and the end of the last one."""
    offsets, position, size = [], 0, len(raw)
    last = size - 4
    while position <= last:
        offsets.append(position)
        (length,) = _length(raw, position)
        position += length if length > 5 else 5
    if position < size:
        offsets.append(position)
    return [*offsets, size]


def _elsewhere(reject: Reject, window: tuple[int, int]) -> bool:
    """Documents of other days are theirs to reject. One whose time is the trouble belongs to no day."""
    if reject.day is None or reject.reason.startswith("time_"):
        return False
    return not window[0] <= (reject.day - EPOCH.date()).days * DAY_US < window[1]
