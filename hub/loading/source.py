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

# ISO 8601 strings of this form sort like the times they name, give or take the offset of less than a day.
_SORTABLE = re.compile(r"^\d{4}-\d{2}-\d{2}")
_DAY = dt.timedelta(days=1)
# Codes that a narrower query would not cure: authentication and permission.
_FINAL_CODES = {13, 18, 8000}


def scan(
    collection: Documents, mapping: Mapping, window: tuple[dt.datetime, dt.datetime]
) -> Generator[bytes, None, None]:
    """Yield batches of raw documents, a superset of what belongs to the half-open UTC window.

    Three queries, since a range in MongoDB only matches values of its own type: dates in the window;
    ISO 8601 strings within a day of it; and strays, which no window would ever find (no time, a time
    of another type, a time outside of all partitions). Where the server does not know the operators
    that strays need, everything is read instead. Raises pymongo's errors.
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
    yield from _find(collection, _first_present(fields, {"$gte": start, "$lt": end}))
    text = {"$gte": (start - _DAY).date().isoformat(), "$lt": (end + _DAY).date().isoformat()}
    yield from _find(collection, _first_present(fields, text))


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
            {"$or": [{name: {"$not": _SORTABLE}}, {name: {"$not": texts}}]},
        ]
        choices.append({**dict.fromkeys(fields[:number], None), "$and": unmatched})
    return {"$or": choices}
