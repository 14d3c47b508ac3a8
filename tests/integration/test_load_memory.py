"""A day streams: four times the documents take hardly more memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.mongo_wire import WireServer
from tests.support.readings import NOON, ids, reading

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import datetime as dt
from hub.loading.load import load
from hub.settings import load_settings
from hub.streams.declared import reading as reading_of
day = dt.date(2026, 3, 5)
for _ in range(2):  # into the empty day, and over it again
    report = load(load_settings(), reading_of(load_settings()), day, day + dt.timedelta(days=1), thorough=True)
with open("/proc/self/status") as status:  # ru_maxrss would begin with that of the process that started this one
    peak = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
print(report.loaded, report.path, peak)
"""
SMALL, LARGE = 40_000, 160_000
LIMIT_MB, GROWTH_MB = 300, 40


def peak_mb(settings: Settings, count: int) -> int:
    """Peak resident memory of a process that loads a day of that many documents, twice."""
    template = reading(ids(1)[0], NOON, meta={"device": "x" * 40}, payload={"value": 2.5, "title": "y" * 80})
    documents = [template.replace(ids(1)[0].binary, identifier.binary) for identifier in ids(count)]
    with WireServer.in_process(documents, replay="dates", replay_batch=2000) as wire:
        environment = settings.environment() | {"MONGO_URI": wire.uri, "READING_TIME_FIELD": "timestamp"}
        done = subprocess.run(
            [sys.executable, "-c", LOAD],
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    loaded, path, peak = done.stdout.split()
    assert (int(loaded), path) == (count, "merge")
    return int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in /proc on Linux only")
def test_memory_does_not_grow_with_the_day(settings: Settings) -> None:
    small = peak_mb(settings, SMALL)
    with connect(settings) as connection:
        for table in ("reading_analytics", "reading_days"):
            connection.execute(f"TRUNCATE {table}")  # type: ignore[call-overload]
    large = peak_mb(settings, LARGE)
    assert large < LIMIT_MB
    assert large - small < GROWTH_MB
