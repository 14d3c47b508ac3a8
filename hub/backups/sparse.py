"""Files with holes in tar: the GNU sparse format 1.0, which Python and GNU tar both read back with the holes."""

from __future__ import annotations

import os
import tarfile
from typing import IO

Ranges = list[tuple[int, int]]
_BLOCK = 512


def data_ranges(descriptor: int, now: os.stat_result) -> Ranges | None:
    """(offset, size) of each stretch of data, None for a file without holes worth it."""
    if now.st_blocks * 512 >= now.st_size:
        return None
    ranges, position = [], 0
    try:
        while position < now.st_size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from here on
                break
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), now.st_size)
            if start >= end:
                break
            ranges.append((start, end - start))
            position = end
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return ranges


def describe(info: tarfile.TarInfo, ranges: Ranges) -> bytes:
    """Make `info` the header of a sparse file of these ranges; return the map that goes before the data."""
    numbers = [len(ranges), *(number for one in ranges for number in one)]
    body = "".join(f"{number}\n" for number in numbers).encode()
    body += bytes(-len(body) % _BLOCK)
    folder, _, name = info.name.rpartition("/")
    info.pax_headers = {
        **info.pax_headers,
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(info.size),
    }
    info.name = f"{folder}/GNUSparseFile.0/{name}" if folder else f"GNUSparseFile.0/{name}"
    info.size = len(body) + sum(size for _, size in ranges)
    return body


class Reader:
    """Reads the map, then the stretches of data one after the other."""

    def __init__(self, file: IO[bytes], body: bytes, ranges: Ranges) -> None:
        self.file, self.body, self.ranges = file, body, list(ranges)
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end, or where the file has become shorter."""
        taken, self.body = self.body[:size], self.body[size:]
        pieces, missing = [taken], size - len(taken)
        while missing and self.ranges:
            start, left = self.ranges[0]
            data = os.pread(self.file.fileno(), min(left, missing), start)
            if not data:
                break
            pieces.append(data)
            missing -= len(data)
            if left > len(data):
                self.ranges[0] = (start + len(data), left - len(data))
            else:
                self.ranges.pop(0)
        return b"".join(pieces)
