"""Restore a backup: verify, look ahead, restore beside, compare, and only then take the live one's place."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hub.backups import preflight
from hub.backups.dump import Progress, Report
from hub.backups.load import create, databases, drop, load, of_kind, release_jobs, scratch_name
from hub.backups.model import Backup, DatabasePart, Verification
from hub.backups.store import Store
from hub.backups.swap import Swap, swap
from hub.backups.tables import TableCopy, copy_tables, refuse_unknown
from hub.backups.verify import examine
from hub.backups.volumes_back import VolumeBack, put_back
from hub.errors import HubError, RefusedError
from hub.settings import Settings
from hub.timescale.connection import MAINTENANCE, Connection, connect
from hub.timescale.roles import apart, refuse_without_owner, settle

_BESIDE = "restoring"
LOCK = ".restore"


@dataclasses.dataclass(frozen=True)
class Request:
    """What to restore. Nothing set means: the hub's database, in place.

    `database` names one of the backup's databases; `into` leaves the copy beside, under this name, and
    replaces nothing. `tables` are copied from the backup into the live database. `volumes` maps names in
    the backup to folders; with volumes alone no database is touched.
    """

    backup: str = "latest"
    database: str | None = None
    into: str | None = None
    tables: tuple[str, ...] = ()
    volumes: dict[str, Path] = dataclasses.field(default_factory=dict)
    with_database: bool = True


@dataclasses.dataclass(frozen=True)
class Planned:
    """What a restore will do, in words, after everything that can be checked beforehand has been."""

    backup: Backup
    part: DatabasePart | None
    target: str | None
    replaces: bool
    steps: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RestoreReport:
    """What a restore has done."""

    backup: str
    seconds: float
    rows: int
    swap: Swap | None
    tables: tuple[TableCopy, ...]
    volumes: tuple[VolumeBack, ...]
    roles: tuple[str, ...]
    remarks: tuple[str, ...]


def prepare(settings: Settings, request: Request, *, report: Report = lambda progress: None) -> Planned:
    """Verify the backup and check all that can be checked, touching nothing. Raises HubError, RefusedError."""
    store, settings = Store(settings.backup_dir), settings.as_admin()
    backup = store.find(request.backup)
    with store.reading(backup.name) as folder:
        verified = examine(backup, folder, report=report)
        _refuse_damaged(backup, verified)
        steps: list[str] = []
        part = target = None
        remarks: list[str] = []
        replaces = False
        if request.with_database:
            part = choose(backup, request.database or settings.db_name, explicit=request.database is not None)
            target = request.into or (part.name if request.database else settings.db_name)
            remarks += preflight.check(settings, backup, part, folder)
            exists = target in databases(settings)
            if request.into and exists:
                raise RefusedError(f"a database {target!r} exists: choose another name for --into")
            refuse_unknown(part, request.tables)
            steps += _steps(part, target, request, exists)
            replaces = exists and not request.into
        for name, place in request.volumes.items():
            if name not in {volume.name for volume in backup.manifest.volumes}:
                names = ", ".join(volume.name for volume in backup.manifest.volumes) or "none"
                raise RefusedError(f"backup {backup.name} has no volume {name!r}; it has {names}")
            steps.append(f"put the volume {name} back to {place}; what is there is kept beside it")
            replaces = replaces or place.exists()
    return Planned(backup, part, target, replaces, tuple(steps), tuple(remarks))


def _steps(part: DatabasePart, target: str, request: Request, exists: bool) -> list[str]:
    size = (
        f"{part.facts.rows:,} rows, {part.bytes_live / 2**20:,.0f} MiB, as of {part.snapshot_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    steps = [f"restore {part.name} ({size}) beside, under another name; compare it with the manifest"]
    if request.tables:
        steps.append(f"replace the rows of {', '.join(request.tables)} in {target!r} by those of the backup")
    elif request.into:
        steps.append(f"leave it as {target!r}; its jobs stay off")
    elif exists:
        steps.append(f"rename it to {target!r}; the present {target!r} is kept under another name")
    else:
        steps.append(f"rename it to {target!r}; there is no such database yet")
    return steps


def _refuse_damaged(backup: Backup, verified: Verification) -> None:
    if not verified.ok:
        raise RefusedError(
            f"backup {backup.name} is damaged: {'; '.join(verified.problems[:5])}. Nothing was touched; choose another"
            " one with --backup (`hub backup list`)."
        )


def choose(backup: Backup, name: str, *, explicit: bool = True) -> DatabasePart:
    """The database of this name in a backup; unless it was asked for by name, else the first one."""
    for part in backup.manifest.databases:
        if part.name == name:
            return part
    names = ", ".join(part.name for part in backup.manifest.databases)
    if explicit or not names:
        raise RefusedError(f"backup {backup.name} has no database {name!r}; it has {names or 'none'}")
    return backup.manifest.databases[0]


def restore(
    settings: Settings, request: Request, *, planned: Planned | None = None, report: Report = lambda progress: None,
    before_swap: Callable[[], None] = lambda: None,
) -> RestoreReport:  # fmt: skip
    """Carry out a restore. The live database serves until the swap, which is one transaction.

    Killed before the swap, only a copy under another name is left over; the next restore drops it.
    Raises HubError, and then the live database is as it was.
    """
    planned = planned or prepare(settings, request, report=report)
    began, store, admin = time.monotonic(), Store(settings.backup_dir), settings.as_admin()
    swapped: Swap | None = None
    copies: Sequence[TableCopy] = ()
    remarks, roles, rows = list(planned.remarks), [], 0
    with store.lock("a restore", kind=LOCK), store.reading(planned.backup.name) as folder:
        if planned.part and planned.target:
            roles = _roles(settings, planned, folder)
            beside = scratch_name(planned.target, _BESIDE)
            rows = _restore_beside(admin, planned, folder, beside, report)
            try:
                if request.tables:
                    copies = copy_tables(admin, beside, planned.target, request.tables, planned.part)
                else:
                    if not request.into:
                        with connect(admin, database=beside, autocommit=True) as connection:
                            _settle(connection, settings, planned.target)
                            remarks += release_jobs(connection, planned.part) if planned.part.timescaledb else []
                    before_swap()
                    swapped = swap(admin, beside, planned.target)
            finally:
                if swapped is None:
                    drop(admin, beside)
        volumes = [put_back(planned.backup, folder, name, place, report) for name, place in request.volumes.items()]
    return RestoreReport(
        planned.backup.name, round(time.monotonic() - began, 3), rows, swapped, tuple(copies), tuple(volumes),
        tuple(roles), tuple(remarks),
    )  # fmt: skip


def _roles(settings: Settings, planned: Planned, folder: Path) -> list[str]:
    """Create the roles of the backup that are missing; return their names."""
    with connect(settings.as_admin(), database=MAINTENANCE, autocommit=True) as connection:
        made = preflight.create_roles(connection, planned.backup, folder)
        if apart(settings):
            refuse_without_owner(connection, settings)
        return made


def _settle(connection: Connection, settings: Settings, target: str) -> None:
    """Owners and grants as these settings want them: a backup may be older than they are, or of another server."""
    if settings.with_roles and target in (settings.db_name, settings.dagster_db_name):
        settle(connection, settings, of_dagster=target != settings.db_name)


def _restore_beside(settings: Settings, planned: Planned, folder: Path, beside: str, report: Report) -> int:
    """Fill the database `beside`; return its rows. Dropped again unless it equals the manifest."""
    assert planned.part
    assert planned.target
    for left in of_kind(databases(settings), planned.target, _BESIDE):
        drop(settings, left)
    try:
        create(settings, planned.part, beside)
        loaded = load(settings, planned.part, folder, beside, jobs=settings.backup_jobs, report=report)
        if loaded.differences:
            raise HubError(
                f"the restored copy differs from the manifest of {planned.backup.name}: "
                f"{'; '.join(loaded.differences[:5])}. The live database was not touched; choose another backup."
            )
    except BaseException:
        report(Progress("dropping the copy"))
        drop(settings, beside)
        raise
    return loaded.facts.rows
