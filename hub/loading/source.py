"""Find the documents of a window in MongoDB, whatever type their time has."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Generator, Iterator
from typing import Any

from pymongo.errors import OperationFailure

from hub.loading.model import EPOCH, Mapping
from hub.loading.raw_batches import RawBatches
from hub.mongo import Documents

Filter = dict[str, Any]

# Memory grows with this: 64 MB at 1,000 documents, 166 MB at 20,000.
BATCH_DOCUMENTS = 2_000

# Times that are strings of this form are found by the load of their day, since they sort like the times that they
# name, give or take the offset of less than a day. Every one of them is a time to the converter: what only looks like
# one, such as the 30th of February, or a second 60, is a stray. So is the 29th, which is a time in some years.
_DATE = (
    r"\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:[.]\d{1,6})?"
_PLAIN = rf"^{_DATE}(?:[T ]{_TIME}(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)?)?$"
_NO_ARRAY = {"$not": {"$type": "array"}}
_DAY = dt.timedelta(days=1)
# Codes that a narrower query would not cure: authentication and permission.
_FINAL_CODES = {13, 18, 8000}


def scan(
    collection: Documents, mapping: Mapping, window: tuple[dt.datetime, dt.datetime]
) -> Generator[bytes, None, None]:
    """Yield batches of raw documents, a superset of what belongs to the half-open UTC window.

    Three queries, since a range in MongoDB only matches values of its own type: dates in the window; plain ISO 8601
    strings within a day of it; and strays, which no window would ever find (no time, a time of another type, an array,
    a string of another form, a time outside of all partitions). A document is found by one of them only. Where the
    server does not know the operators that strays need, everything is read instead. Raises pymongo's errors.
    """
    fields = mapping.time_fields
    try:
        yield from _find(collection, strays(mapping))
    except OperationFailure as error:
        if error.code in _FINAL_CODES or error.timeout or error.code == 43:
            raise
        yield from _find(collection, {})
        return
    start, end = window
    # Plain conditions on the time stay by themselves: they are what an index on it serves.
    yield from _find(collection, _first_present(fields, {"$gte": start, "$lt": end, **_NO_ARRAY}))
    text = {"$gte": (start - _DAY).date().isoformat(), "$lt": (end + _DAY).date().isoformat()}
    yield from _find(collection, _first_present(fields, {**text, "$regex": _PLAIN, **_NO_ARRAY}))


def everything(collection: Documents) -> Generator[bytes, None, None]:
    """Yield batches of all raw documents. Raises pymongo's errors."""
    yield from _find(collection, {})


def _find(collection: Documents, query: Filter) -> Iterator[bytes]:
    with RawBatches(collection, query, batch_size=BATCH_DOCUMENTS) as cursor:
        yield from cursor


def _first_present(fields: tuple[str, ...], condition: Filter) -> Filter:
    """`condition` on the first field that is present and not null."""
    choices = [{**dict.fromkeys(fields[:number], None), name: condition} for number, name in enumerate(fields)]
    return choices[0] if len(choices) == 1 else {"$or": choices}


def strays(mapping: Mapping) -> Filter:
    """Documents whose time no window's ranges of dates and strings can match."""
    start = EPOCH + dt.timedelta(microseconds=mapping.first)
    end = EPOCH + dt.timedelta(microseconds=mapping.end)
    dates = {"$gte": start, "$lt": end}
    texts = {"$gte": (start - _DAY).date().isoformat(), "$lt": (end + _DAY).date().isoformat()}
    fields = mapping.time_fields
    choices: list[Filter] = [dict.fromkeys(fields, None)]
    for number, name in enumerate(fields):
        unmatched = [
            {name: {"$ne": None}},
            {name: {"$not": dates}},
            {"$or": [{name: {"$not": re.compile(_PLAIN)}}, {name: {"$not": texts}}]},
        ]
        others = dict.fromkeys(fields[:number], None)
        choices += [{**others, "$and": unmatched}, {**others, name: {"$type": "array"}}]
    return {"$or": choices}
