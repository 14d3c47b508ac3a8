"""COPY what a scan of MongoDB yields into a table: rows, and dead letters beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import gc
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator

from hub.loading import rows
from hub.loading.batch import Converter
from hub.loading.identifiers import Identifiers
from hub.loading.model import Mapping, Reject, microseconds
from hub.loading.prefetch import prefetch
from hub.timescale.connection import Connection

Progress = Callable[[int], None]

# Dead letters are kept in memory up to this many bytes, then written between two COPYs.
_REJECT_BYTES = 16 * 2**20


@dataclasses.dataclass
class Staged:
    """What came through the converter. `rows` counts by days since 1970, `rejects` by day: None is no day of the window."""

    documents: int = 0
    elsewhere: int = 0
    unusable: int = 0
    rows: Counter[int] = dataclasses.field(default_factory=Counter)
    rejects: Counter[dt.date | None] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    identifiers: Identifiers = dataclasses.field(default_factory=Identifiers)


def stage(
    connection: Connection,
    table: str,
    scan: Generator[bytes, None, None],
    mapping: Mapping,
    window: tuple[dt.datetime, dt.datetime],
    progress: Progress,
) -> Staged:
    """COPY the rows of the window into `table` and the dead letters into `staged_rejects`, which is made if there are any.

    `scan` yields batches of raw documents. `progress` is called with the number of documents so far.
    """
    staged = Staged()
    converter = Converter(mapping, (microseconds(window[0]), microseconds(window[1])))
    copy = f"COPY {table} ({', '.join(rows.COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with prefetch(scan) as batches, _undisturbed():
        more = True
        while more:
            more, kept, rejects = False, 0, []
            with connection.cursor() as cursor, cursor.copy(copy) as stream:
                stream.write(rows.HEADER)
                for raw in batches:
                    batch = converter.convert(raw)
                    stream.write(batch.data)
                    staged.documents += batch.documents
                    staged.elsewhere += batch.elsewhere
                    staged.unusable += batch.unusable
                    staged.rows.update(batch.days)
                    staged.identifiers.add(batch)
                    rejects += batch.rejects
                    kept += sum(len(reject.raw) for reject in batch.rejects)
                    progress(staged.documents)
                    if kept > _REJECT_BYTES:
                        more = True  # no SQL can run on a connection while it is in COPY
                        break
                stream.write(rows.TRAILER)
            if rejects:
                _stage_rejects(connection, rejects, window, staged)
    return staged


def _stage_rejects(
    connection: Connection, rejects: list[Reject], window: tuple[dt.datetime, dt.datetime], staged: Staged
) -> None:
    first, end = window[0].date(), window[1].date()
    if not staged.reasons:
        connection.execute(
            "CREATE TEMP TABLE staged_rejects (mongo_id text, reason text, detail text, event_day date, raw bytea)"
            " ON COMMIT DROP"
        )
    with connection.cursor() as cursor, cursor.copy("COPY staged_rejects FROM STDIN (FORMAT BINARY)") as stream:
        stream.set_types(["text", "text", "text", "date", "bytea"])
        for reject in rejects:
            stream.write_row((reject.mongo_id, reject.reason, reject.detail, reject.day, reject.raw))
            staged.reasons[reject.reason] += 1
            staged.rejects[reject.day if reject.day and first <= reject.day < end else None] += 1


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Settings of the interpreter for the length of a conversion.

    Documents have no cycles; looking for some in them costs 13 % of the rate. The thread that reads ahead
    needs the interpreter often and briefly; waiting 5 ms for it each time costs another 15 %.
    """
    was_enabled, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if was_enabled:
            gc.enable()
