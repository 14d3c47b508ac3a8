"""Find readings that arrived, and decide which days to load for them. The deciding is pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bson.codec_options import CodecOptions
from bson.errors import InvalidId
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument

from hub.loading.convert import Unusable, decode, decode_id, event_time, id_text
from hub.loading.model import EPOCH
from hub.loading.model import Mapping as FieldMapping
from hub.mongo import Documents
from hub.timescale.connection import Connection

# New documents that one look takes in; the next look goes on from there.
PAGE = 20_000
_LOOKUP = 5_000
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_ZERO = ObjectId("000000000000000000000000")
_DAY = dt.timedelta(days=1)
_BACKOFF_LIMIT = dt.timedelta(hours=1)

DayRange = tuple[dt.date, dt.date]
"""First and last day, both included."""


class RunState(enum.Enum):
    """What became of a requested run."""

    SUCCEEDED = "succeeded"
    UNDERWAY = "underway"
    FAILED = "failed"
    """Failed, cancelled, or gone."""


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """Documents that are in MongoDB and in no table: the days they touch.

    `until` is the last id looked at, but never one from the future.
    """

    until: ObjectId
    days: frozenset[dt.date]
    documents: int


@dataclasses.dataclass(frozen=True)
class Pending:
    """Runs that were asked for; their success moves the watermark to `until`."""

    until: ObjectId
    ranges: tuple[DayRange, ...]
    attempt: int
    """How many requests came before: a late reading can touch a day again with the watermark where it was."""

    def run_key(self, days: DayRange) -> str:
        return f"{self.until}:{days[0]}:{days[1]}:{self.attempt}"


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Everything up to `done` is loaded. With `pending`, runs are on their way for what comes after it."""

    done: ObjectId = _ZERO
    pending: Pending | None = None
    failures: int = 0
    not_before: dt.datetime | None = None
    asked: int = 0

    def to_json(self) -> str:
        pending = self.pending and {
            "until": str(self.pending.until),
            "ranges": [[str(first), str(last)] for first, last in self.pending.ranges],
            "attempt": self.pending.attempt,
        }
        not_before = self.not_before and self.not_before.isoformat()
        return json.dumps(
            {
                "done": str(self.done),
                "pending": pending,
                "failures": self.failures,
                "not_before": not_before,
                "asked": self.asked,
            }
        )

    @classmethod
    def from_json(cls, text: str | None) -> Cursor:
        """The cursor in `text`; one that begins at the beginning where there is none or it is unreadable."""
        try:
            data = json.loads(text or "{}")
            held, not_before = data.get("pending"), data.get("not_before")
            pending = held and Pending(
                ObjectId(held["until"]),
                tuple((dt.date.fromisoformat(a), dt.date.fromisoformat(b)) for a, b in held["ranges"]),
                int(held["attempt"]),
            )
            return cls(
                ObjectId(data.get("done", str(_ZERO))),
                pending or None,
                int(data.get("failures", 0)),
                dt.datetime.fromisoformat(not_before) if not_before else None,
                int(data.get("asked", 0)),
            )
        except (InvalidId, ValueError, TypeError, KeyError, AttributeError):
            return cls()


@dataclasses.dataclass(frozen=True)
class Decision:
    """The runs to ask for now, by run key, the cursor to keep, and why nothing is asked for."""

    requests: dict[str, DayRange]
    cursor: Cursor
    reason: str = ""


def decide(
    cursor: Cursor,
    now: dt.datetime,
    state_of: Callable[[str], RunState],
    look: Callable[[ObjectId], Arrivals],
) -> Decision:
    """One look: `state_of` tells what became of a run key, `look` finds what arrived after an id.

    The watermark moves only once every run that was asked for has succeeded. After a failure the same
    days are asked for again, after one minute, two, four, and so on up to an hour.
    """
    if cursor.pending:
        states = [state_of(cursor.pending.run_key(days)) for days in cursor.pending.ranges]
        if RunState.UNDERWAY in states:
            return Decision({}, cursor, f"waiting for runs that load up to {cursor.pending.until}")
        if RunState.FAILED in states:
            failures = cursor.failures + 1
            pause = min(dt.timedelta(minutes=2 ** min(failures - 1, 10)), _BACKOFF_LIMIT)
            waiting = Cursor(cursor.done, None, failures, now + pause, cursor.asked)
            return Decision({}, waiting, f"a run failed; the same days are asked for again in {pause}")
        cursor = Cursor(max(cursor.done, cursor.pending.until), asked=cursor.asked)
    if cursor.not_before and now < cursor.not_before:
        return Decision({}, cursor, f"a run failed; waiting until {cursor.not_before:%H:%M:%S} UTC")
    found = look(cursor.done)
    until = max(found.until, cursor.done)
    if not found.days:
        return Decision({}, Cursor(until, asked=cursor.asked), "no new readings")
    pending = Pending(until, ranges(found.days), cursor.asked)
    requests = {pending.run_key(days): days for days in pending.ranges}
    return Decision(requests, Cursor(cursor.done, pending, cursor.failures, asked=cursor.asked + 1))


