"""Find the rows that documents have outside of the window that is being loaded, however long the history is.

A document whose time has changed has an old row, which has to go, in any chunk of the hypertable. To ask all chunks
costs more with every day: 0.5 CPU seconds for planning alone at 730 of them, and the columnstore is decompressed. So
there are notes of each chunk that is over: by the length of its ids, the least and the greatest, and a Bloom filter.
Ids as MongoDB makes them grow with time, so that for new ones the comparison of a few texts is all.

The notes never miss an id. What they take for possible is looked up in its chunk; chunks without notes are asked. A load
throws the notes away of chunks that it writes new ids into. Of statements by anybody else a trigger tells
(`distrust_ids`), and then all notes are made anew.
"""

from __future__ import annotations

import bisect
import datetime as dt
import functools
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import psycopg

from hub.loading import bloom
from hub.streams.model import Stream
from hub.timescale.connection import Connection

# Advisory lock: shared by writers who keep no notes, for as long as their rows cannot be seen.
_WRITERS = 0x494453
# A chunk that ended less than this ago is asked itself: it is not compressed yet, and still changes.
_OPEN = dt.timedelta(days=1)
# Ids of this many first characters and more are told apart when notes are compared: 68 minutes of ObjectIds.
_PREFIX = 5
_FILTERS_AT_ONCE = 50

Row = tuple[str, dt.datetime]
"""`mongo_id` and `event_timestamp`."""


class _Chunk(NamedTuple):
    start: dt.datetime
    end: dt.datetime


class _Note(NamedTuple):
    number: int
    chunk: _Chunk
    length: int
    least: str
    greatest: str


