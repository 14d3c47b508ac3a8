"""Sample readings, the same at every call but for their dates: for a first look, and for tests."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import random
from collections.abc import Iterator
from typing import Any

from bson.objectid import ObjectId

from hub.mongo import Documents

DEFAULT_COUNT = 20_000
DEFAULT_DAYS = 60

_SOURCES = {
    "kobo": ("page_read", "session", "highlight"),
    "web": ("article", "session"),
    "papers": ("page_read", "annotation"),
    "audiobook": ("session",),
    "newsletter": ("article",),
}
_SOURCE_WEIGHTS = (45, 25, 12, 10, 8)
# Monday to Sunday; most reading is done at weekends, and in the evening.
_WEEKDAYS = (0.9, 0.8, 0.85, 0.8, 1.0, 1.5, 1.6)
_HOURS = (1, 0.5, 0.2, 0.1, 0.1, 0.3, 1.5, 3, 2.5, 1.5, 1, 1, 2, 1.5, 1, 1, 1.5, 2, 3, 4, 6, 7, 5, 3)
_TITLES = ("Middlemarch", "The Left Hand of Darkness", "SICP", "The Periodic Table", "Invisible Cities", "Dune")
_BATCH = 1_000


@dataclasses.dataclass(frozen=True)
class Seed:
    """What `seed` did: documents there now, documents added, first and last day that they are about."""

    documents: int
    added: int
    first: dt.date
    last: dt.date


def seed(
    documents: Documents, *, count: int = DEFAULT_COUNT, days: int = DEFAULT_DAYS, until: dt.date | None = None
) -> Seed:
    """Fill an empty collection with `count` readings over `days` days up to `until` (default: yesterday, UTC).

    A collection that holds anything is left as it is. Raises pymongo's errors.
    """
    last = until or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    first = last - dt.timedelta(days=days - 1)
    present = documents.estimated_document_count()
    if present:
        first, last = _days_of(documents) or (first, last)
        return Seed(present, 0, first, last)
    documents.create_index("timestamp")
    made = itertools.chain(readings(first, days, count), invalid(last))
    added = 0
    while batch := list(itertools.islice(made, _BATCH)):
        documents.insert_many(batch)
        added += len(batch)
    return Seed(added, added, first, last)


def readings(first: dt.date, days: int, count: int, *, random_seed: int = 7) -> Iterator[dict[str, Any]]:
    """`count` valid documents over `days` days from `first`, in no strict order of time."""
    rng = random.Random(random_seed)
    weights = [_WEEKDAYS[(first + dt.timedelta(days=day)).weekday()] * rng.uniform(0.6, 1.4) for day in range(days)]
    chosen = sorted(rng.choices(range(days), weights, k=count))
    for number, day in enumerate(chosen):
        hour = rng.choices(range(24), _HOURS)[0]
        moment = dt.datetime.combine(first, dt.time(hour), dt.UTC) + dt.timedelta(
            days=day, minutes=rng.randrange(60), seconds=rng.randrange(60), milliseconds=rng.randrange(1000)
        )
        yield _document(rng, number, moment)


def _document(rng: random.Random, number: int, moment: dt.datetime) -> dict[str, Any]:
    source = rng.choices(list(_SOURCES), _SOURCE_WEIGHTS)[0]
    event_type = rng.choice(_SOURCES[source])
    seconds = round(rng.lognormvariate(5.5, 0.9), 1)
    document: dict[str, Any] = {"_id": _object_id(moment, number)}
    # Producers differ: one in eight writes ISO 8601 strings, one in twenty another field name.
    written: Any = moment.isoformat().replace("+00:00", "Z") if rng.random() < 0.125 else moment
    document["extracted_at" if rng.random() < 0.05 else "timestamp"] = written
    payload: dict[str, Any] = {"title": rng.choice(_TITLES), "page": rng.randrange(1, 800)}
    if event_type not in ("highlight", "annotation"):
        payload["value"] = seconds
    return document | {
        "source": source,
        "event_type": event_type,
        "payload": payload,
        "meta": {"device": f"{source}-1", "schema": 3},
        "status": "done",
    }


def invalid(day: dt.date) -> Iterator[dict[str, Any]]:
    """A handful of documents that cannot become rows, each for another reason."""
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    times: list[dict[str, Any]] = [
        {},
        {"timestamp": None},
        {"timestamp": "yesterday at noon"},
        {"timestamp": 1_700_000_000},
        {"timestamp": "1969-12-31T23:59:59Z"},
        {"timestamp": noon, "payload": {"title": "a NUL \0 in the title", "value": 12.0}},
    ]
    for number, fields in enumerate(times):
        yield {"_id": _object_id(noon, 0xF00000 + number), "source": "import", "event_type": "session"} | fields


def _object_id(moment: dt.datetime, number: int) -> ObjectId:
    return ObjectId(int(moment.timestamp()).to_bytes(4, "big") + b"seed!" + number.to_bytes(3, "big"))


def _days_of(documents: Documents) -> tuple[dt.date, dt.date] | None:
    """First and last day by the ObjectIds: cheap, and right for what `seed` made."""
    ends = [next(iter(documents.find({}, {"_id": 1}, sort=[("_id", way)], limit=1)), None) for way in (1, -1)]
    first, last = ((end or {}).get("_id") for end in ends)
    if isinstance(first, ObjectId) and isinstance(last, ObjectId):
        return first.generation_time.date(), last.generation_time.date()
    return None
