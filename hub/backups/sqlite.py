"""Copy SQLite files that are in use: copying their bytes damages most of them, SQLite's own backup none."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

_MAGIC = b"SQLite format 3\x00"
# Beside a database; its backup holds what is in them.
COMPANIONS = ("-wal", "-shm", "-journal")
_PATIENCE_SECONDS = 20
_ATTEMPTS = 10


def is_sqlite(path: Path) -> bool:
    """Whether a file begins like a SQLite database. False if it cannot be read."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def copy(source: Path, target: Path) -> bool:
    """Copy a database that others may be writing to; return whether the copy is a whole database.

    Nothing is written beside the source, so a read-only mount will do.
    """
    with contextlib.suppress(sqlite3.Error):
        _backup(f"{source.absolute().as_uri()}?mode=ro", target)
        return True
    # SQLite cannot lock or map it there (a read-only mount without the -shm file, for one). Copy the
    # database with its log until the two fit together.
    for _ in range(_ATTEMPTS):
        beside = target.with_name(f"{target.name}.raw")
        with contextlib.suppress(sqlite3.Error, OSError):
            for suffix in ("", "-wal", "-journal"):
                part = Path(f"{source}{suffix}")
                if part.exists():
                    shutil.copyfile(part, f"{beside}{suffix}")
            _backup(beside.absolute().as_uri(), target)
            if _is_sound(target):
                return True
        for left in target.parent.glob(f"{target.name}*"):
            left.unlink()
    return False


def _backup(uri: str, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE_SECONDS)) as live,
        contextlib.closing(sqlite3.connect(target)) as copied,
    ):
        live.backup(copied)


def _is_sound(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as copied:
        return bool(copied.execute("PRAGMA quick_check").fetchone() == ("ok",))
