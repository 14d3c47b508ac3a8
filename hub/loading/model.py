"""What the converter needs to know, and what it makes: rows, dead letters, counts."""

from __future__ import annotations

import dataclasses
import datetime as dt

from hub.streams.model import Stream

DAY_US = 86_400_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
UNKNOWN = "unknown"


def microseconds(time: dt.datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    delta = time - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


@dataclasses.dataclass(frozen=True)
class Mapping:
    """How documents become rows: field names, and the times that are accepted.

    `first` and `end` are microseconds since 1970: a time outside [first, end) is a dead letter.
    """

    time_fields: tuple[str, ...]
    value_path: tuple[str, ...]
    first: int
    end: int

    @classmethod
    def of(cls, stream: Stream, now: dt.datetime) -> Mapping:
        """The mapping of a stream; times up to the end of the day of `now` (UTC) are accepted."""
        start = dt.datetime.combine(stream.start, dt.time(), dt.UTC)
        tomorrow = dt.datetime.combine(now.astimezone(dt.UTC).date() + dt.timedelta(days=1), dt.time(), dt.UTC)
        value = stream.measures[0].path
        return cls(stream.time_fields, tuple(value.split(".")), microseconds(start), microseconds(tomorrow))


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row of `reading_analytics`. `time` is microseconds since 1970; `payload` and `meta` are JSON text."""

    mongo_id: str
    time: int
    source: str
    event_type: str
    value: float | None
    payload: bytes | None
    meta: bytes | None
    unusable: bool = False
    """Whether the document's number is none that a sum can hold, and `value` is None therefore."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """A dead letter: why a document could not become a row, with its raw BSON."""

    mongo_id: str
    reason: str
    detail: str
    day: dt.date | None
    raw: bytes
