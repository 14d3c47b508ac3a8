"""How many documents MongoDB holds of each UTC day: counted by the server, where it can be trusted to."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import bson
from pymongo.errors import OperationFailure

from hub.arrivals.look import decoded
from hub.loading.batch import offsets_of
from hub.loading.convert import OPTIONS, Unusable, event_time
from hub.loading.model import DAY_US, EPOCH, Mapping
from hub.loading.raw_batches import RawBatches
from hub.mongo import Documents

_BATCH = 5_000
_DAY_MS = DAY_US // 1000
# Times whose hour says the day, whatever MongoDB's and Python's parsers make of stranger ones.
_PLAIN = r"^\d{4}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d([.]\d{1,6})?"
_WHOLE_HOURS = _PLAIN + r"([+-](0\d|1\d|2[0-3]):00)$"
_UTC = _PLAIN + r"Z?$"


@dataclasses.dataclass(frozen=True)
class Counted:
    """Documents by the UTC day of their time; `undated` are those that belong to no day that is a partition."""

    days: dict[dt.date, int]
    undated: int

    @property
    def documents(self) -> int:
        return sum(self.days.values()) + self.undated


def count(documents: Documents, mapping: Mapping) -> Counted:
    """Count the documents of a collection by day. Raises pymongo's errors.

    One aggregation, of which a few groups a day come back. A server that does not know the operators, or answers
    wrongly what it makes of five known times, is asked for the times themselves.
    """
    try:
        if _probed(documents):
            return _aggregated(documents, mapping)
    except OperationFailure as error:
        if error.code in (13, 18) or error.timeout:
            raise
    return _scanned(documents, mapping)


def group_key(time: Any) -> dict[str, Any]:
    """The aggregation expression that turns a time into the key of its group, `[kind, value]`.

    Dates give their day since 1970, strings of the plain form their hour, and other strings themselves: what
    these come to is decided by the hub's own converter. Anything else has no kind but `other`.
    """
    length = {"$strLenCP": time}
    hour = {"$substrCP": [time, 0, 13]}
    offset = {"$substrCP": [time, {"$subtract": [length, 6]}, 6]}
    return {
        "$switch": {
            "branches": [
                {
                    "case": {"$eq": [{"$type": time}, "date"]},
                    "then": ["day", {"$floor": {"$divide": [{"$toLong": time}, _DAY_MS]}}],
                },
                {"case": {"$ne": [{"$type": time}, "string"]}, "then": ["other", None]},
                {
                    "case": {"$regexMatch": {"input": time, "regex": _UTC}},
                    "then": ["text", {"$concat": [hour, ":00:00Z"]}],
                },
                {
                    "case": {"$regexMatch": {"input": time, "regex": _WHOLE_HOURS}},
                    "then": ["text", {"$concat": [hour, ":00:00", offset]}],
                },
            ],
            "default": ["text", time],
        }
    }


_PROBE = {
    "date": (dt.datetime(2024, 2, 29, 23, 59, 59, 999000, tzinfo=dt.UTC), ["day", 19782]),
    "early": (dt.datetime(1969, 12, 31, 23, tzinfo=dt.UTC), ["day", -1]),
    "text": ("2024-02-29T23:59:59+02:00", ["text", "2024-02-29T23:00:00+02:00"]),
    "odd": ("2024-02-29T23:59:59+05:30", ["text", "2024-02-29T23:59:59+05:30"]),
    "number": (5, ["other", None]),
}


def _probed(documents: Documents) -> bool:
    """Whether the server evaluates the expression as it should. True for a collection that is empty."""
    asked = {name: group_key({"$literal": value}) for name, (value, _) in _PROBE.items()}
    answers = list(documents.aggregate([{"$limit": 1}, {"$project": {"_id": 0, **asked}}]))
    return all(answer.get(name) == expected for answer in answers for name, (_, expected) in _PROBE.items())


def _aggregated(documents: Documents, mapping: Mapping) -> Counted:
    first, *others = reversed(mapping.time_fields)
    time: Any = {"$ifNull": [f"${first}", None]}
    for name in others:
        time = {"$ifNull": [f"${name}", time]}
    pipeline = [
        {"$project": {"time": time}},
        {"$group": {"_id": group_key("$time"), "n": {"$sum": 1}}},
    ]
    counts = Counter[dt.date]()
    undated = 0
    for group in documents.aggregate(pipeline, allowDiskUse=True):
        kind, value = group["_id"]
        number = int(group["n"])
        if kind == "day":
            time_us = int(value) * DAY_US
            day = _day(time_us) if mapping.first <= time_us < mapping.end else None
        else:
            day = _day_of(value, mapping) if kind == "text" else None
        if day is None:
            undated += number
        else:
            counts[day] += number
    return Counted(dict(counts), undated)


def _scanned(documents: Documents, mapping: Mapping) -> Counted:
    """Read the times of all documents, and nothing else of them."""
    counts = Counter[int]()
    undated = 0
    projection = {"_id": 0, **dict.fromkeys(mapping.time_fields, 1)}
    with RawBatches(documents, {}, projection, batch_size=_BATCH) as batches:
        for document in itertools.chain.from_iterable(map(_decoded, batches)):
            try:
                counts[event_time(document, mapping)[1] // DAY_US] += 1
            except Unusable:
                undated += 1
    return Counted({_day(day * DAY_US): number for day, number in counts.items()}, undated)


def _decoded(batch: bytes) -> Iterable[dict[str, Any]]:
    try:
        return bson.decode_all(batch, OPTIONS)
    except (bson.errors.BSONError, ValueError, OverflowError):
        offsets = offsets_of(batch)
        return [decoded(batch[start:end]) for start, end in itertools.pairwise(offsets)]


def _day_of(text: Any, mapping: Mapping) -> dt.date | None:
    try:
        return _day(event_time({mapping.time_fields[0]: text}, mapping)[1])
    except Unusable:
        return None


def _day(time: int) -> dt.date:
    return (EPOCH + dt.timedelta(days=time // DAY_US)).date()