def ranges(days: Iterable[dt.date]) -> tuple[DayRange, ...]:
    """Days as ranges of consecutive ones, in order."""
    merged: list[DayRange] = []
    for day in sorted(set(days)):
        if merged and merged[-1][1] + _DAY == day:
            merged[-1] = (merged[-1][0], day)
        else:
            merged.append((day, day))
    return tuple(merged)


def look(
    documents: Documents,
    connection: Connection,
    mapping: FieldMapping,
    after: ObjectId,
    overlap: dt.timedelta,
    page: int = PAGE,
    now: dt.datetime | None = None,
) -> Arrivals:
    """Find documents with an ObjectId later than `after`, or up to `overlap` earlier, that no table holds.

    Ids made on several machines come out of order, hence the overlap. At most `page` documents beyond
    `after` are looked at. Documents whose `_id` is no ObjectId are left to the daily load. An id made by a
    clock that runs ahead is found too, but `until` stays at `now`: otherwise nothing would be found until then.
    """
    latest = ObjectId.from_datetime((now or dt.datetime.now(dt.UTC)) + dt.timedelta(seconds=1))
    begin = ObjectId.from_datetime(max(after.generation_time - overlap, EPOCH)) if after != _ZERO else _ZERO
    projection = dict.fromkeys(("_id", *mapping.time_fields), 1)
    until, days, missing, beyond = after, set(), 0, 0  # type: tuple[ObjectId, set[dt.date], int, int]
    waiting: dict[str, dt.date] = {}
    # Raw, so that one document that cannot be decoded does not cost all others.
    raws = documents.with_options(codec_options=_RAW).find(
        {"_id": {"$gte": begin}}, projection, sort=[("_id", 1)], batch_size=_LOOKUP
    )
    with raws as found:
        for raw in found:
            document = _decoded(bytes(raw.raw))
            identifier = document.get("_id")
            if not isinstance(identifier, ObjectId):
                continue  # a server without type bracketing may return others
            waiting[id_text(identifier)] = day_of(document, mapping)
            beyond += identifier > after
            until = max(until, identifier)
            if len(waiting) >= _LOOKUP or beyond >= page:
                new = _absent(connection, waiting)
                missing, days, waiting = missing + len(new), days | set(new.values()), {}
            if beyond >= page:
                break
    new = _absent(connection, waiting)
    until = max(after, min(until, latest))
    return Arrivals(until, frozenset(days | set(new.values())), missing + len(new))


def _decoded(raw: bytes) -> dict[str, Any]:
    """The document, or no more than its `_id` where the rest cannot be decoded."""
    try:
        return decode(raw)
    except Unusable:
        return decode_id(raw) or {}


def day_of(document: Mapping[str, Any], mapping: FieldMapping) -> dt.date:
    """The UTC day to load for a document: that of its time, or of its id where the time is unusable."""
    try:
        _, time = event_time(dict(document), mapping)
    except Unusable:
        made = (document["_id"].generation_time - EPOCH) // dt.timedelta(microseconds=1)
        time = min(max(made, mapping.first), mapping.end - 1)
    return (EPOCH + dt.timedelta(microseconds=time)).date()


def _absent(connection: Connection, waiting: dict[str, dt.date]) -> dict[str, dt.date]:
    """Those of the ids that neither `reading_analytics`, near their day, nor `reading_rejects` holds."""
    if not waiting:
        return {}
    present = connection.execute(
        "SELECT mongo_id FROM reading_analytics WHERE mongo_id = ANY(%(ids)s)"
        " AND event_timestamp >= %(first)s::date::timestamptz AND event_timestamp < %(last)s::date::timestamptz"
        " UNION ALL SELECT mongo_id FROM reading_rejects WHERE mongo_id = ANY(%(ids)s)",
        {"ids": list(waiting), "first": min(waiting.values()), "last": max(waiting.values()) + _DAY},
    )
    held = {row[0] for row in present}
    return {identifier: day for identifier, day in waiting.items() if identifier not in held}
