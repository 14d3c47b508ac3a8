"""What loads and looks cost beside a short and a long history, in CPU seconds of the hub and the database's backends.

730 daily chunks, those older than 30 days compressed, once with few and once with many readings a day, asked in turn.
BENCH_HISTORY names other sizes: `BENCH_HISTORY=100000,1000000 python -m tests.bench history`; BENCH_HISTORY_IDS=random
makes ids that say nothing about when they were made.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bson.objectid import ObjectId

from hub.arrivals.look import look
from hub.loading import checks
from hub.loading.load import load
from hub.loading.model import Mapping
from hub.mongo import collection
from hub.rollups.declared import READING_DAILY, READING_HOURLY
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect
from tests.bench.load import source_settings
from tests.bench.servers import database, documents
from tests.support.mongo_wire import WireServer

SIZES = tuple(int(size) for size in os.environ.get("BENCH_HISTORY", "1000000,20000000").split(","))
DAYS, OPEN_DAYS, ROUNDS = 730, 30, 3
NEW, MORE, LATE, FEW, LOOKED_AT = 10_000, 100, 1_000, 10, 20_000
# Ratio of the longest to the shortest history, and CPU seconds beside the longest.
BARS = {
    f"a new day of {NEW:,}": (1.3, 0.6),
    f"{MORE} more of that day": (1.3, None),
    f"{LATE:,} late ones into a compressed day": (1.5, 1.0),
    f"{FEW} late ones into a compressed day": (None, 0.3),
    f"a look over {LOOKED_AT:,} ids": (None, 0.3),
    "the checks of a day": (None, 0.1),
}  # fmt: skip
_DAY = dt.timedelta(days=1)
# Ids as MongoDB makes them: seconds, one of seven processes, a counter. Or anything.
_IDS = {
    "times": "lpad(to_hex(extract(epoch FROM t)::bigint), 8, '0') || substr(md5(mod(n, 7)::text), 1, 10)"
    " || lpad(to_hex(mod(n, 16777216)), 6, '0')",
    "random": "substr(md5(n::text), 1, 24)",
}


def run() -> Iterator[dict[str, Any]]:
    """Yield one line for each operation."""
    with contextlib.ExitStack() as stack:
        histories = []
        for size in SIZES:
            settings = stack.enter_context(database())
            with connect(settings, autocommit=True) as connection:
                if not detect(connection).continuous_aggregates:
                    return
                seconds = fill(connection, size)
            histories.append(settings)
            yield {"what": "a history", "readings": size, "days": DAYS, "seconds_to_make": round(seconds)}
        yield from measure(histories)


def fill(connection: Connection, count: int, ids: str = os.environ.get("BENCH_HISTORY_IDS", "times")) -> float:
    """Two years of readings up to the day before yesterday, 20 sources; return the seconds that it took."""
    began = time.perf_counter()
    connection.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE job_id >= 1000"
    )
    start = dt.datetime.combine(_today() - (DAYS + 1) * _DAY, dt.time(), dt.UTC)
    connection.execute(
        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload, meta)"
        f" SELECT {_IDS[ids]}, t, 'source-' || mod(n, 20), 'page_read', mod(n, 997), jsonb_build_object('value',"
        " n * 1.25, 'title', 'The book number ' || n, 'page', mod(n, 700), 'device', 'kobo', 'tags', '[\"a\", \"b\"]'::jsonb),"
        ' \'{"host": "h1", "schema": 3, "app": "koreader-2026.03", "status": "done"}\' FROM (SELECT n,'
        " %(start)s + n * (INTERVAL '1 day' * %(days)s / %(count)s) AS t FROM generate_series(0, %(count)s - 1) AS n) AS made",
        {"start": start, "count": count, "days": DAYS},
    )
    connection.execute(
        "SELECT compress_chunk(chunk) FROM show_chunks('reading_analytics', older_than => %s) AS chunk",
        (start + (DAYS - OPEN_DAYS) * _DAY,),
    )
    connection.execute("VACUUM ANALYZE")
    return time.perf_counter() - began


def measure(histories: list[Settings]) -> Iterator[dict[str, Any]]:
    """Every operation in `ROUNDS` rounds beside each history in turn, and once before, which is told apart."""
    spent: dict[str, list[list[float]]] = {what: [[] for _ in histories] for what in BARS}
    for number in range(ROUNDS + 1):
        for position, settings in enumerate(histories):
            for what, seconds in _round(settings, number):
                spent[what][position].append(seconds)
    for what, (bar_ratio, bar_seconds) in BARS.items():
        medians = [statistics.median(seconds[1:]) for seconds in spent[what]]
        yield {
            "what": what, "cpu_seconds": [round(median, 3) for median in medians],
            "first_cpu_seconds": [round(seconds[0], 3) for seconds in spent[what]],
            "ratio": round(medians[-1] / medians[0], 2), "bar_ratio": bar_ratio, "bar_cpu_seconds": bar_seconds,
        }  # fmt: skip


def _round(settings: Settings, number: int) -> Iterator[tuple[str, float]]:
    what = iter(BARS)
    today = _today()
    new = today + (number - ROUNDS) * _DAY  # day after day, up to today
    for count, day in (
        (NEW, new), (NEW + MORE, new), (LATE, today - (200 + number) * _DAY), (FEW, today - (300 + number) * _DAY),
    ):  # fmt: skip
        made = _documents(settings, count, day, earlier=count == NEW + MORE)
        with WireServer.in_process(made, replay="dates", replay_batch=2000) as source:
            here = settings.model_copy(update=source_settings(source.uri))
            yield next(what), _cpu(settings, lambda here=here, day=day: load(here, reading_of(here), day, day + _DAY))  # type: ignore[misc]
    newest = documents(LOOKED_AT, 1, new)
    with (
        WireServer.in_process(newest) as source,
        collection(settings.model_copy(update=source_settings(source.uri)), reading_of(settings)) as found,
        connect(settings, autocommit=True) as connection,
    ):
        stream = reading_of(settings)
        mapping = Mapping.of(stream, dt.datetime.now(dt.UTC))
        after = ObjectId("000000000000000000000000")
        yield next(what), _cpu(settings, lambda: look(found, connection, stream, mapping, after, _DAY))
    yield next(what), _cpu(settings, lambda: _checks(settings, today - (200 + number) * _DAY))


_MADE: dict[dt.date, list[bytes]] = {}


def _documents(settings: Settings, count: int, day: dt.date, *, earlier: bool) -> list[bytes]:
    """Documents of a day, with those that were made for it before."""
    made = _MADE.get(day, []) if earlier else []
    _MADE[day] = made + documents(count - len(made), 1, day)
    return _MADE[day]


def _checks(settings: Settings, day: dt.date) -> None:
    with connect(settings) as connection:
        checks.books(connection, day, day + _DAY)
        checks.newest_reading(connection)
        checks.raw_totals(connection, day, day + _DAY)
        for rollup in (READING_HOURLY, READING_DAILY):
            checks.rollup_totals(connection, rollup, day, day + _DAY)


def _cpu(settings: Settings, work: Callable[[], object]) -> float:
    """CPU seconds that a piece of work takes, of this process and of the database's; wall seconds beside a remote one."""
    with connect(settings, autocommit=True) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        backend = Path(f"/proc/{row[0]}/stat")
        if not backend.exists() or settings.db_host not in ("127.0.0.1", "localhost"):
            began = time.perf_counter()
            work()
            return time.perf_counter() - began
        postmaster = int(_stat(backend)[1])
        there = _backends(postmaster, settings)
        server, began = _server(postmaster), time.process_time()
        work()
        spent = time.process_time() - began
        while _backends(postmaster, settings) - there:  # what a backend has used is the postmaster's once it has gone
            time.sleep(0.005)
        return spent + _server(postmaster) - server


def _children(postmaster: int) -> dict[int, float]:
    """Ticks of each process of the server."""
    ticks = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = _stat(stat)
            if int(fields[1]) == postmaster:
                ticks[int(stat.parent.name)] = float(fields[11]) + float(fields[12])
    return ticks


def _backends(postmaster: int, settings: Settings) -> set[int]:
    """Processes that serve a connection to the database."""
    found = set()
    for process in _children(postmaster):
        with contextlib.suppress(OSError):
            if f" {settings.db_name} 127.0.0.1(" in Path(f"/proc/{process}/cmdline").read_text():
                found.add(process)
    return found


def _server(postmaster: int) -> float:
    """CPU seconds of the server with all of its processes, those that have ended included."""
    ticks = sum(map(float, _stat(Path(f"/proc/{postmaster}/stat"))[11:15])) + sum(_children(postmaster).values())
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(path: Path) -> list[str]:
    """The fields after the name: state, parent, …, user and system ticks (11, 12), those of ended children (13, 14)."""
    return path.read_text().rpartition(") ")[2].split()


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
