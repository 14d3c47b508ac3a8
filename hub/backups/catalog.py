"""A dump's table of contents, compressed as the rest of it is: pg_dump leaves it plain, and it is new each night.

Of a database of two years, 1,600 files, it was 5.0 MB: sixteen times the rows that a night adds. pg_restore reads `toc.dat.zst` and
`toc.dat.gz` in its place, as it does with every file of a dump in directory format.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import IO, cast

import zstandard

_PLAIN = "toc.dat"
_LEVEL = 9


def compress(folder: Path, codec: str) -> None:
    """Compress the table of contents of the dump in `folder`."""
    plain = folder / _PLAIN
    packed = folder / f"{_PLAIN}.{'zst' if codec == 'zstd' else 'gz'}"
    with plain.open("rb") as source, open(packed, "xb", opener=_private) as target:
        if codec == "zstd":
            zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).copy_stream(source, target)
        else:  # without a name and a time, which a header of gzip would have
            with gzip.GzipFile("", "wb", _LEVEL, target, 0) as sink:
                shutil.copyfileobj(source, cast(IO[bytes], sink), 2**20)
    plain.unlink()


def missed(folder: Path, said: str) -> bool:
    """Whether a pg_restore that `said` this found no table of contents, because it knows no zstd."""
    return "toc.dat" in said and (folder / f"{_PLAIN}.zst").exists()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