class Elsewhere:
    """The rows outside of one half-open window, in the transaction of its load."""

    def __init__(
        self, connection: Connection, stream: Stream, window: tuple[dt.datetime, dt.datetime], *, hypertable: bool
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._window = {"start": window[0], "end": window[1]}
        self._hypertable = hypertable
        if hypertable:
            connection.execute("SET LOCAL reading_hub.keeps_ids = 'on'")

    def nothing(self) -> bool:
        """Whether there is no row outside of the window."""
        if self._hypertable:
            return not self._chunks
        row = self._sql(
            "SELECT EXISTS (SELECT FROM $table WHERE event_timestamp < %(start)s OR event_timestamp >= %(end)s)"
        ).fetchone()
        return row == (False,)

    def rows(self, new: str) -> list[Row]:
        """The rows elsewhere of the ids in `new`: what follows FROM in SQL, with the column `mongo_id`."""
        if not self._hypertable:
            return self._file("elsewhere_plain", new).fetchall()
        notes = self._notes()
        noted = {note.chunk for note in notes}
        rows: list[Row] = []
        for start, end in _merged(chunk for chunk in self._chunks if chunk not in noted):
            rows += self._file("elsewhere_all", new, first=start, last=end).fetchall()
        possible = self._possible(notes, new)
        if possible:
            hashes = np.unique(np.concatenate(list(possible.values()))).view(np.int64).tolist()
            texts: dict[int, list[str]] = dict(self._file("ids_texts", new, hashes=hashes).fetchall())
            for chunk, some in possible.items():
                ids = [text for hash_ in some.view(np.int64).tolist() for text in texts[hash_]]
                rows += self._file("elsewhere_some", first=chunk.start, last=chunk.end, ids=ids).fetchall()
        return rows

    def forget(self, new: str) -> None:
        """Throw the notes away of chunks that rows of `new` went into; it has the column `event_timestamp`."""
        if self._hypertable:
            self._file("ids_forget", new)

    @functools.cached_property
    def _chunks(self) -> list[_Chunk]:
        """Chunks that are not wholly within the window, in order."""
        return [_Chunk(*row) for row in self._file("ids_chunks", table=self._stream.table)]

    def _notes(self) -> list[_Note]:
        """The notes that hold, new ones made where they are missing and can be made."""
        row = self._sql(
            "SELECT last_value, pg_try_advisory_xact_lock(%(lock)s), now() FROM $ids_version", lock=_WRITERS
        ).fetchone()
        assert row is not None
        version, alone, now = row
        notes = self._read(version)
        noted = {note.chunk for note in notes}
        missing = [chunk for chunk in self._chunks if chunk not in noted and chunk.end <= now - _OPEN]
        if not alone or not missing:
            return notes
        self._file("ids_drop", starts=[chunk.start for chunk in missing], version=version)
        self._sql("SET LOCAL enable_sort = off")  # by the one length that there is: sorting takes half of the time
        for chunk in missing:
            self._make(chunk, version)
        self._sql("RESET enable_sort")
        return self._read(version)

    def _read(self, version: int) -> list[_Note]:
        notes = (
            _Note(number, _Chunk(start, end), *ids)
            for number, start, end, *ids in self._sql(
                "SELECT id, chunk_start, chunk_end, length, least, greatest FROM $ids WHERE version = %(version)s",
                version=version,
            )
        )
        chunks = set(self._chunks)
        return [note for note in notes if note.chunk in chunks]

    def _make(self, chunk: _Chunk, version: int) -> None:
        found = self._file("ids_of_chunk", first=chunk.start, last=chunk.end).fetchall()
        for length, least, greatest, hashes in found or [(0, "", "", b"")]:
            self._sql(
                "INSERT INTO $ids (chunk_start, chunk_end, version, length, least, greatest, filter)"
                " VALUES (%(first)s, %(last)s, %(version)s, %(length)s, %(least)s, %(greatest)s, %(filter)s)",
                first=chunk.start, last=chunk.end, version=version, length=length, least=least, greatest=greatest,
                filter=bloom.make(_hashes(hashes)),
            )  # fmt: skip

    def _possible(self, notes: Sequence[_Note], new: str) -> dict[_Chunk, bloom.Hashes]:
        """Per chunk, the hashes of ids in `new` that it may hold."""
        possible: dict[_Chunk, list[bloom.Hashes]] = {}
        for length, prefixes in self._file("ids_prefixes", new, size=_PREFIX).fetchall():
            prefixes.sort()
            candidates = []
            within: set[str] = set()
            for note in notes:
                if note.length == length:
                    first = bisect.bisect_left(prefixes, note.least[:_PREFIX])
                    end = bisect.bisect_right(prefixes, note.greatest[:_PREFIX])
                    if first < end:
                        candidates.append(note)
                        within |= {prefixes[first], prefixes[end - 1]}
            if not candidates:
                continue
            bounds = {"low": min(within), "high": max(within), "size": _PREFIX}
            row = self._file("ids_hashes", new, length=length, **bounds).fetchone()
            hashes = _hashes(row[0] if row else b"")
            for start in range(0, len(candidates), _FILTERS_AT_ONCE):
                some = {note.number: note for note in candidates[start : start + _FILTERS_AT_ONCE]}
                for number, filter_ in self._sql("SELECT id, filter FROM $ids WHERE id = ANY(%(ids)s)", ids=list(some)):
                    left = bloom.may_hold(filter_, hashes)
                    if left.size:
                        possible.setdefault(some[number].chunk, []).append(left)
        return {chunk: np.concatenate(parts) for chunk, parts in possible.items()}

    def _file(self, name: str, new: str = "", **parameters: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        text = (files("hub.loading") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
        return self._sql(text.replace("$new", new), **parameters)

    def _sql(self, statement: str, **parameters: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._connection.execute(self._stream.sql(statement), self._window | parameters, binary=True)


def _hashes(data: bytes) -> bloom.Hashes:
    """From the eight bytes of each, as the network has them."""
    return np.frombuffer(data, ">u8").astype(np.uint64)


def _merged(chunks: Iterable[_Chunk]) -> list[_Chunk]:
    """Chunks in order, those that touch as one."""
    merged: list[_Chunk] = []
    for chunk in chunks:
        if merged and merged[-1].end == chunk.start:
            merged[-1] = _Chunk(merged[-1].start, chunk.end)
        else:
            merged.append(chunk)
    return merged
