"""Read documents again, and mark the days of which others were read: what no stream told and no count shows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Generator
from importlib.resources import files
from typing import Any

from hub.loading.digests import Digests
from hub.loading.known import signature_of
from hub.loading.model import EPOCH, Mapping
from hub.loading.prefetch import prefetch
from hub.loading.source import everything, scan
from hub.mongo import Documents, collection
from hub.settings import Settings
from hub.streams.model import Stream
from hub.timescale.connection import connect


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """What a sweep found. `changed` are days of which other documents were read than there are now, and None for the undated."""

    documents: int
    days: int
    changed: tuple[dt.date, ...]
    undated_changed: bool
    seconds: float

    def to_metadata(self) -> dict[str, Any]:
        """The report as metadata."""
        return {
            "documents": self.documents,
            "days": self.days,
            "changed_days": len(self.changed),
            "undated_changed": self.undated_changed,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.documents / self.seconds) if self.seconds else 0,
        }


def sweep(settings: Settings, stream: Stream, days: int | None = None) -> SweepReport:
    """Compare the documents of the last `days`, or of all of history, with what the newest loads read.

    Days that differ are marked in the ledger, which asks for them; nothing is written where nothing changed, but that
    a sweep was made. Memory does not grow with the number of documents. Raises HubError for the servers.
    """
    began, now = time.monotonic(), dt.datetime.now(dt.UTC)
    mapping = Mapping.of(stream, now)
    tomorrow = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    first = tomorrow - dt.timedelta(days=days) if days else dt.datetime.combine(stream.start, dt.time(), dt.UTC)
    start = max(first, stream.oldest_kept(now) or first)
    digests = Digests(mapping)
    with (
        collection(settings, stream) as documents,
        prefetch(_batches(documents, mapping, days, start, tomorrow)) as batches,
    ):
        for batch in batches:
            digests.add(batch)
    signature = signature_of(stream, mapping)
    origin = EPOCH.date()
    found = {
        day: sums
        for number, sums in digests.days.items()
        if number >= 0 and start.date() <= (day := origin + dt.timedelta(days=number)) < tomorrow.date()
    }
    with connect(settings) as connection:
        marked = connection.execute(
            stream.sql((files("hub.loading") / "sql" / "sweep.sql").read_text(encoding="utf-8")),
            {
                "stream": stream.name, "now": now, "full": days is None, "began": now,
                "start": start.date(), "end": tomorrow.date(),
                "days": list(found), "counts": [one.documents for one in found.values()],
                "digests": [one.digest(signature) for one in found.values()],
                "nothing": Digests(mapping).of(None).digest(signature),
                "undated": digests.of(None).digest(signature),
            },
        ).fetchall()  # fmt: skip
    changed = tuple(sorted(day for (day,) in marked if day is not None))
    return SweepReport(digests.documents, len(found), changed, (None,) in marked, time.monotonic() - began)


def _batches(
    documents: Documents, mapping: Mapping, days: int | None, start: dt.datetime, end: dt.datetime
) -> Generator[bytes, None, None]:
    return scan(documents, mapping, (start, end)) if days else everything(documents)
