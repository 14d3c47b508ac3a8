"""The ledger: what MongoDB holds of each day beside what was read of it, for all of history.

Where MongoDB holds more than the newest load of a day read, that day is asked for. Fewer is normal: TTL indexes
take documents away, and the hub keeps their rows. Equal counts do not prove which documents they are; that is the
sweep's part, which marks days as changed here.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from importlib.resources import files
from typing import Any

from hub.arrivals.count import Counted, count
from hub.loading.model import Mapping
from hub.mongo import collection
from hub.settings import Settings
from hub.streams.model import Stream
from hub.timescale.connection import Connection, connect

# How long documents of today and yesterday may be on their way before that is told as a fault.
ARRIVING = dt.timedelta(minutes=15)
# A day whose run changed nothing about what is missing is asked for again after this.
_ASK_AGAIN = dt.timedelta(hours=1)
_KEEP_RUNS = dt.timedelta(days=400)


@dataclasses.dataclass(frozen=True)
class Day:
    """One UTC day. `read`, `loaded`, `rejected` are the newest load's; `least` is the least that was there since."""

    day: dt.date
    documents: int
    read: int
    loaded: int
    rejected: int
    least: int
    changed: bool
    since: dt.datetime | None
    """Since when documents have been missing."""
    asked_at: dt.datetime | None

    @property
    def missing(self) -> int:
        """Documents that are in MongoDB and were not read."""
        return max(0, self.documents - self.least)

    @property
    def forgotten(self) -> int:
        """Documents that were read, and are in MongoDB no more."""
        return max(0, self.read - self.documents)


@dataclasses.dataclass(frozen=True)
class Ledger:
    """A stream's ledger. `days` are all those that MongoDB or the hub knows of, in order."""

    stream: str
    at: dt.datetime
    days: tuple[Day, ...]
    undated: int
    """Documents of no day, as MongoDB counts them."""
    undated_read: int
    undated_changed: bool
    dead_letters: int
    """All of the stream's dead letters, dated or not."""
    expired: int
    """Documents that are older than what the stream keeps."""
    recent_sweep_at: dt.datetime | None
    full_sweep_at: dt.datetime | None
    seconds: float

    @property
    def documents(self) -> int:
        return sum(day.documents for day in self.days) + self.undated + self.expired

    @property
    def missing_undated(self) -> int:
        return max(0, self.undated - self.undated_read)

    @property
    def missing(self) -> int:
        """Documents that are in MongoDB and were not read."""
        return sum(day.missing for day in self.days) + self.missing_undated

    @property
    def wrong(self) -> tuple[Day, ...]:
        """Days of which something is missing or changed."""
        return tuple(day for day in self.days if day.missing or day.changed)

    def overdue(self) -> tuple[Day, ...]:
        """Those of the wrong days whose documents are not simply on their way: they just came, and are of these days."""
        recent = self.at.date() - dt.timedelta(days=1)
        return tuple(
            day
            for day in self.wrong
            if day.changed or day.day < recent or day.since is None or self.at - day.since > ARRIVING
        )

    @property
    def complete(self) -> bool:
        return not self.wrong and not self.missing_undated and not self.undated_changed

    def between(self, first: dt.date | None, last: dt.date | None) -> Ledger:
        """The same for the days of a range only, both included; what has no day stays."""
        days = (day for day in self.days if (first or day.day) <= day.day <= (last or day.day))
        return dataclasses.replace(self, days=tuple(days))

    def to_dict(self) -> dict[str, Any]:
        """The ledger as JSON types: totals, and the days of which something is missing, changed or forgotten."""
        return {
            "stream": self.stream,
            "counted_at": self.at.isoformat(timespec="seconds"),
            "complete": self.complete,
            "documents": self.documents,
            "missing": self.missing,
            "undated": self.undated,
            "undated_read": self.undated_read,
            "undated_changed": self.undated_changed,
            "dead_letters": self.dead_letters,
            "expired": self.expired,
            "recent_sweep_at": self.recent_sweep_at and self.recent_sweep_at.isoformat(timespec="seconds"),
            "full_sweep_at": self.full_sweep_at and self.full_sweep_at.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "days": [
                {
                    "day": str(day.day), "documents": day.documents, "read": day.read, "loaded": day.loaded,
                    "rejected": day.rejected, "missing": day.missing, "forgotten": day.forgotten, "changed": day.changed,
                }
                for day in self.days
                if day.missing or day.changed or day.forgotten
            ],
        }  # fmt: skip


