"""Digests of raw documents by the UTC day of their time; they do not depend on the order of a scan."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import itertools
from collections.abc import Generator, Iterable

import bson
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

from hub.loading.batch import offsets_of
from hub.loading.convert import OPTIONS, Unusable, event_time, lenient
from hub.loading.model import DAY_US, EPOCH, Mapping
from hub.loading.shapes import DATE, Positions, Raw, Shape, shape_of

# The day of documents that have none, or one that is no partition.
UNDATED = -(2**62)
_SHAPES = 6
_DAY_MS = DAY_US // 1000
_LANE = 2**64 - 1


@dataclasses.dataclass
class Sum:
    """Documents of one day: how many, and the sum of their digests in two lanes modulo 2^64.

    Sums do not depend on the order. Two sets of documents with the same sum by accident are one in 2^128.
    """

    documents: int = 0
    first: int = 0
    second: int = 0

    def digest(self, signature: bytes) -> bytes:
        """Sixteen bytes that stand for these documents, read in the way that `signature` names."""
        text = f"{self.documents} {self.first} {self.second} ".encode()
        return hashlib.blake2b(text + signature, digest_size=16).digest()


class Digests:
    """Running digests by day of a scan. Days are counted since 1970; UNDATED is one of them."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self.days: dict[int, Sum] = {}
        self.documents = 0

    def watching(self, batches: Iterable[bytes]) -> Generator[bytes, None, None]:
        """The same batches of raw documents; each goes into the digests."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: bytes) -> None:
        """Add concatenated raw documents."""
        offsets = offsets_of(batch)
        count = len(offsets) - 1
        if not count:
            return
        self.documents += count
        view = memoryview(batch)
        joined = b"".join([xxh3_128_digest(view[begin:end]) for begin, end in itertools.pairwise(offsets)])
        lanes = np.frombuffer(joined, "<u8").reshape(count, 2)
        days = days_of(batch, offsets, self._mapping)
        order = np.argsort(days, kind="stable")
        different, starts, counts = np.unique(days[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(lanes[order], starts, axis=0)
        for day, number, lane in zip(different.tolist(), counts.tolist(), sums.tolist(), strict=True):
            kept = self.days.setdefault(day, Sum())
            kept.documents += number
            kept.first = kept.first + lane[0] & _LANE
            kept.second = kept.second + lane[1] & _LANE

    def of(self, day: dt.date | None) -> Sum:
        """The documents of a day, or of none."""
        return self.days.get(UNDATED if day is None else (day - EPOCH.date()).days, Sum())


def days_of(batch: bytes, offsets: list[int], mapping: Mapping) -> npt.NDArray[np.int64]:
    """The day of each document of a batch, UNDATED for those whose time is none or belongs to no partition.

    Documents of the usual shapes, whose first time field is a date, are read by numpy in step.
    """
    days = np.full(len(offsets) - 1, UNDATED, np.int64)
    left = np.arange(len(days))
    starts, ends = np.array(offsets[:-1]), np.array(offsets[1:])
    name = mapping.time_fields[0].encode()
    raw = Raw(batch)
    first, end = -(-mapping.first // 1000), -(-mapping.end // 1000)
    odd: list[Positions] = []
    for _ in range(_SHAPES):
        if not left.size:
            break
        shape = _up_to(shape_of(batch, offsets[left[0]], offsets[left[0] + 1]), name)
        if shape:
            matches, fields = raw.locate(shape, starts[left], ends[left], whole=False)
            times = raw.int64(fields[-2] + len(shape[-1].head), matches)
            inside = matches & (times >= first) & (times < end)
            days[left[inside]] = times[inside] // _DAY_MS
            left = left[~matches]
        else:
            odd.append(left[:1])
            left = left[1:]
    for position in np.concatenate([*odd, left]).tolist():
        days[position] = day_of(batch[offsets[position] : offsets[position + 1]], mapping)
    return days


def day_of(raw: bytes, mapping: Mapping) -> int:
    """The day of one document, as `convert` decides it."""
    try:
        document = bson.decode(raw, OPTIONS)
    except (bson.errors.BSONError, ValueError, OverflowError, RecursionError):
        document = lenient(raw)
    try:
        return event_time(document, mapping)[1] // DAY_US
    except Unusable:
        return UNDATED


def _up_to(shape: Shape | None, name: bytes) -> Shape | None:
    """The fields of a shape up to the time, None where that is no date."""
    if shape is None:
        return None
    for number, field in enumerate(shape):
        if field.name == name:
            return shape[: number + 1] if field.kind == DATE else None
    return None
