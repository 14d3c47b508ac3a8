"""Make the database hold the declared rollups: create what is missing, rebuild what was declared anew."""

from __future__ import annotations

from collections.abc import Sequence

from hub.rollups.model import Rollup
from hub.timescale.connection import Connection
from hub.timescale.level import Level


def apply(connection: Connection, rollups: Sequence[Rollup], level: Level) -> list[str]:
    """Create or rebuild what differs from the declarations, in one transaction; return the names.

    A rebuilt rollup is empty until its next refresh, which `rollup_dirty` asks for: all of its buckets
    that have source rows are marked. No raw row is ever touched.
    """
    with connection.transaction():
        have = dict(connection.execute("SELECT rollup, signature FROM rollup_state").fetchall())
        stale = [rollup for rollup in rollups if have.get(rollup.name) != rollup.signature]
        # Whatever stands on a stale rollup has a different signature too: drop from the top.
        for rollup in reversed(stale):
            kind = "MATERIALIZED VIEW" if level.continuous_aggregates else "TABLE"
            connection.execute(f"DROP {kind} IF EXISTS {rollup.name}")  # type: ignore[arg-type]
        for rollup in stale:
            for statement in _create(rollup, level):
                connection.execute(statement)  # type: ignore[arg-type]
            connection.execute(
                "INSERT INTO rollup_state (rollup, signature) VALUES (%s, %s)"
                " ON CONFLICT (rollup) DO UPDATE SET signature = excluded.signature, refreshed_at = NULL",
                (rollup.name, rollup.signature),
            )
            if rollup.parent not in stale:  # otherwise the parent's refresh marks it
                connection.execute(_mark_everything(rollup))  # type: ignore[arg-type]
    return [rollup.name for rollup in stale]


def _create(rollup: Rollup, level: Level) -> list[str]:
    if level.continuous_aggregates:
        return [
            f"CREATE MATERIALIZED VIEW {rollup.name}"
            " WITH (timescaledb.continuous, timescaledb.materialized_only = false)"
            f" AS {rollup.select(time_bucket=True)} WITH NO DATA"
        ]
    dimensions = "".join(f", {name} text NOT NULL" for name in rollup.dimensions)
    measures = "".join(f", {measure.name} {measure.type}" for measure in rollup.measures)
    key = ", ".join(("bucket", *rollup.dimensions))
    return [f"CREATE TABLE {rollup.name} (bucket timestamptz NOT NULL{dimensions}{measures}, PRIMARY KEY ({key}))"]


def _mark_everything(rollup: Rollup) -> str:
    return (
        f"INSERT INTO rollup_dirty (rollup, bucket)"
        f" SELECT DISTINCT '{rollup.name}', {rollup.bucket_sql(time_bucket=False)} FROM {rollup.source}"
    )
