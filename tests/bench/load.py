"""Loading against the database's own limit: a binary COPY of the same, ready rows into the same table."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from hub.loading import rows
from hub.loading.convert import convert
from hub.loading.load import load
from hub.loading.model import Mapping
from hub.settings import Settings, load_settings
from hub.streams.declared import reading as reading_of
from hub.streams.model import Mode
from hub.timescale.connection import connect
from tests.bench.servers import FIRST, database, documents
from tests.support.mongo_wire import WireServer

ROUNDS = 5
_BOOKS = "reading_analytics, reading_rejects, reading_days, rollup_dirty"


def run() -> Iterator[dict[str, Any]]:
    """Yield one line for the load and its repetition, and one for each size of the growth."""
    with database() as settings:
        yield _against_copy(settings, 200_000, 30)
        sizes = []
        for count, days in ((20_000, 3), (200_000, 30), (2_000_000, 300)):
            sizes.append(_size(settings, count, days))
            yield sizes[-1]
        rates = [size["rows_per_second"] for size in sizes]
        yield {"what": "growth", "slowest_to_fastest": round(min(rates) / max(rates), 3), "bar": 0.85}
        yield _one_day(settings, 1_000_000)


def _against_copy(settings: Settings, count: int, days: int) -> dict[str, Any]:
    made = documents(count, days)
    ready = _ready_rows(settings, made)
    copies, firsts, agains, thoroughs = [], [], [], []
    with WireServer.in_process(made, replay="dates", replay_batch=2000) as source:
        here = settings.model_copy(update=source_settings(source.uri))
        end = FIRST + dt.timedelta(days=days)
        for _ in range(ROUNDS):
            _empty(settings)
            copies.append(count / _timed(lambda: _copy(settings, ready)))
            _empty(settings)
            firsts.append(count / _timed(lambda: load(here, reading_of(here), FIRST, end)))
            agains.append(count / _timed(lambda: load(here, reading_of(here), FIRST, end)))
            thoroughs.append(count / _timed(lambda: load(here, reading_of(here), FIRST, end, thorough=True)))
    copy, first = statistics.median(copies), statistics.median(firsts)
    again, thorough = statistics.median(agains), statistics.median(thoroughs)
    return {
        "what": "load", "documents": count, "days": days, "bytes_per_document": round(sum(map(len, made)) / count),
        "copy_rows_per_second": round(copy),
        "first_rows_per_second": round(first), "first_to_copy": round(first / copy, 3),
        "again_rows_per_second": round(again), "again_to_copy": round(again / copy, 3),
        "again_thorough_to_copy": round(thorough / copy, 3), "bar": 0.6,
    }  # fmt: skip


def _size(settings: Settings, count: int, days: int) -> dict[str, Any]:
    """Loads of this size in a process of its own, for its peak memory."""
    seconds, peak = _in_process(settings, count, days)
    return {
        "what": "growth", "documents": count, "days": days, "rows_per_second": round(count / seconds),
        "peak_mb": round(peak), "bar_mb": 300,
    }  # fmt: skip


def _one_day(settings: Settings, count: int) -> dict[str, Any]:
    seconds, peak = _in_process(settings, count, 1)
    return {"what": "one day", "documents": count, "seconds": round(seconds, 1), "peak_mb": round(peak), "bar_mb": 300}


def _in_process(settings: Settings, count: int, days: int) -> tuple[float, float]:
    """Median seconds of a load in a process of its own, which has loaded before, and its peak resident megabytes."""
    with WireServer.in_process(documents(count, days), replay="dates", replay_batch=2000) as source:
        here = settings.model_copy(update=source_settings(source.uri))
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.load", str(FIRST), str(FIRST + dt.timedelta(days=days))],
            env={**_path(), **here.environment()}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def _path() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}


def source_settings(uri: str) -> dict[str, Any]:
    """Settings that point at a wire server, for `Settings.model_copy`."""
    return {"mongo_uri": SecretStr(uri), "mongo_db_name": "reading", "mongo_collection": "events"}


def _ready_rows(settings: Settings, made: list[bytes]) -> list[bytes]:
    mapping = Mapping.of(reading_of(settings), dt.datetime.now(dt.UTC))
    packed = [rows.pack(convert(document, mapping)) for document in made]  # type: ignore[arg-type]
    return [b"".join(packed[start : start + 2000]) for start in range(0, len(packed), 2000)]


def _copy(settings: Settings, ready: list[bytes]) -> None:
    statement = f"COPY reading_analytics ({', '.join(rows.COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with connect(settings) as connection, connection.cursor() as cursor, cursor.copy(statement) as stream:
        stream.write(rows.HEADER)
        for block in ready:
            stream.write(block)
        stream.write(rows.TRAILER)


def _empty(settings: Settings) -> None:
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {_BOOKS}")
        connection.execute("CHECKPOINT")


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _main(first: str, end: str) -> None:
    settings, seconds = load_settings(), []
    for _ in range(ROUNDS):
        _empty(settings)
        began = time.perf_counter()
        report = load(
            settings, reading_of(settings), dt.date.fromisoformat(first), dt.date.fromisoformat(end), mode=Mode.UPSERT
        )
        seconds.append(time.perf_counter() - began)
        assert report.changed
    print(statistics.median(seconds[1:]), peak_megabytes())


def peak_megabytes() -> float:
    """Peak resident memory of this program. getrusage would count what its parent had when it started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        _main(*sys.argv[1:])
