"""Archive a folder that is in use as one tar.zst stream, and put it back as it was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from hub.backups import sparse, sqlite
from hub.backups.model import FileEntry, Oddity, VolumePart
from hub.errors import HubError

_LEVEL = 3
_CHUNK = 1024 * 1024


class _Sink:
    """Writes to a file, counts and hashes what goes by."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes, self.sha256 = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.file.write(data)
        self.bytes += len(data)
        self.sha256.update(data)
        return len(data)


class _Steady:
    """Reads a file that may shrink or fail: always the announced size, the rest filled with zeros."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left, self.problem = file, size, ""

    def read(self, size: int = -1) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        try:
            data = b"" if self.problem else self.file.read(size)
        except OSError as error:
            self.problem, data = f"could not be read to its end ({error.strerror})", b""
        if len(data) < size:
            self.problem = self.problem or "shrank while it was read; its end is filled with zeros"
            data += bytes(size - len(data))
        self.left -= size
        return data


class _Archiver:
    def __init__(self, source: Path, archive: tarfile.TarFile, scratch: Path, report: Callable[[int], None]) -> None:
        self.source, self.archive, self.scratch, self.report = source, archive, scratch, report
        self.entries, self.bytes = 0, 0
        self.sqlite: list[str] = []
        self.oddities: list[Oddity] = []

    def note(self, path: str, what: str, *, harmless: bool = True) -> None:
        self.oddities.append(Oddity(_printable(path), what, harmless))

    def add(self, path: str, name: str) -> None:
        """Add one entry; what cannot be added is noted."""
        try:
            info = self.archive.gettarinfo(path, arcname=name)
            changed = os.lstat(path).st_mtime_ns
        except FileNotFoundError:
            return self.note(name, "vanished while the folder was read")
        except OSError as error:
            return self.note(name, f"cannot be looked at ({error.strerror})", harmless=False)
        if info is None:
            return self.note(name, "is a socket; those cannot be kept")
        # Python would round the time to what a float holds.
        seconds, nanoseconds = divmod(changed, 10**9)
        info.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09d}"}
        self.entries += 1
        if info.isreg():
            return self._add_file(path, name, info)
        return self.archive.addfile(info)

    def _add_file(self, path: str, name: str, info: tarfile.TarInfo) -> None:
        if sqlite.is_sqlite(Path(path)):
            copied = self.scratch / "copy.sqlite"
            whole = sqlite.copy(Path(path), copied)
            if whole:
                self.sqlite.append(_printable(name))
                self._add_content(str(copied), name, info, copied.stat())
                copied.unlink()
                return
            self.note(
                name, "is a SQLite file that SQLite cannot copy; its bytes were copied as they are", harmless=False
            )
        try:
            self._add_content(path, name, info, None)
        except FileNotFoundError:
            self._leave_out(name, "vanished while the folder was read")
        except PermissionError as error:
            self._leave_out(name, f"cannot be read ({error.strerror}); give this user the right to", harmless=False)

    def _leave_out(self, name: str, what: str, *, harmless: bool = True) -> None:
        self.entries -= 1
        # A second name of the same file must not become a link to what is not there.
        inodes: dict[tuple[int, int], str] = vars(self.archive)["inodes"]
        for inode in [inode for inode, first in inodes.items() if first == name]:
            del inodes[inode]
        self.note(name, what, harmless=harmless)

    def _add_content(self, path: str, name: str, info: tarfile.TarInfo, instead: os.stat_result | None) -> None:
        with open(path, "rb", opener=_untouched) as file:
            now = instead or os.fstat(file.fileno())
            info.size = now.st_size
            steady: _Steady
            if instead is None and (holes := sparse.data_ranges(file.fileno(), now)) is not None:
                body = sparse.describe(info, holes)
                steady = _Steady(cast(BinaryIO, sparse.Reader(file, body, holes)), info.size)
            else:
                steady = _Steady(cast(BinaryIO, file), info.size)
            self.archive.addfile(info, cast(IO[bytes], steady))
            self.bytes += info.size
            if steady.problem:
                self.note(name, steady.problem, harmless="shrank" in steady.problem)
            elif instead is None and os.fstat(file.fileno()).st_size > now.st_size:
                self.note(name, "grew while it was read; what came later is not in it")
        self.report(self.bytes)


def archive(
    source: Path, target: Path, *, name: str, file: str, report: Callable[[int], None] = lambda done: None
) -> tuple[VolumePart, FileEntry]:
    """Write everything below `source` to the new file `target`, a tar.zst.

    `file` is the path of `target` as the manifest names it. Files that vanish, grow or shrink are noted;
    nothing is locked or stopped. Raises HubError when the folder itself cannot be read, OSError when the
    target cannot be written.
    """
    if not source.is_dir():
        raise HubError(f"{source} is no folder: correct BACKUP_VOLUMES (or --volumes-of); a backup of it was asked for")
    with (
        target.open("wb") as out,
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".scratch-") as scratch,
    ):
        sink = _Sink(out)
        squeeze = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(
            cast(IO[bytes], sink), closefd=False
        )
        with squeeze, tarfile.open(fileobj=squeeze, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
            made = _Archiver(source, tar, Path(scratch), report)
            for path, inside in _walk(source, made):
                made.add(path, inside)
        out.flush()
        os.fsync(out.fileno())
    part = VolumePart(name, str(source), file, made.entries, made.bytes, tuple(made.sqlite), tuple(made.oddities))
    return part, FileEntry(file, sink.bytes, sink.sha256.hexdigest())


def _walk(source: Path, made: _Archiver) -> Iterator[tuple[str, str]]:
    """Paths below `source` and their names in the archive, folders first, `source` itself as `.`."""
    waiting = [(str(source), ".")]
    while waiting:
        path, name = waiting.pop()
        yield path, name
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except FileNotFoundError:
            made.note(name, "vanished while the folder was read")
            continue
        except OSError as error:
            if name == ".":
                raise HubError(f"{source} cannot be read ({error.strerror}): give this user the right to") from error
            made.note(name, f"cannot be read ({error.strerror}); give this user the right to", harmless=False)
            continue
        for entry in entries:
            inside = f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, inside))
            elif not _is_companion(entry):
                yield entry.path, inside


def _is_companion(entry: os.DirEntry[str]) -> bool:
    return any(
        entry.name.endswith(suffix) and sqlite.is_sqlite(Path(entry.path.removesuffix(suffix)))
        for suffix in sqlite.COMPANIONS
    )


def _untouched(path: str, flags: int) -> int:
    """Open without following a symlink that took the file's place, and without waiting for a pipe."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME)
    except OSError as error:
        if error.errno != errno.EPERM:  # O_NOATIME is for the owner only
            raise
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _printable(path: str) -> str:
    return os.fsencode(path.removeprefix("./")).decode(errors="backslashreplace")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive for reading from its beginning to its end. Raises HubError when it is damaged."""
    try:
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as plain,
            tarfile.open(fileobj=cast(IO[bytes], plain), mode="r|", bufsize=_CHUNK) as tar,
        ):
            yield tar
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise HubError(f"{path} is damaged ({error}): use another backup") from error


def count(path: Path) -> int:
    """Read an archive to its end and count its entries. Raises HubError when it is damaged."""
    with opened(path) as tar:
        return sum(1 for _ in tar)


def unpack(path: Path, target: Path) -> int:
    """Extract an archive into the empty folder `target` with owners, modes, times and holes; count entries.

    Owners are numbers, and are set only for root. Raises HubError when an entry would land outside.
    """

    root = os.path.realpath(target)

    def guard(member: tarfile.TarInfo) -> None:
        # Python's own "tar" filter would also take away set-id bits and others' write permission.
        for name in (member.name, member.linkname if member.islnk() else member.name):
            inside = os.path.realpath(os.path.join(target, name))
            if os.path.isabs(name) or os.path.commonpath([inside, root]) != root:
                raise HubError(f"{path}: the entry {_printable(member.name)} would land outside of {target}")

    entries = 0
    folders: list[tarfile.TarInfo] = []
    with opened(path) as tar:
        # An attribute, because Python before 3.11.4, such as Debian 12's, knows no argument `filter`.
        tar.extraction_filter = lambda member, _: member
        for member in tar:
            entries += 1
            guard(member)
            if member.isdir():
                folders.append(member)
                os.makedirs(target / member.name, exist_ok=True, mode=0o700)
            else:
                tar.extract(member, target, numeric_owner=True)
                _set_time(member, target / member.name)
        for member in reversed(folders):
            place = str(target / member.name)
            tar.chown(member, place, numeric_owner=True)
            tar.chmod(member, place)
            _set_time(member, target / member.name)
    return entries


def _set_time(member: tarfile.TarInfo, place: Path) -> None:
    """To the nanosecond, which Python's own extraction does not keep; a symlink's own time."""
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    time = int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])
    os.utime(place, ns=(time, time), follow_symlinks=False)
