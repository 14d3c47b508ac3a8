"""Backups: taken, read back, copied elsewhere, restored as a drill, and rotated."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.engine import OWNERS, HubResource, table
from hub.backups import routine
from hub.backups.dump import Progress, Report
from hub.backups.model import Backup, State
from hub.backups.run import Wanted
from hub.backups.store import Store
from hub.settings import Settings

DATABASE = dg.AssetKey("database_backup")
VOLUMES = dg.AssetKey("volume_backups")
_PROGRESS_SECONDS = 5
_COMMON = {"group_name": "backups", "owners": OWNERS}


def _progress(context: dg.AssetExecutionContext) -> Report:
    """Progress in the run's log, every few seconds."""
    said = 0.0

    def report(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            context.log.info(str(progress))

    return report


@dg.multi_asset(
    name="take_backup",
    specs=[
        dg.AssetSpec(
            DATABASE,
            kinds={"postgres", "timescaledb"},
            description="The reading database, Dagster's own and the roles, each dumped under one snapshot.",
            **_COMMON,
        ),
        dg.AssetSpec(
            VOLUMES,
            kinds={"zstd"},
            description="The folders of BACKUP_VOLUMES as tar.zst, archived while they are in use.",
            **_COMMON,
        ),
    ],
    can_subset=True,
)
def take_backup(context: dg.AssetExecutionContext, hub: HubResource) -> Iterator[dg.MaterializeResult]:
    """One folder for both: it appears under its name when all of it is there."""
    keys = context.selected_asset_keys
    with hub.clear_failures():
        settings = hub.settings()
        volumes = Wanted.of(settings).volumes if VOLUMES in keys else ()
        backup = routine.run_backup(settings, Wanted(DATABASE in keys, volumes), report=_progress(context))
    context.log.info(f"backup {backup.name}: {backup.manifest.rows:,} rows, {backup.manifest.bytes:,} bytes")
    for flaw in backup.manifest.flaws:
        context.log.error(flaw)
    if DATABASE in keys:
        yield dg.MaterializeResult(asset_key=DATABASE, metadata=_database_metadata(settings, backup))
    if VOLUMES in keys:
        yield dg.MaterializeResult(asset_key=VOLUMES, metadata=_volume_metadata(settings, backup))


@dg.asset(
    deps=[DATABASE, VOLUMES],
    kinds={"file"},
    description="The newest backup read back: every byte, every dump and archive by the tool that would restore it.",
    **_COMMON,
)
def backup_verification(context: dg.AssetExecutionContext, hub: HubResource) -> dg.MaterializeResult:
    with hub.clear_failures():
        name, result = routine.run_verify(hub.settings(), report=_progress(context))
    if not result.ok:
        raise dg.Failure(f"backup {name} is damaged: {'; '.join(result.problems)}", allow_retries=False)
    return dg.MaterializeResult(
        metadata={"backup": name, "bytes": result.bytes, "seconds": result.seconds, "problems": len(result.problems)}
    )


@dg.asset(
    deps=[backup_verification],
    kinds={"file"},
    description="The newest verified backup copied to BACKUP_URL, if that is set, and read back there.",
    **_COMMON,
)
def offsite_backup(context: dg.AssetExecutionContext, hub: HubResource) -> dg.MaterializeResult:
    with hub.clear_failures():
        settings = hub.settings()
        if settings.backup_url is None:
            return dg.MaterializeResult(metadata={"note": "BACKUP_URL is not set: there is no copy elsewhere"})
        done = routine.run_upload(settings, report=_progress(context))
    return dg.MaterializeResult(
        metadata={
            "backup": done.name,
            "files": done.files,
            "sent": done.sent,
            "bytes": done.bytes,
            "seconds": done.seconds,
            "removed": list(done.removed),
        }
    )


@dg.asset(
    deps=[backup_verification],
    kinds={"postgres", "timescaledb"},
    description="The newest verified backup restored into a scratch database, compared with its manifest, and dropped.",
    **_COMMON,
)
def restore_drill(context: dg.AssetExecutionContext, hub: HubResource) -> dg.MaterializeResult:
    with hub.clear_failures():
        name, result = routine.run_drill(hub.settings(), report=_progress(context))
    if not result.ok:
        raise dg.Failure(f"backup {name} does not restore: {'; '.join(result.differences)}", allow_retries=False)
    return dg.MaterializeResult(
        metadata={"backup": name, "rows": result.rows, "seconds": result.seconds, "databases": list(result.databases)}
    )


@dg.asset(
    deps=[backup_verification],
    kinds={"file"},
    description="Backups that the rules BACKUP_KEEP_* do not keep are removed; the newest verified one never is.",
    **_COMMON,
)
def backup_retention(hub: HubResource) -> dg.MaterializeResult:
    with hub.clear_failures():
        done = routine.run_prune(hub.settings())
    kept: list[tuple[object, ...]] = [(name, ", ".join(reasons)) for name, reasons in done.plan.keep.items()]
    return dg.MaterializeResult(
        metadata={
            "kept": table(("backup", "because"), kept),
            "removed": list(done.removed),
            "in_use": list(done.busy),
            "bytes_freed": done.bytes,
        }
    )


@dg.asset_check(asset=DATABASE, description="The newest backup holds every database and file that it should.")
def complete(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures():
        store, backup = _newest(hub.settings())
    folder = store.path(backup.name)
    lacking = [
        entry.path
        for entry in backup.manifest.files
        if not (folder / entry.path).is_file() or (folder / entry.path).stat().st_size != entry.bytes
    ]
    flaws = list(backup.manifest.flaws)
    return dg.AssetCheckResult(
        passed=bool(backup.manifest.databases) and not lacking and not flaws,
        metadata={"backup": backup.name, "missing": lacking, "flaws": flaws},
    )


@dg.asset_check(asset=DATABASE, description="The databases have not become smaller by more than half.")
def size_not_fallen(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures():
        backups, _ = Store(hub.settings().backup_dir).backups()
    sizes = [
        (backup.name, sum(part.bytes_live for part in backup.manifest.databases), backup.manifest.rows)
        for backup in backups
        if backup.manifest.databases
    ][-2:]
    fallen = len(sizes) == 2 and (sizes[1][1] * 2 < sizes[0][1] or sizes[1][2] * 2 < sizes[0][2])
    return dg.AssetCheckResult(
        passed=not fallen, metadata={"sizes": table(("backup", "bytes", "rows"), [tuple(size) for size in sizes])}
    )


@dg.asset_check(asset=backup_verification, description="Every byte of the newest backup is as it was written.")
def checksums(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures():
        _, backup = _newest(hub.settings())
    found = backup.verification
    return dg.AssetCheckResult(
        passed=backup.state is State.VERIFIED,
        metadata={"backup": backup.name, "problems": list(found.problems) if found else ["not verified"]},
    )


@dg.asset_check(asset=backup_verification, description="The newest verified backup is younger than BACKUP_STALE_HOURS.")
def fresh_backup(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures():
        found = routine.freshness(hub.settings())
    hours = round(found.age / dt.timedelta(hours=1), 1) if found.age is not None else None
    return dg.AssetCheckResult(
        passed=found.problem is None,
        description=found.problem,
        metadata={"backup": found.name or "none", "age_hours": hours},
    )


@dg.asset_check(asset=restore_drill, description="The backup of the last drill restored exactly as it was taken.")
def restorable(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures():
        backups, _ = Store(hub.settings().backup_dir).backups()
    drills = [(backup.name, backup.drill) for backup in backups if backup.drill]
    name, newest = max(drills, key=lambda one: one[1].at, default=("none", None))
    return dg.AssetCheckResult(
        passed=newest is not None and newest.ok,
        metadata={"backup": name, "differences": list(newest.differences) if newest else ["no drill yet"]},
    )


ASSETS = [take_backup, backup_verification, offsite_backup, restore_drill, backup_retention]
CHECKS = [complete, size_not_fallen, checksums, fresh_backup, restorable]


def _newest(settings: Settings) -> tuple[Store, Backup]:
    store = Store(settings.backup_dir)
    backups, _ = store.backups()
    return store, backups[-1] if backups else store.find()


def _path(settings: Settings, backup: Backup) -> dg.MetadataValue:
    return dg.MetadataValue.path(str(Path(settings.backup_dir).absolute() / backup.name))


def _database_metadata(settings: Settings, backup: Backup) -> dict[str, object]:
    manifest = backup.manifest
    sizes = [entry.bytes for entry in manifest.files if entry.path.startswith("databases/")]
    live = sum(part.bytes_live for part in manifest.databases)
    rows: list[tuple[object, ...]] = [
        (part.name, name, f"{count:,}")
        for part in manifest.databases
        for name, count in part.facts.tables.items()
        if count
    ]
    return {
        "backup": backup.name,
        "path": _path(settings, backup),
        "bytes": sum(sizes),
        "bytes_live": live,
        "ratio": round(live / sum(sizes), 2) if sum(sizes) else 0.0,
        "seconds": manifest.seconds,
        "dagster/row_count": manifest.rows,
        "rows": table(("database", "table", "rows"), rows),
        "notes": list(manifest.notes),
    }


def _volume_metadata(settings: Settings, backup: Backup) -> dict[str, object]:
    sizes = {entry.path: entry.bytes for entry in backup.manifest.files}
    volumes: list[tuple[object, ...]] = [
        (part.name, part.entries, part.bytes_live, sizes[part.file], len(part.sqlite), len(part.oddities))
        for part in backup.manifest.volumes
    ]
    return {
        "backup": backup.name,
        "path": _path(settings, backup),
        "bytes": sum(sizes[part.file] for part in backup.manifest.volumes),
        "volumes": table(("volume", "entries", "bytes", "compressed", "SQLite files", "odd files"), volumes),
    }
