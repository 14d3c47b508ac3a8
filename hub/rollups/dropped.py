"""Raw rows that retention has dropped: how far they are gone is remembered, so that no refresh takes their buckets along."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from hub.rollups.model import Count, Rollup
from hub.rollups.policies import current
from hub.timescale.connection import Connection
from hub.timescale.level import Level


def dropped_before(connection: Connection, rollup: Rollup, level: Level) -> dt.datetime | None:
    """The time before which raw rows of a rollup may be gone; None where none ever were.

    What the retention policy may have dropped by now is written down: it stays true when the policy is changed or lifted.
    """
    if rollup.parent:
        return None
    if level.continuous_aggregates and (policy := current(connection, rollup.table, "policy_retention")):
        connection.execute(
            "UPDATE rollup_state SET dropped_before = greatest(dropped_before, now() - %s) WHERE rollup = %s",
            (policy["drop_after"], rollup.name),
        )
    row = connection.execute("SELECT dropped_before FROM rollup_state WHERE rollup = %s", (rollup.name,)).fetchone()
    return row[0] if row else None


def remember(connection: Connection, rollups: Sequence[Rollup], level: Level) -> None:
    """Write down how far the raw rows of each rollup may be gone, before the policies change."""
    for rollup in rollups:
        dropped_before(connection, rollup, level)


def would_lose(connection: Connection, rollup: Rollup, buckets: Iterable[dt.datetime]) -> set[dt.datetime]:
    """Those of the buckets that hold more events than there are raw rows for them."""
    some = sorted(buckets)
    if not some:
        return set()
    count = next(measure.name for measure in rollup.measures if isinstance(measure, Count) and measure.of is None)
    end = some[-1] + dt.timedelta(seconds=rollup.seconds)
    fresh = rollup.select(time_bucket=False, where=f"{rollup.time} >= %(start)s AND {rollup.time} < %(end)s")
    rows = connection.execute(
        f"SELECT DISTINCT bucket FROM {rollup.name} AS kept LEFT JOIN ({fresh}) AS fresh"
        f" USING ({', '.join(('bucket', *rollup.dimensions))})"
        f" WHERE kept.bucket >= %(start)s AND kept.bucket < %(end)s AND kept.bucket = ANY(%(buckets)s)"
        f" AND kept.{count} > coalesce(fresh.{count}, 0)",
        {"start": some[0], "end": end, "buckets": some},
    )
    return {bucket for (bucket,) in rows}