def update(settings: Settings, stream: Stream) -> Ledger:
    """Have MongoDB count, write that down, and compare. Raises HubError for the servers."""
    began, now = time.monotonic(), dt.datetime.now(dt.UTC)
    mapping = Mapping.of(stream, now)
    with collection(settings, stream) as documents:
        counted = count(documents, mapping)
    with connect(settings) as connection:
        expired = _write(connection, stream, counted, now)
        ledger = dataclasses.replace(
            read(connection, stream), at=now, expired=expired, seconds=time.monotonic() - began
        )
        connection.execute(
            "INSERT INTO ledger_runs (stream, counted_at, documents, undated, missing, missing_days, changed_days, seconds)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                stream.name, now, ledger.documents, ledger.undated, ledger.missing,
                sum(day.missing > 0 for day in ledger.days), sum(day.changed for day in ledger.days), ledger.seconds,
            ),
        )  # fmt: skip
        connection.execute(
            "DELETE FROM ledger_runs WHERE stream = %s AND counted_at < %s", (stream.name, now - _KEEP_RUNS)
        )
    return ledger


def _write(connection: Connection, stream: Stream, counted: Counted, began: dt.datetime) -> int:
    """Write the counts down where they differ; return how many documents are older than what is kept."""
    kept = stream.oldest_kept(began)
    first = kept.date() if kept else dt.date.min
    days = {day: number for day, number in counted.days.items() if day >= first}
    connection.execute(f"DELETE FROM {stream.ledger} WHERE day < %s", (max(first, stream.start),))
    connection.execute(
        _sql(stream, "ledger_write"),
        {"days": list(days), "counts": list(days.values()), "first": first, "began": began},
    )
    connection.execute(
        "INSERT INTO stream_state AS old (stream, undated, ledger_at) VALUES (%s, %s, %s)"
        " ON CONFLICT (stream) DO UPDATE SET undated = excluded.undated, ledger_at = excluded.ledger_at",
        (stream.name, counted.undated, began),
    )
    return sum(counted.days.values()) - sum(days.values())


def read(connection: Connection, stream: Stream) -> Ledger:
    """The ledger as it was last counted."""
    days = tuple(Day(*row) for row in connection.execute(_sql(stream, "ledger_read")))
    state = connection.execute(
        "SELECT undated, undated_read, undated_changed, ledger_at, recent_sweep_at, full_sweep_at FROM stream_state WHERE stream = %s",
        (stream.name,),
    ).fetchone()
    undated, undated_read, changed, at, recent, full = state or (0, 0, False, None, None, None)
    letters = connection.execute(f"SELECT count(*) FROM {stream.rejects}").fetchone()
    return Ledger(
        stream.name, at or dt.datetime.now(dt.UTC), days, undated, undated_read, changed, letters[0] if letters else 0,
        0, recent, full, 0.0,
    )  # fmt: skip


def wanted(connection: Connection, stream: Stream, now: dt.datetime) -> frozenset[dt.date]:
    """The days to ask for: something is missing or changed, and they were not asked for since, or a while ago."""
    rows = connection.execute(
        _sql(stream, "ledger_wanted"),
        {"stream": stream.name, "before": now - _ASK_AGAIN, "today": now.astimezone(dt.UTC).date()},
    )
    return frozenset(day for (day,) in rows)


def mark_asked(connection: Connection, stream: Stream, first: dt.date, last: dt.date, at: dt.datetime | None) -> None:
    """Note when a run was asked for that loads these days; None takes it back, for one that failed."""
    connection.execute(
        f"UPDATE {stream.ledger} SET asked_at = %s WHERE day BETWEEN %s AND %s AND (documents > least OR changed)",
        (at, first, last),
    )
    connection.execute(
        "UPDATE stream_state SET undated_asked_at = %s WHERE stream = %s AND (undated > undated_read OR undated_changed)",
        (at, stream.name),
    )


def _sql(stream: Stream, name: str) -> str:
    return stream.sql((files("hub.arrivals") / "sql" / f"{name}.sql").read_text(encoding="utf-8"))
