"""Make the database hold the declared rollups: create what is missing, rebuild what was declared anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

from hub.errors import RefusedError
from hub.rollups.model import Rollup, digest
from hub.timescale.connection import Connection
from hub.timescale.level import Level


def apply(connection: Connection, rollups: Sequence[Rollup], level: Level) -> list[str]:
    """Create or rebuild what differs from the declarations, in one transaction; return the names.

    A rebuilt rollup is empty until its next refresh, which `rollup_dirty` asks for: all of its buckets
    that have source rows are marked. No raw row is ever touched. Raises RefusedError where a rebuild
    would lose buckets whose raw rows are gone.
    """
    with connection.transaction():
        have: dict[str, str] = dict(connection.execute("SELECT rollup, signature FROM rollup_state").fetchall())
        stale = [rollup for rollup in rollups if have.get(rollup.name) != rollup.signature]
        views = _views()
        stale_views = bool(stale) or have.get("views") != digest(views)
        if stale_views:
            _drop_views(connection)
        for rollup in stale:
            if rollup.name in have:
                _refuse_loss(connection, rollup)
        # Whatever stands on a stale rollup has a different signature too: drop from the top.
        for rollup in reversed(stale):
            kind = "MATERIALIZED VIEW" if level.continuous_aggregates else "TABLE"
            connection.execute(f"DROP {kind} IF EXISTS {rollup.name}")
        for rollup in stale:
            connection.execute(_create(rollup, level))
            _note(connection, rollup.name, rollup.signature)
            if rollup.parent not in stale:  # otherwise the parent's refresh marks it
                connection.execute(_mark_everything(rollup))
        if stale_views:
            connection.execute(views)
            _note(connection, "views", digest(views))
    return [rollup.name for rollup in stale]


def _refuse_loss(connection: Connection, rollup: Rollup) -> None:
    row = connection.execute(
        f"SELECT (SELECT min(bucket) FROM {rollup.name}), (SELECT min({rollup.time}) FROM {rollup.source}),"
        " (SELECT dropped_before FROM rollup_state WHERE rollup = %s)",
        (rollup.name,),
    ).fetchone()
    oldest, raw, gone = row or (None, None, None)
    if oldest is not None and (raw is None or rollup.floor(raw) > oldest or (gone and oldest < gone)):
        raise RefusedError(
            f"the declaration of {rollup.name} has changed, but its buckets from {oldest:%Y-%m-%d} on cannot be built"
            f" anew: {rollup.source} begins at {f'{max(raw, gone or raw):%Y-%m-%d}' if raw else 'nothing'}. Give the"
            " changed rollup another name and keep this one as it was declared."
        )


def _create(rollup: Rollup, level: Level) -> str:
    if level.continuous_aggregates:
        return (
            f"CREATE MATERIALIZED VIEW {rollup.name}"
            " WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false)"
            f" AS {rollup.select(time_bucket=True)} WITH NO DATA"
        )
    dimensions = "".join(f", {name} text NOT NULL" for name in rollup.dimensions)
    measures = "".join(f", {measure.name} {measure.type}" for measure in rollup.measures)
    key = ", ".join(("bucket", *rollup.dimensions))
    return f"CREATE TABLE {rollup.name} (bucket timestamptz NOT NULL{dimensions}{measures}, PRIMARY KEY ({key}))"


def _mark_everything(rollup: Rollup) -> str:
    return (
        f"INSERT INTO rollup_dirty (rollup, bucket)"
        f" SELECT DISTINCT '{rollup.name}', {rollup.bucket_sql(time_bucket=False)} FROM {rollup.source}"
    )


def _views() -> str:
    return (files("hub.rollups") / "sql" / "views.sql").read_text(encoding="utf-8")


def _note(connection: Connection, name: str, signature: str) -> None:
    connection.execute(
        "INSERT INTO rollup_state (rollup, signature) VALUES (%s, %s)"
        " ON CONFLICT (rollup) DO UPDATE SET signature = excluded.signature, refreshed_at = NULL",
        (name, signature),
    )


def view_names() -> list[str]:
    """The views that stand on the rollups."""
    return [name for kind, name in _views_and_functions() if kind == "VIEW"]


def function_names() -> list[str]:
    """The functions that stand on the rollups."""
    return [name for kind, name in _views_and_functions() if kind == "FUNCTION"]


def _views_and_functions() -> list[tuple[str, str]]:
    """Kind and name of each view and function, in the order in which they are made."""
    return re.findall(r"^CREATE (VIEW|FUNCTION) (\w+)", _views(), re.MULTILINE)


def _drop_views(connection: Connection) -> None:
    """The views and functions hold nothing and are made again; some stand on others."""
    for kind, name in reversed(_views_and_functions()):
        connection.execute(f"DROP {kind} IF EXISTS {name}")
