"""Symlinks of a commit: one that leads out of the repository makes whoever opens it, perhaps root, open something else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import Refused
from .repo import Entry


def check(commit: str, tree: Path, entries: Iterable[Entry]) -> None:
    """Refuse a symlink that does not stay within `tree`, the commit's files and nothing else; none is opened."""
    root = os.path.realpath(tree)
    for entry in entries:
        if entry.mode != "120000":
            continue
        goes = os.path.relpath(os.path.realpath(os.path.join(root, entry.path)), root)
        first = goes.split("/", 1)[0]
        if first == ".." or first.lower() == ".git":
            raise Refused(
                "symlink",
                f"{commit[:12]} has the symlink {entry.path}, which leads to {os.readlink(os.path.join(root, entry.path))}, "
                "out of the repository; commit the file itself, or mount what is meant",
            )
