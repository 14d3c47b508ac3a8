"""How each rollup stands: size, watermark, lag, last refresh, policies."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

from hub.rollups.model import Rollup
from hub.rollups.policies import current
from hub.rollups.refresh import window_of
from hub.timescale.connection import Connection
from hub.timescale.level import Level, detect
from hub.timescale.newest import newest


@dataclasses.dataclass(frozen=True)
class RollupStatus:
    """One rollup. Everything before `watermark` is materialized; `lag` is how far the source is ahead of it."""

    name: str
    level: Level
    rows: int
    bytes: int
    watermark: dt.datetime | None
    lag: dt.timedelta
    dirty: int
    """Buckets that wait for a refresh."""
    refreshed_at: dt.datetime | None
    policies: dict[str, str]

    def to_metadata(self) -> dict[str, Any]:
        """The status as metadata of an asset."""
        return {
            "dagster/row_count": self.rows,
            "bytes": self.bytes,
            "watermark": self.watermark.isoformat() if self.watermark else "none",
            "lag_hours": round(self.lag / dt.timedelta(hours=1), 2),
            "buckets_waiting": self.dirty,
            "level": self.level.title,
            "policies": ", ".join(f"{name}: {text}" for name, text in self.policies.items()) or "none",
        }


def status(connection: Connection, rollups: Sequence[Rollup]) -> list[RollupStatus]:
    """The status of each rollup. Raises psycopg's errors, UndefinedTable before the first upgrade."""
    level = detect(connection)
    return [_one(connection, rollup, level) for rollup in rollups]


def rows_by_day(connection: Connection, rollup: Rollup, start: dt.date, end: dt.date) -> dict[dt.date, int]:
    """Rows of the rollup whose buckets begin on each UTC day from `start` up to, but not including, `end`."""
    rows = connection.execute(
        f"SELECT (bucket AT TIME ZONE 'UTC')::date, count(*) FROM {rollup.name} WHERE bucket >= %s AND bucket < %s GROUP BY 1",
        window_of(start, end),
    )
    return dict(rows.fetchall())


def _one(connection: Connection, rollup: Rollup, level: Level) -> RollupStatus:
    def scalar(statement: str, *parameters: object) -> Any:
        row = connection.execute(statement, parameters or None).fetchone()
        return row[0] if row else None

    rows = scalar(f"SELECT count(*) FROM {rollup.name}")
    last = newest(connection, rollup.source, rollup.time)
    if level.continuous_aggregates:
        hypertable = scalar(
            "SELECT format('%%I.%%I', materialization_hypertable_schema, materialization_hypertable_name)"
            " FROM timescaledb_information.continuous_aggregates WHERE view_name = %s",
            rollup.name,
        )
        size = scalar("SELECT hypertable_size(%s::regclass)", hypertable)
        policies = _policies(connection, rollup)
    else:
        size = scalar("SELECT pg_total_relation_size(%s::regclass)", rollup.name)
        policies = {}
    watermark = scalar("SELECT rollup_watermark(%s, %s)", rollup.name, dt.timedelta(seconds=rollup.seconds))
    lag = max(last - watermark, dt.timedelta()) if last and watermark else dt.timedelta()
    dirty = scalar("SELECT count(DISTINCT bucket) FROM rollup_dirty WHERE rollup = %s", rollup.name)
    refreshed = scalar("SELECT refreshed_at FROM rollup_state WHERE rollup = %s", rollup.name)
    return RollupStatus(rollup.name, level, rows, size, watermark, lag, dirty, refreshed, policies)


def _policies(connection: Connection, rollup: Rollup) -> dict[str, str]:
    found = {}
    for title, procedure in (
        ("refresh", "policy_refresh_continuous_aggregate"),
        ("columnstore", "policy_compression"),
        ("retention", "policy_retention"),
    ):
        intervals = current(connection, rollup.name, procedure)
        if intervals is not None:
            found[title] = ", ".join(f"{name} {length}" for name, length in intervals.items())
    return found
