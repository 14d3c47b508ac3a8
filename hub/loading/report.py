"""What a load did, as values."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from hub.streams.model import Mode


@dataclasses.dataclass(frozen=True)
class DayCount:
    """Documents of one UTC day: read = loaded + rejected. `written` are rows of the day that were written or removed."""

    day: dt.date
    read: int
    loaded: int
    rejected: int
    written: int = 0


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What one load of a window of whole days did.

    documents = sum of read over `days` + `undated` + `elsewhere` + `repeated`.
    """

    start: dt.datetime
    end: dt.datetime
    mode: Mode
    days: tuple[DayCount, ...]
    documents: int
    """Documents that came from MongoDB."""
    undated: int
    """Dead letters without a usable time, or with one outside of the window."""
    elsewhere: int
    """Readings of other days, met while looking for times that are not dates."""
    repeated: int
    """Documents that the scan returned twice; the later copy counts."""
    inserted: int
    updated: int
    moved: int
    """Rows that went from another day or time because their document's time changed."""
    deleted: int
    """Rows deleted by `mirror`."""
    rejects_changed: int
    undated_new: int
    """Dead letters of no day that are new, or changed, since the last load."""
    unusable: int
    """Rows whose document has a number that no sum can hold: beyond 1e300, infinite or NaN. Their measure is NULL."""
    reasons: dict[str, int]
    """Dead letters of this load by reason."""
    path: str
    """`copy` straight into an empty window, `merge` of what differs, `digest` where nothing could differ."""
    seconds: float
    not_kept: int = 0
    """Days that were left out, because they are older than what the stream keeps."""

    @classmethod
    def of_nothing(cls, window: tuple[dt.datetime, dt.datetime], mode: Mode, not_kept: int) -> LoadReport:
        """The report of a load that had nothing to read."""
        return cls(*window, mode, (), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, "none", 0.0, not_kept)

    @property
    def loaded(self) -> int:
        return sum(day.loaded for day in self.days)

    @property
    def rejected(self) -> int:
        return sum(day.rejected for day in self.days) + self.undated

    @property
    def changed(self) -> int:
        """Rows written or removed, dead letters included. 0 when nothing had changed."""
        return self.inserted + self.updated + self.moved + self.deleted + self.rejects_changed

    @property
    def rate(self) -> float:
        """Documents per second."""
        return self.documents / self.seconds if self.seconds else 0.0

    def to_metadata(self) -> dict[str, Any]:
        """The report as metadata of an asset."""
        return {
            "documents": self.documents,
            "loaded": self.loaded,
            "rejected": self.rejected,
            "inserted": self.inserted,
            "updated": self.updated,
            "moved": self.moved,
            "deleted": self.deleted,
            "changed": self.changed,
            "repeated": self.repeated,
            "undated": self.undated,
            "undated_new": self.undated_new,
            "unusable_values": self.unusable,
            "days_not_kept": self.not_kept,
            "mode": self.mode.value,
            "path": self.path,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.rate),
        }
