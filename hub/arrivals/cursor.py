"""What a look for arrivals remembers: how far everything is loaded, and which runs are on their way."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterable
from typing import Any

from bson import json_util
from bson.errors import BSONError
from bson.objectid import ObjectId

DayRange = tuple[dt.date, dt.date]
"""First and last day, both included."""

# A range run has three seconds of its own, and reads what lies between its days once more: cheap beside more runs.
MOST_RANGES = 5
_DAY = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Mark:
    """How far everything that came is loaded, by each of the ways in which it can be found.

    None where that way has not begun. `token` is a change stream's resume token, `server` the process that gave
    it, where tokens do not outlive that.
    """

    token: dict[str, Any] | None = None
    server: str | None = None
    identifier: ObjectId | None = None
    updated: dt.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Pending:
    """Runs that were asked for; their success moves the mark."""

    mark: Mark
    ranges: tuple[DayRange, ...]
    at: dt.datetime
    """When they were asked for: the same days can be asked for again with the mark where it was."""

    def run_key(self, stream: str, days: DayRange) -> str:
        return f"{stream}:{self.at:%Y-%m-%dT%H:%M:%S.%f}:{days[0]}:{days[1]}"


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Everything up to `mark` is loaded. With `pending`, runs are on their way for what comes after it.

    `said` is why changes are not found by a change stream, so that it is said once.
    """

    mark: Mark = Mark()
    pending: Pending | None = None
    failures: int = 0
    not_before: dt.datetime | None = None
    asked_at: dt.datetime | None = None
    looked_at: dt.datetime | None = None
    said: str = ""

    def to_json(self) -> str:
        data = dataclasses.asdict(self)
        if self.pending:
            data["pending"]["ranges"] = [[str(first), str(last)] for first, last in self.pending.ranges]
        return json_util.dumps(data, json_options=json_util.CANONICAL_JSON_OPTIONS)

    @classmethod
    def from_json(cls, text: str | None) -> Cursor:
        """The cursor in `text`; one that begins now where there is none or it is unreadable.

        The first version's cursor knew ObjectIds only: `done`, and what was pending is asked for again.
        """
        try:
            data = json_util.loads(text or "{}", json_options=_AWARE)
            if "done" in data:
                return cls(Mark(identifier=ObjectId(data["done"])))
            mark, held = data.pop("mark", {}), data.pop("pending", None)
            pending = held and Pending(
                Mark(**held["mark"]),
                tuple((dt.date.fromisoformat(a), dt.date.fromisoformat(b)) for a, b in held["ranges"]),
                held["at"],
            )
            return cls(Mark(**mark), pending or None, **data)
        except (BSONError, ValueError, TypeError, KeyError, AttributeError):
            return cls()


_AWARE = json_util.JSONOptions(tz_aware=True, tzinfo=dt.UTC)


def few_ranges(days: Iterable[dt.date], most: int = MOST_RANGES) -> tuple[DayRange, ...]:
    """The days as at most `most` ranges, in order; where there would be more, the smallest gaps are closed."""
    found: list[DayRange] = []
    for day in sorted(set(days)):
        if found and found[-1][1] + _DAY == day:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    if len(found) <= most:
        return tuple(found)
    gaps = sorted(range(1, len(found)), key=lambda nth: found[nth][0] - found[nth - 1][1])
    cuts = [0, *sorted(gaps[len(found) - most :]), len(found)]
    return tuple((found[begin][0], found[end - 1][1]) for begin, end in itertools.pairwise(cuts))
