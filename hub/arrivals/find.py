"""One look for what arrived, by the fastest way that the server offers, and for the days that are asked for."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import threading
import time
from collections.abc import Iterable
from typing import Any

from bson.objectid import ObjectId

from hub.arrivals import ledger, look
from hub.arrivals.changes import NoChangeStreamError, watch
from hub.arrivals.cursor import Cursor, Mark
from hub.arrivals.decide import Arrivals
from hub.loading.convert import Unusable, id_text
from hub.loading.model import Mapping
from hub.mongo import Documents
from hub.streams.model import Mode, Stream
from hub.timescale.connection import Connection

_LOOKUP = 1_000
# How long one look may go on from page to page.
_PAGES_SECONDS = 20


def find(
    documents: Documents,
    connection: Connection,
    stream: Stream,
    cursor: Cursor,
    *,
    overlap: dt.timedelta,
    wait: float,
    now: dt.datetime,
    enough: threading.Event | None = None,
) -> Arrivals:
    """What arrived since the cursor's mark, and the days that the ledger or a sweep asks for.

    Waits up to `wait` seconds for a change where nothing is there yet, or until `enough`. Raises pymongo's and psycopg's errors.
    """
    mapping = Mapping.of(stream, now)
    asked = ledger.wanted(connection, stream, now)
    try:
        found = _by_changes(documents, connection, stream, mapping, cursor.mark, 0 if asked else wait, enough)
    except NoChangeStreamError as why:
        found = _by_ids(documents, connection, stream, mapping, cursor.mark, overlap, now, str(why))
    return dataclasses.replace(found, days=_within(found.days, stream, mapping, now) | asked)


def _within(days: Iterable[dt.date], stream: Stream, mapping: Mapping, now: dt.datetime) -> frozenset[dt.date]:
    """Those of the days that can be loaded: what is older than what is kept holds up nothing."""
    kept = stream.oldest_kept(now)
    return frozenset(day for day in days if kept is None or day >= kept.date())


def _by_changes(
    documents: Documents,
    connection: Connection,
    stream: Stream,
    mapping: Mapping,
    mark: Mark,
    wait: float,
    enough: threading.Event | None,
) -> Arrivals:
    changes = watch(documents, mark.token, mark.server, wait=wait, enough=enough)
    days, found = _days_of(documents, mapping, changes.written)
    if changes.deleted and stream.mode is Mode.MIRROR:
        days |= _days_of_rows(connection, stream, changes.deleted)
    mark = Mark(changes.token, changes.server)
    return Arrivals(mark, frozenset(days), found, bool(changes.lost), gone=len(changes.deleted))


def _days_of(documents: Documents, mapping: Mapping, identifiers: Iterable[Any]) -> tuple[set[dt.date], int]:
    """The days of the documents that have these ids, as MongoDB has them now, and how many there are."""
    days: set[dt.date] = set()
    count = 0
    raw = documents.with_options(codec_options=look.RAW)
    projection = dict.fromkeys(("_id", *mapping.time_fields), 1)
    different = iter({repr(identifier): identifier for identifier in identifiers if identifier is not None}.values())
    while some := list(itertools.islice(different, _LOOKUP)):
        for document in raw.find({"_id": {"$in": some}}, projection):
            count += 1
            days.add(look.day_of(look.decoded(bytes(document.raw)), mapping))
    return days, count


def _days_of_rows(connection: Connection, stream: Stream, identifiers: Iterable[Any]) -> set[dt.date]:
    """The days of the rows that documents with these ids have become."""
    texts = []
    for identifier in identifiers:
        try:
            texts.append(id_text(identifier))
        except Unusable:
            continue
    rows = connection.execute(
        f"SELECT DISTINCT (event_timestamp AT TIME ZONE 'UTC')::date FROM {stream.table} WHERE mongo_id = ANY(%s)",
        (texts,),
    )
    return {day for (day,) in rows}


def _by_ids(
    documents: Documents,
    connection: Connection,
    stream: Stream,
    mapping: Mapping,
    mark: Mark,
    overlap: dt.timedelta,
    now: dt.datetime,
    why: str,
) -> Arrivals:
    note = f"the server offers no change stream ({why}): new documents are found by their ObjectIds"
    if stream.updated_at:
        note += f", changed ones by {stream.updated_at}"
    begun = mark.identifier is not None
    after = mark.identifier or ObjectId.from_datetime(now)
    days: set[dt.date] = set()
    count, until = 0, time.monotonic() + _PAGES_SECONDS
    while True:
        page = look.look(documents, connection, stream, mapping, after, overlap, now=now)
        days |= page.days
        count += page.documents
        if not page.page or page.until == after or time.monotonic() > until:
            break
        after = page.until
    updated = mark.updated
    if stream.updated_at:
        changed, updated = _updated(documents, mapping, stream.updated_at, mark.updated or now, now)
        days |= changed
        count += len(changed)
    return Arrivals(Mark(identifier=page.until, updated=updated), frozenset(days), count, not begun, note)


def _updated(
    documents: Documents, mapping: Mapping, field: str, since: dt.datetime, now: dt.datetime
) -> tuple[set[dt.date], dt.datetime]:
    """Days of documents whose `field` is a date after `since`, and the newest such date, but never one of the future."""
    days: set[dt.date] = set()
    newest = since
    projection = dict.fromkeys(("_id", field, *mapping.time_fields), 1)
    raw = documents.with_options(codec_options=look.RAW)
    for document in raw.find({field: {"$gt": since}}, projection, sort=[(field, 1)], limit=look.PAGE):
        plain = look.decoded(bytes(document.raw))
        days.add(look.day_of(plain, mapping))
        touched: Any = plain
        for name in field.split("."):
            touched = touched.get(name) if isinstance(touched, dict) else None
        if isinstance(touched, dt.datetime):
            newest = max(newest, min(touched, now))
    return days, newest
