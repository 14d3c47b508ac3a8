"""Recognize a window of which every document has been loaded as it is now, without converting it again.

Reading the raw documents and hashing them is several times faster than converting and comparing them.
Not noticed are rows that somebody changed by hand without touching `ingested_at`; `thorough` loads
compare every row.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Generator, Iterable
from typing import Any

from psycopg.types.json import Jsonb

from hub.loading.model import Mapping
from hub.loading.report import DayCount, LoadReport
from hub.streams.model import Mode
from hub.timescale.connection import Connection

# Raise it whenever the converter makes other rows of the same documents.
CONVERTER = 1

# Rows of the window, dead letters that belong to it or to no day, books of its days: how many, written when.
# Without the times, a dead letter in place of another, or books that a load of one of the days has kept
# since, would pass for the state after the last load.
_PRESENT = """
SELECT format('%%s %%s %%s %%s',
    ({rows}),
    (SELECT format('%%s %%s', count(*), coalesce(sum(extract(epoch FROM rejected_at)), 0)) FROM reading_rejects
     WHERE event_day IS NULL OR event_day >= %(start)s::date AND event_day < %(end)s::date),
    count(*), coalesce(sum(extract(epoch FROM load_at)), 0))
FROM reading_days WHERE day >= %(start)s::date AND day < %(end)s::date
"""
_ROWS = """
SELECT format('%%s %%s', count(*), coalesce(sum(extract(epoch FROM ingested_at)), 0)) FROM reading_analytics
WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s
"""
# The same where all rows of the window were written by this transaction.
_NEW_ROWS = "SELECT format('%%s %%s', %(rows)s::bigint, %(rows)s::bigint * extract(epoch FROM now()))"


class Digest:
    """A running digest of a scan."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()  # processors have instructions for it: half the time of blake2b

    def watching(self, batches: Iterable[bytes]) -> Generator[bytes, None, None]:
        """The same batches; each goes into the digest."""
        for batch in batches:
            self._hash.update(batch)
            yield batch

    def value(self) -> bytes:
        return self._hash.digest()


class Known:
    """What is known of one window, in the transaction of its load."""

    def __init__(self, connection: Connection, window: tuple[dt.datetime, dt.datetime], mapping: Mapping) -> None:
        self._connection = connection
        self._window = window
        self._mapping = mapping
        self._bounds = {"start": window[0], "end": window[1]}

    def recall(self, mode: Mode) -> tuple[bytes, LoadReport] | None:
        """Digest and report of the last load, if the tables still are as it left them and it decided alike."""
        row = self._connection.execute(
            "SELECT mapping, digest, present, report FROM reading_windows"
            " WHERE first_day = %(start)s::date AND end_day = %(end)s::date",
            self._bounds,
        ).fetchone()
        if row is None or row[2] != self._present():
            return None
        report = self._report(row[3], mode)
        if row[0] != self._signature(report):
            return None
        if mode is Mode.MIRROR and int(row[2].split()[0]) != report.loaded:
            return None
        return row[1], report

    def remember(self, digest: bytes, report: LoadReport, *, new: bool) -> None:
        """Write down what this load read and what it came to; `new` if it wrote every row of the window."""
        kept = {name: getattr(report, name) for name in ("documents", "undated", "elsewhere", "repeated", "reasons")}
        kept["days"] = [[str(day.day), day.read, day.loaded, day.rejected] for day in report.days]
        self._connection.execute(
            "INSERT INTO reading_windows AS old (first_day, end_day, mapping, digest, present, report)"
            " VALUES (%(start)s::date, %(end)s::date, %(mapping)s, %(digest)s, %(present)s, %(report)s)"
            " ON CONFLICT (first_day, end_day) DO UPDATE SET mapping = excluded.mapping, digest = excluded.digest,"
            " present = excluded.present, report = excluded.report, load_at = excluded.load_at"
            " WHERE (old.mapping, old.digest, old.present, old.report)"
            " IS DISTINCT FROM (excluded.mapping, excluded.digest, excluded.present, excluded.report)",
            {
                **self._bounds,
                "mapping": self._signature(report),
                "digest": digest,
                "present": self._present(report.loaded if new and report.loaded else None),
                "report": Jsonb(kept),
            },
        )

    def _present(self, new_rows: int | None = None) -> str:
        present = _PRESENT.format(rows=_ROWS if new_rows is None else _NEW_ROWS)
        row = self._connection.execute(present, {**self._bounds, "rows": new_rows}).fetchone()
        assert row is not None
        return str(row[0])

    def _signature(self, report: LoadReport) -> str:
        """All that the rows depend on beside the documents."""
        mapping = dataclasses.asdict(self._mapping)
        if "time_in_future" not in report.reasons:
            del mapping["end"]  # it moves every day, and decides over documents of the future only
        return json.dumps([CONVERTER, mapping], sort_keys=True)

    def _report(self, kept: dict[str, Any], mode: Mode) -> LoadReport:
        days = tuple(DayCount(dt.date.fromisoformat(day), *counts) for day, *counts in kept["days"])
        return LoadReport(
            *self._window, mode, days, kept["documents"], kept["undated"], kept["elsewhere"], kept["repeated"],
            0, 0, 0, 0, 0, kept["reasons"], "digest", 0.0,
        )  # fmt: skip
