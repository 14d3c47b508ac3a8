"""Find new documents by their ObjectIds: the way that every server offers."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument

from hub.loading.convert import Unusable, decode, decode_id, event_time, id_text
from hub.loading.model import EPOCH, microseconds
from hub.loading.model import Mapping as FieldMapping
from hub.mongo import Documents
from hub.streams.model import Stream
from hub.timescale.connection import Connection

# New documents that one look takes in; the next look goes on from there.
PAGE = 20_000
_LOOKUP = 5_000
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_ZERO = ObjectId("000000000000000000000000")
_DAY = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class NewIds:
    """Documents that are in MongoDB and in no table: the days they touch.

    `until` is the last id looked at, but never one from the future. `page` says that the page was full: there may be more.
    """

    until: ObjectId
    days: frozenset[dt.date]
    documents: int
    page: bool = False


def look(
    documents: Documents,
    connection: Connection,
    stream: Stream,
    mapping: FieldMapping,
    after: ObjectId,
    overlap: dt.timedelta,
    page: int = PAGE,
    now: dt.datetime | None = None,
) -> NewIds:
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
    raws = documents.with_options(codec_options=RAW).find(
        {"_id": {"$gte": begin}}, projection, sort=[("_id", 1)], batch_size=_LOOKUP
    )
    with raws as found:
        for raw in found:
            document = decoded(bytes(raw.raw))
            identifier = document.get("_id")
            if not isinstance(identifier, ObjectId):
                continue  # a server without type bracketing may return others
            waiting[id_text(identifier)] = day_of(document, mapping)
            beyond += identifier > after
            until = max(until, identifier)
            if len(waiting) >= _LOOKUP or beyond >= page:
                new = _absent(connection, stream, waiting)
                missing, days, waiting = missing + len(new), days | set(new.values()), {}
            if beyond >= page:
                break
    new = _absent(connection, stream, waiting)
    until = max(after, min(until, latest))
    return NewIds(until, frozenset(days | set(new.values())), missing + len(new), beyond >= page)


def decoded(raw: bytes) -> dict[str, Any]:
    """The document, or no more than its `_id` where the rest cannot be decoded."""
    try:
        return decode(raw)
    except Unusable:
        return decode_id(raw) or {}


def day_of(document: Mapping[str, Any], mapping: FieldMapping) -> dt.date:
    """The UTC day to load for a document: that of its time; where that is unusable, of its id, or the newest.

    A document without a usable time is read by the load of every day.
    """
    try:
        _, time = event_time(dict(document), mapping)
    except Unusable:
        identifier = document.get("_id")
        made = identifier.generation_time if isinstance(identifier, ObjectId) else None
        time = microseconds(made) if made else mapping.end - 1
        time = min(max(time, mapping.first), mapping.end - 1)
    return (EPOCH + dt.timedelta(microseconds=time)).date()


def _absent(connection: Connection, stream: Stream, waiting: dict[str, dt.date]) -> dict[str, dt.date]:
    """Those of the ids that are neither rows of their day nor dead letters."""
    if not waiting:
        return {}
    held = {
        row[0]
        for row in connection.execute(
            f"SELECT mongo_id FROM {stream.rejects} WHERE mongo_id = ANY(%s)", (list(waiting),)
        )
    }
    by_day: dict[dt.date, list[str]] = {}
    for identifier, day in waiting.items():
        by_day.setdefault(day, []).append(identifier)
    # Day after day, and with times that the planner knows: it opens no more than the chunk of the day.
    for day, identifiers in by_day.items():
        start = dt.datetime.combine(day, dt.time(), dt.UTC)
        rows = connection.execute(
            f"SELECT mongo_id FROM {stream.table}"
            " WHERE mongo_id = ANY(%s) AND event_timestamp >= %s AND event_timestamp < %s",
            (identifiers, start, start + _DAY),
        )
        held.update(row[0] for row in rows)
    return {identifier: day for identifier, day in waiting.items() if identifier not in held}
