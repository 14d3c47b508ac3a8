"""Notice a document that comes twice within one load, without asking the database."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from hub.loading.batch import Batch

# 8 bytes are kept for each document: 32 MB at most, twice that while they are sorted.
_LIMIT = 4_000_000
_HEAD, _TAIL = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class Identifiers:
    """The ids of one load's rows, as 64-bit hashes."""

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._count = 0

    def add(self, batch: Batch) -> None:
        """Note the ids of a batch's rows; too many are not kept."""
        object_ids = b"".join(batch.object_ids)
        self._count += len(object_ids) // 12 + len(batch.other_ids)
        if self._count > _LIMIT:
            self._hashes.clear()
            return
        words = np.frombuffer(object_ids, "<u4").reshape(-1, 3).astype(np.uint64)
        self._hashes.append((words[:, 0] << np.uint64(32) | words[:, 1]) * _HEAD + words[:, 2] * _TAIL)
        if batch.other_ids:
            digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in batch.other_ids]
            self._hashes.append(np.frombuffer(b"".join(digests), "<u8"))

    def may_repeat(self) -> bool:
        """False if every id came once. True may be wrong: two ids can have one hash, and too many are not kept."""
        if self._count > _LIMIT:
            return True
        hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        hashes.sort()
        return bool((hashes[1:] == hashes[:-1]).any())
