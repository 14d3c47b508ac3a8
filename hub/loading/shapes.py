"""Find the fields of many raw BSON documents of one shape at once.

Documents of one collection mostly have the same fields in the same order. The names and types of the first
one's are its shape; numpy then walks all documents of a batch along it in step, some ten times as fast as a
loop. A document that differs from the shape in any way simply does not match.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DOUBLE, STRING, DOCUMENT, ARRAY, OBJECT_ID, DATE = 1, 2, 3, 4, 7, 9
# Bytes of a value by BSON type: fixed ones, and what comes on top of the length that others begin with.
_FIXED = {DOUBLE: 8, OBJECT_ID: 12, 8: 1, DATE: 8, 10: 0, 16: 4, 18: 8}
_PREFIXED = {STRING: 4, DOCUMENT: 0, ARRAY: 0}
_PADDING = 8
_length = struct.Struct("<i").unpack_from


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A top-level field: its name, its BSON type, and the bytes that stand before its value."""

    name: bytes
    kind: int
    head: bytes


Shape = tuple[Field, ...]


def shape_of(raw: bytes, start: int, end: int) -> Shape | None:
    """The shape of the document raw[start:end]. None if it is malformed, repeats a name or has a rarer type."""
    fields, position = [], start + 4
    try:
        while kind := raw[position]:
            value = raw.index(0, position + 1, end) + 1
            fields.append(Field(raw[position + 1 : value - 1], kind, raw[position:value]))
            if kind in _FIXED:
                position = value + _FIXED[kind]
            else:
                position = value + _length(raw, value)[0] + _PREFIXED[kind]
                if position <= value:
                    return None
    except (LookupError, ValueError, struct.error):
        return None
    names = {field.name for field in fields}
    return tuple(fields) if position == end - 1 and len(names) == len(fields) else None


class Raw:
    """Concatenated raw documents, readable at many positions at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        padded = data + bytes(_PADDING)
        size = len(data) + 1
        self._bytes = np.frombuffer(padded, np.uint8)
        self._words = np.ndarray(size, "<u8", padded, strides=(1,))
        self._int32 = np.ndarray(size, "<i4", padded, strides=(1,))
        self._int64 = np.ndarray(size, "<i8", padded, strides=(1,))

    def int64(self, positions: Positions, valid: Mask) -> npt.NDArray[np.int64]:
        """The numbers at the positions; nonsense where they are not valid."""
        return self._int64[np.where(valid, positions, 0)]

    def twelve_bytes(self, positions: Positions) -> bytes:
        """The twelve bytes at each position, concatenated."""
        return bytes(self._bytes[positions[:, None] + np.arange(12)])

    def locate(
        self, shape: Shape, starts: Positions, ends: Positions, *, whole: bool = True
    ) -> tuple[Mask, list[Positions]]:
        """Which of the documents [start, end) have this shape, and where in them each field and the end begins.

        Not the `whole`, but only these fields as their first ones: then others may follow.

        Positions in documents that do not match mean nothing. Values are not looked into.
        """
        last = ends - 1
        matches = (self._int32[starts] == last - starts + 1) & (self._bytes[last] == 0)
        fields: list[Positions] = []
        position = starts + 4
        for field in shape:
            fields.append(position)
            for begin in range(0, len(field.head), 8):
                part = field.head[begin : begin + 8]
                words = self._words[np.minimum(position + begin, last)]
                if len(part) < 8:
                    words = words & np.uint64((1 << 8 * len(part)) - 1)
                matches &= words == np.uint64(int.from_bytes(part, "little"))
            value = position + len(field.head)
            if field.kind in _FIXED:
                position = value + _FIXED[field.kind]
            else:
                length = self._int32[np.minimum(value, last)].astype(np.int64)
                position = value + length + _PREFIXED[field.kind]
                matches &= (length > 0) & (position <= last)
                position = np.clip(position, value, last)
        if whole:
            matches &= position == last
        return matches, [*fields, position]

    def uniform(self, starts: Positions, ends: Positions) -> bool:
        """Whether all of these documents are like the first one at every level, with no name twice in any."""
        shape = shape_of(self.data, int(starts[0]), int(ends[0]))
        if shape is None:
            return False
        matches, fields = self.locate(shape, starts, ends)
        return bool(matches.all()) and all(
            self.uniform(begin + len(field.head), end)
            for field, (begin, end) in zip(shape, itertools.pairwise(fields), strict=True)
            if field.kind in (DOCUMENT, ARRAY)
        )
