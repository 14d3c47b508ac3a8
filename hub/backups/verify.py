"""Read a backup back: every byte against the manifest, every dump and archive by the tool that would restore it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from hub.backups import catalog, shared, tools
from hub.backups.digests import Readings, inode
from hub.backups.dump import Progress, Report
from hub.backups.model import Backup, DatabasePart, FileEntry, State, Verification
from hub.backups.sealed import DamagedError
from hub.backups.store import Store, is_record
from hub.backups.volumes import count
from hub.errors import HubError
from hub.settings import Settings

_DATA = re.compile(r"^\d+; \d+ \d+ TABLE DATA (?P<schema>\S+) (?P<name>.+) \S+$", re.MULTILINE)


def verify(
    settings: Settings,
    name: str = "latest",
    *,
    expected_sha256: str | None = None,
    report: Report = lambda progress: None,
    readings: Readings | None = None,
) -> Verification:
    """Read backup `name` from its first to its last byte, and keep the result inside it.

    `latest` is the newest one, verified or not. `expected_sha256` is the manifest's digest from the books,
    for whoever could forge a seal too. Problems are part of the result; raises HubError only when there is
    nothing to look at, or when the result cannot be kept. `readings` are of backups before this one: what
    they share is not read again. Damage to a file that other backups share is recorded in each of them.
    """
    readings = Readings() if readings is None else readings
    store = Store(settings.backup_dir)
    backup = newest(store) if name == "latest" else store.read(name)
    with store.reading(backup.name) as folder:
        result = examine(backup, folder, expected_sha256=expected_sha256, report=report, readings=readings)
        store.record(backup.name, result)
    if not result.ok:
        others = [one for one in store.backups()[0] if one.name != backup.name]
        result = dataclasses.replace(result, also=shared.mark(store, others, readings))
    return result


def newest(store: Store) -> Backup:
    """The newest complete backup, whatever its state. Raises HubError when there is none."""
    backups, bad = store.backups()
    if bad and (not backups or max(bad) > backups[-1].name):
        raise DamagedError(f"the newest backup {max(bad)} is no good: {bad[max(bad)]}. Take a new one.")
    return backups[-1] if backups else store.find()


def examine(
    backup: Backup,
    folder: Path,
    *,
    expected_sha256: str | None = None,
    report: Report = lambda progress: None,
    readings: Readings | None = None,
) -> Verification:
    """What `verify` does, for a folder that may be anywhere and without keeping the result."""
    readings = Readings() if readings is None else readings
    began, started = dt.datetime.now(dt.UTC), time.monotonic()
    problems = []
    if expected_sha256 is not None and expected_sha256 != backup.manifest_sha256:
        problems.append("the manifest is not the one that was written when this backup was taken (see backup_runs)")
    problems += _files(backup, folder, report, readings)
    if not problems:
        for part in backup.manifest.databases:
            problems += _guarded(lambda part=part: _dump_is_readable(folder, part))  # type: ignore[misc]
        for volume in backup.manifest.volumes:
            report(Progress(f"reading {volume.file}"))
            entries = _guarded(lambda volume=volume: _archive_is_whole(folder / volume.file, volume.entries, readings))  # type: ignore[misc]
            problems += entries
    seconds = round(time.monotonic() - started, 3)
    return Verification(backup.manifest_sha256, began, seconds, backup.manifest.bytes, tuple(problems))


def _guarded(look: Callable[[], list[str]]) -> list[str]:
    try:
        return look()
    except HubError as error:
        return [str(error)]


def _files(backup: Backup, folder: Path, report: Report, readings: Readings) -> list[str]:
    listed = {entry.path: entry for entry in backup.manifest.files}
    there = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    strangers = sorted(name for name in there - listed.keys() if not is_record(name))
    problems = [f"{name} is not in the manifest" for name in strangers]
    done = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for entry, problem in zip(
            listed.values(), pool.map(lambda entry: _file(folder, entry, readings), listed.values()), strict=True
        ):
            done += entry.bytes
            report(Progress("reading back", done))
            if problem:
                problems.append(problem)
    return problems


def _file(folder: Path, entry: FileEntry, readings: Readings) -> str:
    path = folder / entry.path
    if entry.path.startswith("/") or ".." in Path(entry.path).parts or path.is_symlink():
        return f"{entry.path} is no path inside of a backup"
    try:
        size, sha256 = readings.of(path)
    except OSError as error:
        return f"{entry.path} cannot be read ({error.strerror})"
    if size != entry.bytes:
        return f"{entry.path} has {size:,} bytes in place of {entry.bytes:,}"
    return "" if sha256 == entry.sha256 else f"{entry.path} has been changed (its SHA-256 differs)"


def contents(folder: Path, part: DatabasePart) -> str:
    """The table of contents of a dump, as `pg_restore --list` prints it. Raises HubError when it cannot be read."""
    pg_restore = restorer(part)
    done = subprocess.run(
        [pg_restore.path, "--list", folder / part.folder],
        capture_output=True, text=True, errors="replace", env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
    )  # fmt: skip
    unknown = part.codec == "zstd" and catalog.missed(folder / part.folder, done.stderr)
    if unknown or "does not support compression" in done.stderr or "no data will be available" in done.stderr:
        raise HubError(
            f"{pg_restore.path} ({pg_restore.version}) was built without {part.codec}, which {part.folder} is compressed"
            f" with: install postgresql-client-{part.tool.split('.')[0]} of your distribution. Nothing was touched."
        )
    if done.returncode:
        raise HubError(f"pg_restore cannot read {part.folder}: {done.stderr.strip()[-500:]}. Use another backup.")
    return done.stdout


def restorer(part: DatabasePart) -> tools.Tool:
    """The pg_restore for a dump. Raises HubError when there is none that is new enough."""
    major = int(re.split(r"\D", part.tool, maxsplit=1)[0])
    return tools.find("pg_restore", at_least=major, because=f"{part.name} was dumped by pg_dump {part.tool}")


def _dump_is_readable(folder: Path, part: DatabasePart) -> list[str]:
    """The table of contents lists data for each table that has rows, and the file of each is there."""
    listed = {f"{entry['schema']}.{entry['name']}" for entry in _DATA.finditer(contents(folder, part))}
    plain = {
        name.replace('"', "") for name in part.facts.tables if part.facts.tables[name] and name not in part.facts.chunks
    }
    return [f"{part.folder} lists no data of {name}" for name in sorted(plain - listed)]


def _archive_is_whole(path: Path, entries: int, readings: Readings) -> list[str]:
    which = inode(path.stat())
    if which not in readings.entries:
        readings.entries[which] = count(path)
    found = readings.entries[which]
    return [] if found == entries else [f"{path.name} holds {found:,} entries in place of {entries:,}"]


def newest_verified(store: Store, now: dt.datetime) -> Backup | None:
    """The newest verified backup that is not dated in the future (a clock that jumped), None if there is none."""
    backups, _ = store.backups()
    tolerance = now + dt.timedelta(minutes=10)
    trusted = [one for one in backups if one.state is State.VERIFIED and one.manifest.created_at <= tolerance]
    return max(trusted, key=lambda one: one.manifest.created_at, default=None)
