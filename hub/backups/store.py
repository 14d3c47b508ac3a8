"""The folder of backups: names, the lock, the partial folder, records, pins, and safe removal."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

from hub.backups.model import FORMAT, Backup, DrillRecord, Manifest, Verification
from hub.backups.sealed import DamagedError, seal, sync_folder, sync_tree, unseal, write
from hub.errors import HubError, RefusedError

MANIFEST, VERIFIED, DRILL, PIN = "manifest.json", "verified.json", "drill.json", "pinned"
# What is beside the manifest and is not listed in it; with a dot and a number, a write that was killed.
_RECORDS = re.compile(
    r"(manifest|verified|drill|upload)\.json|pinned|\.(verified\.json|drill\.json|upload\.json|pinned)\.\d+"
)
NAME = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
Record = TypeVar("Record", Verification, DrillRecord)
_PARTIAL, _TRASH = ".partial-", ".trash-"


class BusyError(RefusedError):
    """Another process holds the store; nothing is wrong."""


def is_record(path: str) -> bool:
    """Whether a file, by its path inside a backup, is the hub's own beside the listed ones."""
    return _RECORDS.fullmatch(path) is not None


def stamp(time: dt.datetime) -> str:
    """The name of a backup that began at `time`."""
    return time.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


class Store:
    """The backups in one folder. Reading needs no lock; taking and removing them do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def path(self, name: str) -> Path:
        """The folder of a backup. Raises HubError for what is no backup's name."""
        if not NAME.fullmatch(name):
            raise HubError(f"{name!r} is not the name of a backup: `hub backup list` shows them")
        return self.folder / name

    def names(self) -> list[str]:
        """Names of the backups that are in place, oldest name first, whether they can be read or not."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if NAME.fullmatch(entry.name) and entry.is_dir())

    def backups(self) -> tuple[list[Backup], dict[str, str]]:
        """Backups by sequence, oldest first, and for each name whose manifest is no good the reason."""
        good, bad = [], {}
        for name in self.names():
            try:
                good.append(self.read(name))
            except HubError as error:
                bad[name] = str(error)
        return sorted(good, key=lambda backup: (backup.manifest.sequence, backup.name)), bad

    def read(self, name: str) -> Backup:
        """One backup. Raises DamagedError when its manifest is missing, changed or another backup's."""
        folder = self.path(name)
        try:
            data = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            if not folder.exists():
                raise HubError(f"there is no backup {name} in {self.folder}: `hub backup list` shows them") from None
            raise DamagedError(f"backup {name} has no {MANIFEST}: it cannot be trusted; use another one") from None
        except OSError as error:
            raise HubError(
                f"{folder / MANIFEST} cannot be read ({error.strerror}): check the disk and the rights"
            ) from None
        manifest = unseal(data, Manifest, f"the manifest of backup {name}")
        if manifest.name != name or manifest.format != FORMAT:
            raise DamagedError(f"the manifest in {folder} is of backup {manifest.name}, format {manifest.format}")
        digest = hashlib.sha256(data).hexdigest()
        return Backup(
            name, manifest, digest,
            self._record(folder / VERIFIED, Verification, digest),
            self._record(folder / DRILL, DrillRecord, digest),
            (folder / PIN).exists(),
        )  # fmt: skip

    def find(self, name: str = "latest") -> Backup:
        """The backup of this name; `latest` is the newest verified one, or the newest if none is.

        Raises HubError when there is none.
        """
        if name != "latest":
            return self.read(name)
        backups, bad = self.backups()
        if not backups:
            hint = f"; damaged: {', '.join(bad)}" if bad else ""
            raise HubError(f"there is no usable backup in {self.folder}{hint}. Take one with `hub backup run`.")
        trusted = [backup for backup in backups if backup.verification and backup.verification.ok]
        return (trusted or backups)[-1]

    def record(self, name: str, value: Verification | DrillRecord) -> None:
        """Keep a result inside the backup."""
        place = self.path(name) / (VERIFIED if isinstance(value, Verification) else DRILL)
        with explained(place):
            write(place, seal(value))

    def pin(self, name: str, pinned: bool) -> None:
        """Keep a backup from retention, or let it go again."""
        self.read(name)
        place = self.path(name) / PIN
        with explained(place):
            if pinned:
                write(place, b"")
            else:
                place.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, what: str = "backup", *, kind: str = "") -> Iterator[None]:
        """Hold the store for one taker or remover. Raises BusyError if another process has it.

        The kernel releases the lock when this process ends, in whatever way.
        """
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = (self.folder / f".lock{kind}").open("a+")
        with held:
            if not _flock(held, fcntl.LOCK_EX):
                held.seek(0)
                who = held.read().strip() or "another process"
                raise BusyError(f"{who} is at work on {self.folder}: wait until it is done, then try again")
            with explained(self.folder):
                held.truncate(0)
                held.write(f"{what} (process {os.getpid()}, since {stamp(dt.datetime.now(dt.UTC))})")
                held.flush()
            yield
            held.truncate(0)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """Keep a backup from being removed while the block reads it."""
        folder = self.path(name)
        with (folder / MANIFEST).open("rb") as held:
            _flock(held, fcntl.LOCK_SH)
            yield folder

    @contextlib.contextmanager
    def partial(self, now: dt.datetime) -> Iterator[tuple[str, Path]]:
        """A new name and a folder to fill; it goes when the block fails. Call under the lock."""
        self.sweep()
        first = name = stamp(now)
        number = 1
        while (self.folder / name).exists():
            number += 1
            name = f"{first}-{number}"
        folder = self.folder / f"{_PARTIAL}{name}"
        with explained(folder):
            folder.mkdir(mode=0o700)
        try:
            yield name, folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, manifest: Manifest) -> Backup:
        """Give a filled folder its final name, once everything in it is durable."""
        final = self.path(manifest.name)
        with explained(folder):
            write(folder / MANIFEST, seal(manifest))
            sync_tree(folder)
            os.rename(folder, final)
            sync_folder(self.folder)
        return self.read(manifest.name)

    def adopt(self, folder: Path, name: str) -> None:
        """Give a folder that came from elsewhere, manifest included, its name here."""
        with explained(folder):
            sync_tree(folder)
            os.rename(folder, self.path(name))
            sync_folder(self.folder)

    def next_sequence(self, now: dt.datetime) -> int:
        """A number above that of every backup here, and above those of a lost store: seconds since 1970."""
        backups, _ = self.backups()
        return max([int(now.timestamp()), *(backup.manifest.sequence + 1 for backup in backups)])

    def remove(self, name: str) -> bool:
        """Remove a backup unless something reads it; killed half-way, nothing partial has its name."""
        folder, trash = self.path(name), self.folder / f"{_TRASH}{name}"
        with contextlib.ExitStack() as stack:
            if (folder / MANIFEST).exists():
                held = stack.enter_context((folder / MANIFEST).open("rb"))
                if not _flock(held, fcntl.LOCK_EX):
                    return False
            with explained(folder):
                os.rename(folder, trash)
                sync_folder(self.folder)
                shutil.rmtree(trash)
        return True

    def sweep(self) -> None:
        """Clear away what killed processes left. Call under the lock: nobody else writes then."""
        for entry in self.folder.iterdir():
            if entry.name.startswith((_PARTIAL, _TRASH)):
                shutil.rmtree(entry, ignore_errors=True)

    def _record(self, path: Path, kind: type[Record], digest: str) -> Record | None:
        """A record, None if there is none, it is damaged, or it speaks of another manifest."""
        try:
            value = unseal(path.read_bytes(), kind, path.name)
        except (OSError, DamagedError):
            return None
        return value if value.manifest_sha256 == digest else None


def _flock(file: IO[str] | IO[bytes], operation: int) -> bool:
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def explained(place: Path) -> Iterator[None]:
    """Turn what the file system says into what to do."""
    try:
        yield
    except OSError as error:
        raise explain(error, place) from error


def explain(error: OSError, place: Path) -> HubError:
    """The hub's error for one of the file system."""
    where = error.filename or place
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(
            f"no space left on the disk of {place}. Nothing partial was kept; free some space"
            " (`hub backup prune` removes what retention allows) or set BACKUP_DIR to another disk."
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return HubError(
            f"{where} cannot be written ({error.strerror}):"
            " mount it writable, give this user the right, or set BACKUP_DIR."
        )
    return HubError(f"{where}: {error.strerror or error}. Check the disk, then try again.")
