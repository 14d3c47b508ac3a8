"""Files that are stored once: equal ones of several backups are one file with several names (hard links)."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from hub.backups.digests import Digest, Inode, Readings, inode
from hub.backups.model import Backup, FileEntry, State, Verification
from hub.backups.store import Store
from hub.errors import HubError

# No links here at all (another file system, FAT, some network file systems, files of another user).
_UNABLE = frozenset({errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
# Not this one: it has as many names as the file system allows, or was removed at that moment.
_NOT_THIS = frozenset({errno.EMLINK, errno.ENOENT})
_CATALOG = re.compile(r"databases/[^/]+/toc\.dat(\.\w+)?")
_NO_LINKS = "files that earlier backups hold are stored again in each"
_LINK = ".link"
# An equal file is looked for in so many places, each read to its end before it is trusted.
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Shared:
    """What was shared: files and bytes that earlier backups hold; why none could be, or nothing."""

    files: int
    bytes: int
    problem: str = ""


def share(store: Store, folder: Path, files: Sequence[FileEntry]) -> Shared:
    """Give each file below `folder` that a backup holds already that file's inode; call under the lock.

    What is shared was read from the disk just before: where it is not what the manifest says, every backup
    that holds it is marked as damaged, and the file that was just written stays. It stays, too, where there
    are no hard links. Killed at any moment, each file is the one or the other, whole.
    """
    backups, _ = store.backups()
    places: dict[Digest, list[Path]] = defaultdict(list)
    wanted = {(entry.bytes, entry.sha256) for entry in files}
    for backup in reversed(backups):
        for entry in backup.manifest.files:
            if (entry.bytes, entry.sha256) in wanted:
                places[entry.bytes, entry.sha256].append(store.path(backup.name) / entry.path)
    readings, count, size, problem = Readings(), 0, 0, ""
    for entry in files:
        want = (entry.bytes, entry.sha256)
        place = _sound(places.get(want, ()), want, readings)
        if place is None:
            continue
        try:
            _link(place, folder / entry.path)
        except OSError as error:
            if error.errno in _NOT_THIS:
                continue
            if error.errno not in _UNABLE:
                raise
            problem = f"{_NO_LINKS}, because they cannot be linked here ({error.strerror})"
            break
        count, size = count + 1, size + entry.bytes
    mark(store, backups, readings)
    return Shared(count, size, problem)


def said(backups: Sequence[Backup]) -> bool:
    """Whether one of these backups says already that nothing can be linked."""
    return any(note.startswith(_NO_LINKS) for backup in backups for note in backup.manifest.notes)


def _sound(places: Sequence[Path], want: Digest, readings: Readings) -> Path | None:
    """The first of the places that holds what it should."""
    tried: set[Inode] = set()
    for place in places:
        with contextlib.suppress(OSError):
            found = place.lstat()
            if not stat.S_ISREG(found.st_mode) or inode(found) in tried:
                continue
            tried.add(inode(found))
            if readings.of(place) == want:
                return place
            if len(tried) == _TRIES:
                break
    return None


def _link(place: Path, path: Path) -> None:
    beside = path.with_name(_LINK)
    beside.unlink(missing_ok=True)
    os.link(place, beside, follow_symlinks=False)
    os.replace(beside, path)


def mark(store: Store, backups: Sequence[Backup], readings: Readings) -> tuple[str, ...]:
    """Record as damaged each of `backups` that holds a file which was read and is not what it should be."""
    marked = []
    for backup in backups:
        problems = _problems(store, backup, readings)
        if problems and backup.state is not State.DAMAGED:
            result = Verification(backup.manifest_sha256, dt.datetime.now(dt.UTC), 0.0, 0, tuple(problems))
            with contextlib.suppress(HubError):  # removed meanwhile
                store.record(backup.name, result)
                marked.append(backup.name)
    return tuple(marked)


def _problems(store: Store, backup: Backup, readings: Readings) -> list[str]:
    found = []
    for entry in backup.manifest.files:
        path = store.path(backup.name) / entry.path
        with contextlib.suppress(OSError):
            read = readings.digests.get(inode(path.lstat()))
            if read is not None and read != (entry.bytes, entry.sha256):
                found.append(f"{entry.path} is damaged, as it is in every backup that shares the file")
    return found


@dataclasses.dataclass(frozen=True)
class Holdings:
    """Who holds what: size and names of backups by file."""

    files: dict[Inode, tuple[int, frozenset[str]]]

    @classmethod
    def of(cls, store: Store) -> Holdings:
        """Look at every file of every backup; nothing is read."""
        sizes: dict[Inode, int] = {}
        names: dict[Inode, set[str]] = defaultdict(set)
        for name in store.names():
            for place, _, files in os.walk(store.path(name)):
                for file in files:
                    with contextlib.suppress(OSError):
                        found = os.lstat(os.path.join(place, file))
                        sizes[inode(found)] = found.st_size
                        names[inode(found)].add(name)
        return cls({which: (size, frozenset(names[which])) for which, size in sizes.items()})

    def alone(self, names: Collection[str]) -> int:
        """Bytes that no backup but these holds: what their removal would free."""
        some = frozenset(names)
        return sum(size for size, holders in self.files.values() if holders <= some)

    def by_kind(self, store: Store, name: str) -> dict[str, int]:
        """The bytes that this backup alone holds, by what they are."""
        found: dict[str, int] = defaultdict(int)
        folder = store.path(name)
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                size, holders = self.files.get(inode(path.lstat()), (0, frozenset()))
                if holders == {name}:
                    found[kind(path.relative_to(folder).as_posix())] += size
        return dict(found)

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


def kind(path: str) -> str:
    """What a file of a backup is: the catalog of a database, its data, a volume, roles, or the records."""
    first, _, rest = path.partition("/")
    if first == "databases":
        return f"{rest.partition('/')[0]}: {'catalog' if _CATALOG.fullmatch(path) else 'rows'}"
    if first == "volumes":
        return f"volume {rest.partition('/')[0].removesuffix('.tar.zst')}"
    return "roles" if path == "roles.sql" else "manifest and records"
