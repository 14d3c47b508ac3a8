"""Decide which runs to ask for. Pure but for the two functions that it is given."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable

from hub.arrivals.cursor import Cursor, DayRange, Mark, Pending, few_ranges

_BACKOFF_LIMIT = dt.timedelta(hours=1)


class RunState(enum.Enum):
    """What became of a requested run."""

    SUCCEEDED = "succeeded"
    UNDERWAY = "underway"
    FAILED = "failed"
    """Failed, cancelled, or gone."""


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """What one look found: the days to load, and how far it looked.

    `gap` says that something may have come unseen, so that the ledger has to be asked; `note` why
    there is no change stream. `gone` counts deletions.
    """

    mark: Mark
    days: frozenset[dt.date] = frozenset()
    documents: int = 0
    gap: bool = False
    note: str = ""
    gone: int = 0


@dataclasses.dataclass(frozen=True)
class Decision:
    """The runs to ask for now, by run key, the cursor to keep, and why nothing is asked for.

    `ledger` is the run key under which the ledger is to be asked, '' where it need not be; `failed` are ranges whose runs
    failed.
    """

    requests: dict[str, DayRange]
    cursor: Cursor
    reason: str = ""
    ledger: str = ""
    failed: tuple[DayRange, ...] = ()
    note: str = ""


def decide(
    stream: str,
    cursor: Cursor,
    now: dt.datetime,
    pause: dt.timedelta,
    state_of: Callable[[str], RunState],
    look: Callable[[Cursor], Arrivals],
) -> Decision:
    """One look: `state_of` tells what became of a run key, `look` finds what arrived after a cursor's mark.

    The mark moves only once every run that was asked for has succeeded. After a failure the same days are asked
    for again, after one `pause`, two, four, and so on up to an hour. Runs are asked for at most once in a pause.
    """
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as the cursor keeps it
    if cursor.pending:
        keys = [cursor.pending.run_key(stream, days) for days in cursor.pending.ranges]
        states = [state_of(key) for key in keys]
        if RunState.UNDERWAY in states:
            return Decision({}, cursor, "waiting for the runs that load what was found")
        if RunState.FAILED in states:
            failures = cursor.failures + 1
            wait = min(pause * 2 ** min(failures - 1, 10), _BACKOFF_LIMIT)
            waiting = dataclasses.replace(cursor, pending=None, failures=failures, not_before=now + wait)
            failed = cursor.pending.ranges
            return Decision({}, waiting, f"a run failed; the same days are asked for again in {wait}", failed=failed)
        cursor = dataclasses.replace(cursor, mark=cursor.pending.mark, pending=None, failures=0, not_before=None)
    if cursor.not_before and now < cursor.not_before:
        return Decision({}, cursor, f"a run failed; waiting until {cursor.not_before:%H:%M:%S} UTC")
    if cursor.asked_at and now < cursor.asked_at + pause:
        # Kept before it is looked for: the mark has moved, and what was pending must not be asked about again.
        return Decision({}, cursor, f"runs were asked for at {cursor.asked_at:%H:%M:%S} UTC; one in {pause}")
    if cursor.said and cursor.looked_at and now < cursor.looked_at + pause:
        return Decision(
            {}, cursor, f"looked at {cursor.looked_at:%H:%M:%S} UTC, without a change stream: once in {pause}"
        )
    found = look(cursor)
    note = found.note if found.note != cursor.said else ""
    ledger = f"{stream}:ledger:{now:%Y-%m-%dT%H:%M:%S}" if found.gap else ""
    cursor = dataclasses.replace(cursor, said=found.note, looked_at=now)
    if not found.days:
        moved = dataclasses.replace(cursor, mark=found.mark)
        gone = f"; {found.gone:,} documents were deleted, which changes nothing here" if found.gone else ""
        return Decision({}, moved, f"nothing new{gone}", ledger, note=note)
    pending = Pending(found.mark, few_ranges(found.days), now)
    requests = {pending.run_key(stream, days): days for days in pending.ranges}
    asked = dataclasses.replace(cursor, pending=pending, asked_at=now)
    return Decision(requests, asked, "", ledger, note=note)
