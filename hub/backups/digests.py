"""Sizes and SHA-256 of files; a file with several names is read once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_READ = 4 * 2**20
Inode = tuple[int, int]
Digest = tuple[int, str]


def digest(path: Path) -> Digest:
    """Size and SHA-256 of a file."""
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(_READ):
            sha256.update(data)
            size += len(data)
    return size, sha256.hexdigest()


def inode(found: os.stat_result) -> Inode:
    """What all names of a file have in common."""
    return found.st_dev, found.st_ino


class Readings:
    """What was read from the disk itself, by file: one that has several names (hard links) is read once."""

    def __init__(self) -> None:
        self.digests: dict[Inode, Digest | OSError] = {}
        self.entries: dict[Inode, int] = {}

    def of(self, path: Path) -> Digest:
        """Size and SHA-256, read past the kernel's cache. Raises OSError, each time that it is asked again."""
        which = inode(path.stat())
        if which not in self.digests:
            try:
                _forget(path)
                self.digests[which] = digest(path)
            except OSError as error:
                self.digests[which] = error
        found = self.digests[which]
        if isinstance(found, OSError):
            raise found
        return found


def _forget(path: Path) -> None:
    """Ask the kernel to drop what it holds of a file, so that the disk itself is read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
