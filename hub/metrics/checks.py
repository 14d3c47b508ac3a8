"""What should hold of host metrics, asked of the database."""

from __future__ import annotations

import dataclasses
import datetime as dt

from hub.metrics.rollups import SYSTEM_METRICS_5M
from hub.rollups.model import Rollup
from hub.timescale.connection import Connection


@dataclasses.dataclass(frozen=True)
class HostState:
    """How far the samples of one host go. `kinds` are those of its newest sample."""

    host: str
    newest: dt.datetime
    kinds: tuple[str, ...]


def hosts(connection: Connection, since: dt.datetime) -> list[HostState]:
    """Every host with a sample at or after `since`, by name."""
    rows = connection.execute(
        "SELECT host, time, array_agg(metric_type ORDER BY metric_type) FROM system_metrics"
        " JOIN (SELECT host, max(time) AS time FROM system_metrics WHERE time >= %s GROUP BY host) AS newest"
        " USING (host, time) WHERE time >= %s GROUP BY host, time ORDER BY host",
        (since, since),
    )
    return [HostState(host, newest, tuple(kinds)) for host, newest, kinds in rows]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Samples of a window in the raw table and in a rollup."""

    raw: int
    rolled: int


def counts(connection: Connection, rollup: Rollup, start: dt.date, end: dt.date) -> Counts:
    """Samples of the UTC days from `start` up to `end`, raw and rolled up, in one snapshot.

    Buckets that are still marked dirty count on neither side: the next refresh is for them.
    """
    row = connection.execute(
        f"""
        WITH dirty AS (
            SELECT DISTINCT {_floor("bucket", rollup)} AS bucket FROM rollup_dirty
            WHERE rollup IN ('{SYSTEM_METRICS_5M.name}', '{rollup.name}')
        )
        SELECT
            (SELECT count(*) FROM system_metrics
             WHERE time >= %(start)s::date::timestamptz AND time < %(end)s::date::timestamptz
               AND {_floor("time", rollup)} NOT IN (SELECT bucket FROM dirty)),
            (SELECT coalesce(sum(samples), 0)::bigint FROM {rollup.name}
             WHERE bucket >= %(start)s::date::timestamptz AND bucket < %(end)s::date::timestamptz
               AND bucket NOT IN (SELECT bucket FROM dirty))
        """,
        {"start": start, "end": end},
    ).fetchone()
    assert row is not None
    return Counts(*row)


def _floor(column: str, rollup: Rollup) -> str:
    return f"date_bin(INTERVAL '{rollup.bucket}', {column}, TIMESTAMPTZ '2000-01-03 00:00:00+00')"
