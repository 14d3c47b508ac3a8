"""Take a backup: databases, roles and volumes into one folder that appears when it is complete."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from hub.backups import shared
from hub.backups.books import mark_lost
from hub.backups.digests import digest
from hub.backups.dump import Progress, Report, dump, dump_roles
from hub.backups.model import FORMAT, Backup, DatabasePart, FileEntry, Manifest, VolumePart
from hub.backups.store import Store, explained
from hub.backups.volumes import archive
from hub.errors import HubError, SchemaError
from hub.settings import Settings
from hub.timescale.connection import connect

# A new backup is expected to need what the last one did and this much more.
_GROWTH = 1.3
_MIN_FREE = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What goes into a backup. `volumes` are folders."""

    databases: bool = True
    volumes: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings, volumes_of: Sequence[Path] = ()) -> Wanted:
        """Everything that the settings name, and the folders `volumes_of`."""
        named = [Path(folder) for folder in settings.backup_volumes]
        return cls(True, tuple(dict.fromkeys([*named, *volumes_of])))


def take(
    settings: Settings,
    wanted: Wanted,
    *,
    report: Report = lambda progress: None,
    clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Backup:
    """Take one backup and return it, complete and not yet verified.

    Raises RefusedError while another one is being taken, HubError for everything else; then nothing was
    kept, and earlier backups are as they were.
    """
    store, settings = Store(settings.backup_dir), settings.as_admin()
    with store.lock("a backup"):
        mark_lost(settings)
        began, started = clock(), time.monotonic()
        sequence = store.next_sequence(began)
        with explained(store.folder), store.partial(began) as (name, folder):
            _need_space(store)
            notes: list[str] = []
            databases = _databases(settings, folder, notes, report) if wanted.databases else ()
            volumes, archived = _volumes(wanted.volumes, folder, report)
            known = {entry.path: entry for entry in archived}
            files = tuple(describe(folder, known))
            once = shared.share(store, folder, files)
            if once.problem and not shared.said(store.backups()[0]):
                notes.append(once.problem)
            roles = "roles.sql" if (folder / "roles.sql").exists() else None
            manifest = Manifest(
                FORMAT, name, sequence, began, round(time.monotonic() - started, 3), version("reading-hub"),
                databases, volumes, roles, tuple(notes), files,
            )  # fmt: skip
            return store.publish(folder, manifest)


def _databases(settings: Settings, folder: Path, notes: list[str], report: Report) -> tuple[DatabasePart, ...]:
    place = folder / "databases"
    place.mkdir()
    parts = [dump(settings, place, jobs=settings.backup_jobs, report=report)]
    instance = settings.as_dagster()
    if instance.db_name != settings.db_name:
        if _exists(instance):
            parts.append(dump(instance, place, jobs=1, report=report))
        else:
            notes.append(f"there is no database {instance.db_name!r} (DAGSTER_DB_NAME) on the server")
    report(Progress("dumping roles"))
    if note := dump_roles(settings, folder / "roles.sql"):
        notes.append(note)
    return tuple(parts)


def _exists(settings: Settings) -> bool:
    with contextlib.suppress(SchemaError), connect(settings):
        return True
    return False


def _volumes(folders: Sequence[Path], folder: Path, report: Report) -> tuple[tuple[VolumePart, ...], list[FileEntry]]:
    parts, files = [], []
    names = [source.absolute().name for source in folders]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise HubError(
            f"two volumes are named {', '.join(sorted(doubled))}: a backup keeps them by their folders' names"
        )
    for name, source in zip(names, folders, strict=True):
        (folder / "volumes").mkdir(exist_ok=True)
        file = f"volumes/{name}.tar.zst"

        def said(done: int, name: str = name) -> None:
            report(Progress(f"archiving {name}", done))

        part, entry = archive(source.absolute(), folder / file, name=name, file=file, report=said)
        parts.append(part)
        files.append(entry)
    return tuple(parts), files


def _need_space(store: Store) -> None:
    """Refuse what is bound to fail half-way."""
    backups, _ = store.backups()
    need = max(_MIN_FREE, int(backups[-1].manifest.bytes * _GROWTH) if backups else 0)
    free = shutil.disk_usage(store.folder).free
    if free < need:
        raise HubError(
            f"no space: {free / 2**20:,.0f} MiB are free in {store.folder}, about {need / 2**20:,.0f} MiB are needed."
            " `hub backup prune` removes what retention allows; or set BACKUP_DIR to another disk."
        )


def describe(folder: Path, known: dict[str, FileEntry] | None = None) -> list[FileEntry]:
    """Path, size and SHA-256 of every file below `folder`, two at a time; `known` ones are not read again."""
    known = known or {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with concurrent.futures.ThreadPoolExecutor(2) as pool:

        def one(path: Path) -> FileEntry:
            relative = path.relative_to(folder).as_posix()
            return known.get(relative) or FileEntry(relative, *digest(path))

        return list(pool.map(one, paths))
