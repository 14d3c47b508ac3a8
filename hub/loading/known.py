"""Recognize days of which every document has been loaded as it is now, without converting it again.

Reading the raw documents and hashing them is several times faster than converting and comparing them. Not
noticed are rows that somebody changed by hand without touching `ingested_at`; `thorough` loads compare every row.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from importlib.resources import files
from typing import Any

from hub.loading.digests import Digests
from hub.loading.model import Mapping
from hub.loading.report import DayCount, LoadReport
from hub.streams.model import Mode, Stream
from hub.timescale.connection import Connection

# Raise it whenever the converter makes other rows of the same documents.
CONVERTER = 2


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What the newest loads of a window's days left: books, digests, and the report that this comes to."""

    days: tuple[tuple[DayCount, bytes], ...]
    undated: int
    undated_digest: bytes

    def are(self, digests: Digests, signature: bytes) -> bool:
        """Whether a scan has found the very documents of all of these loads."""
        return digests.of(None).digest(signature) == self.undated_digest and all(
            digests.of(day.day).digest(signature) == digest for day, digest in self.days
        )


def signature_of(stream: Stream, mapping: Mapping) -> bytes:
    """All that the rows of a day depend on beside its documents."""
    columns = [[column.name, column.path] for column in (*stream.dimensions, *stream.measures)]
    return json.dumps([CONVERTER, mapping.time_fields, columns]).encode()


class Known:
    """What is known of one window, in the transaction of its load."""

    def __init__(
        self, connection: Connection, stream: Stream, window: tuple[dt.datetime, dt.datetime], mapping: Mapping
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._window = window
        self._bounds: dict[str, Any] = {
            "start": window[0], "end": window[1], "first_day": window[0].date(), "end_day": window[1].date(),
            "stream": stream.name, "first": stream.start, "new": False,
        }  # fmt: skip
        self.signature = signature_of(stream, mapping)

    def recall(self, mode: Mode) -> Loaded | None:
        """The last loads of the window's days, if the tables still are as they left them and they decided alike."""
        state = self._connection.execute(
            "SELECT undated_read, undated_digest FROM stream_state WHERE stream = %s AND NOT undated_changed",
            (self._stream.name,),
        ).fetchone()
        if state is None or state[1] is None:
            return None
        found = self._file("known_days").fetchall()
        if len(found) != (self._window[1] - self._window[0]).days:
            return None
        if any(digest is None or kept != present for *_, digest, kept, present in found):
            return None
        days = tuple(
            (DayCount(day, read, loaded, rejected), digest) for day, read, loaded, rejected, digest, *_ in found
        )
        if mode is Mode.MIRROR and any(int(present.split()[0]) != day[2] for *day, _, _, present in found):
            return None
        return Loaded(days, state[0], state[1])

    def remember(self, digests: Digests, report: LoadReport, *, new: bool) -> None:
        """Write down what this load read, where that differs; `new` if it wrote every row of the window.

        A day that is read when it is over is whole. What was asked for of these days has been done.
        """
        given = [digests.of(day.day).digest(self.signature) for day in report.days]
        self._file("remember", days=[day.day for day in report.days], digests=given, new=new)
        self._file(
            "remember_undated", undated=report.undated, digest=digests.of(None).digest(self.signature)
        )  # fmt: skip

    def done(self) -> None:
        """The window was read, and nothing in it had changed: what was asked for of its days has been done."""
        self._file("remember_read")

    def report(self, loaded: Loaded, digests: Digests, mode: Mode) -> LoadReport:
        """The report of a load that had nothing to do."""
        reasons = dict(self._file("known_reasons").fetchall())
        days = tuple(day for day, _ in loaded.days)
        elsewhere = digests.documents - sum(day.read for day in days) - loaded.undated
        return LoadReport(
            *self._window, mode, days, digests.documents, loaded.undated, max(0, elsewhere), 0, 0, 0, 0, 0, 0, 0, 0,
            reasons, "digest", 0.0,
        )  # fmt: skip

    def _file(self, name: str, **given: Any) -> Any:
        text = (files("hub.loading") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
        return self._connection.execute(self._stream.sql(text), {**self._bounds, **given})
