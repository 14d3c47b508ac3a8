"""Is everything as it should be? Each finding names a thing, says how it is, and what to do if that is wrong."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from hub import mongo
from hub.errors import HubError
from hub.instance.state import stuck, switched_off
from hub.mongo import Documents
from hub.rollups.declared import ROLLUPS
from hub.settings import Settings
from hub.streams.declared import streams
from hub.streams.model import Stream
from hub.timescale import connection as postgres
from hub.timescale.audit import complaints
from hub.timescale.connection import Connection, connect
from hub.timescale.level import Level, detect, timescale_version
from hub.timescale.schema import current_revision, newest_revision

# Below this a load or a backup is likely to fail half-way.
MIN_FREE_BYTES = 2 * 2**30
MIN_POSTGRES = 150_000
_SHOWN = 4
_TABLES = ("reading_analytics", "reading_rejects", "reading_days", "rollup_dirty", "rollup_state")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor. `remedy` is empty when all is well."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings as they are made. Never raises for what it examines."""
    yield Finding("settings", True, "all set and well-formed")
    for stream in streams(settings):
        yield from _guarded("MongoDB", functools.partial(_mongo, settings, stream))
    yield from _guarded("PostgreSQL", lambda: _postgres(settings))
    yield from _guarded("Dagster instance", lambda: _dagster(settings))
    yield _disk(settings.hub_data_dir)
    yield _folder(settings.backup_dir)


def _guarded(name: str, findings: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from findings()
    except HubError as error:
        sentence, _, remedy = str(error).rpartition(". ")
        yield Finding(name, False, sentence or remedy, remedy)


def _mongo(settings: Settings, stream: Stream) -> Iterator[Finding]:
    with mongo.collection(settings, stream, patience_seconds=3) as documents:
        documents.database.client.admin.command("ping")
        yield Finding("MongoDB", True, f"{mongo.where(settings, stream)} answers")
        if why := mongo.missing(documents):
            yield Finding("collection", False, why, "set what your application writes to, or `hub seed` for samples")
            return
        documents.find_one({}, {"_id": 1})
        yield Finding("collection", True, f"about {documents.estimated_document_count():,} documents, readable")
        yield _time_index(stream, documents)


def _time_index(stream: Stream, documents: Documents) -> Finding:
    field = stream.time_fields[0]
    indexed = {next(iter(index["key"])) for index in documents.list_indexes()}
    if field in indexed:
        return Finding("time index", True, f"an index begins with {field}")
    return Finding(
        "time index", False, f"no index of the collection begins with {field}: every load, and every count of the ledger, scans all of it",
        f'in mongosh: db.{documents.name}.createIndex({{"{field}": 1}})',
    )  # fmt: skip


def _postgres(settings: Settings) -> Iterator[Finding]:
    with connect(settings) as connection:
        version = connection.info.server_version
        text = f"{postgres.where(settings)}, version {version // 10000}.{version % 10000}"
        remedy = "" if version >= MIN_POSTGRES else "use PostgreSQL 15 or newer"
        yield Finding("PostgreSQL", not remedy, text, remedy)
        level = detect(connection)
        extension = timescale_version(connection)
        yield Finding("level", True, f"{level.value}: {level.title}{f', {extension}' if extension else ''}")
        revision, newest = current_revision(connection), newest_revision()
        if revision != newest:
            yield Finding("schema", False, f"revision {revision or 'none'}, {newest} is needed", "run `hub db upgrade`")
            return
        yield Finding("schema", True, f"revision {revision}")
        yield _roles(connection, settings) if settings.with_roles else _rights(connection, settings)
        yield _rollups(connection, level)


def _rights(connection: Connection, settings: Settings) -> Finding:
    rows = connection.execute(
        "SELECT name, right_ FROM unnest(%s::text[]) AS name,"
        " unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS right_"
        " WHERE NOT has_table_privilege(name, right_)",
        (list(_TABLES),),
    ).fetchall()
    if not rows:
        return Finding("role", True, f"{settings.db_user} may read and write every table of the hub")
    lacking = ", ".join(f"{right} on {table}" for table, right in rows)
    return Finding("role", False, f"{settings.db_user} lacks {lacking}", f"as the owner: GRANT … TO {settings.db_user}")


def _roles(connection: Connection, settings: Settings) -> Finding:
    found = list(complaints(connection, settings))
    if not found:
        return Finding("roles", True, f"{settings.owner} owns, {settings.db_user} writes, the others only read")
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    remedies = dict.fromkeys(remedy for _, remedy in found)
    return Finding(
        "roles", False, "; ".join(what for what, _ in found[:_SHOWN]) + more, ", then ".join(sorted(remedies))
    )


def _rollups(connection: Connection, level: Level) -> Finding:
    missing = [
        rollup.name
        for rollup in ROLLUPS
        if connection.execute("SELECT to_regclass(%s)", (rollup.name,)).fetchone() == (None,)
    ]
    if missing:
        return Finding("rollups", False, f"missing: {', '.join(missing)}", "run `hub db upgrade`")
    kind = "continuous aggregates" if level.continuous_aggregates else "tables"
    return Finding("rollups", True, f"{', '.join(rollup.name for rollup in ROLLUPS)} ({kind})")


def _dagster(settings: Settings) -> Iterator[Finding]:
    home = os.environ.get("DAGSTER_HOME")
    if not home or not (Path(home) / "dagster.yaml").exists():
        yield Finding(
            "Dagster instance", False, f"DAGSTER_HOME {home or 'is not set'} has no dagster.yaml",
            "start Dagster by `make dev` or `hub run …`, or set DAGSTER_HOME to the folder of dagster.yaml",
        )  # fmt: skip
        return
    with connect(settings.as_dagster()) as connection:
        found = connection.execute("SELECT to_regclass('runs')").fetchone()
        used = found != (None,)
        off = switched_off(connection) if used else []
        # On Kubernetes it is a run's pod that tells.
        dead = stuck(connection, signs="KUBERNETES_SERVICE_HOST" not in os.environ) if used else []
    detail = "in use" if used else "empty; the first run makes its tables"
    yield Finding("Dagster instance", True, f"{home}, database {settings.dagster_db_name!r} ({detail})")
    if used:
        yield Finding(
            "automation", not off, f"switched off: {', '.join(off)}" if off else "every schedule and sensor is on",
            "switch it on in Dagster, under Automation" if off else "",
        )  # fmt: skip
        yield Finding(
            "runs", not dead, f"stuck: {', '.join(dead)}" if dead else "none is stuck",
            "is the daemon running? It ends them within two minutes; if it does not, terminate them in Dagster" if dead else "",
        )  # fmt: skip


def _disk(folder: Path) -> Finding:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GiB free at {place}"
    return Finding(
        "disk", free >= MIN_FREE_BYTES, text, "" if free >= MIN_FREE_BYTES else "free some space: 2 GiB at least"
    )


def _folder(folder: Path) -> Finding:
    place = folder.absolute()
    if not place.exists():
        parent = next(parent for parent in place.parents if parent.exists())
        writable = os.access(parent, os.W_OK)
        return Finding(
            "backup folder", writable, f"{place} does not exist yet{'; the first backup makes it' if writable else ''}",
            "" if writable else f"make it, or set BACKUP_DIR to a folder that you may write to ({parent} is read-only)",
        )  # fmt: skip
    writable = place.is_dir() and os.access(place, os.W_OK)
    return Finding(
        "backup folder", writable, str(place), "" if writable else "it must be a folder that you may write to"
    )
