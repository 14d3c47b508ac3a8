"""What Dagster costs on top of the bare function: one day, and a year in one run."""

from __future__ import annotations

import datetime as dt
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from hub.cli.launch import ASSETS
from hub.loading.load import load
from hub.rollups.declared import READING_DAILY, READING_HOURLY
from hub.rollups.refresh import refresh_all
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import connect, parameters
from tests.bench.load import source_settings
from tests.bench.servers import FIRST, database, documents
from tests.support.mongo_wire import WireServer

_DAYS = 365
_PER_DAY = 200


def run() -> Iterator[dict[str, Any]]:
    """Yield a line for the single day and one for the year."""
    made = documents(_DAYS * _PER_DAY, _DAYS)
    with database() as settings, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(**parameters(settings, database="postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {settings.db_name}_dagster")
        try:
            yield _one_day(settings, Path(folder), made[:_PER_DAY])
            yield _one_year(settings, Path(folder), made)
        finally:
            with psycopg.connect(**parameters(settings, database="postgres"), autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {settings.db_name}_dagster WITH (FORCE)")


def _one_day(settings: Settings, home: Path, made: list[bytes]) -> dict[str, Any]:
    with WireServer.in_process(made, replay="dates") as source:
        here = settings.model_copy(update=source_settings(source.uri))
        _launch(here, home, FIRST, FIRST)  # the first run makes Dagster's tables
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        _launch(here, home, FIRST, FIRST)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        before_bare = time.process_time()
        _bare(here, 1)
        bare = time.process_time() - before_bare
    return {
        "what": "one day by dg launch", "wall_seconds": round(wall, 2), "cpu_seconds": round(cpu, 2),
        "bare_cpu_seconds": round(bare, 3), "overhead_cpu_seconds": round(cpu - bare, 2), "bar": 3,
    }  # fmt: skip


def _one_year(settings: Settings, home: Path, made: list[bytes]) -> dict[str, Any]:
    with WireServer.in_process(made, replay="dates") as source:
        here = settings.model_copy(update=source_settings(source.uri))
        began = time.perf_counter()
        _bare(here, _DAYS)
        bare = time.perf_counter() - began
        began = time.perf_counter()
        _launch(here, home, FIRST, FIRST + dt.timedelta(days=_DAYS - 1))
        wall = time.perf_counter() - began
    return {
        "what": "a year by dg launch", "documents": len(made), "wall_seconds": round(wall, 1),
        "bare_seconds": round(bare, 2), "bar_seconds": round(3 * bare + 15, 1),
    }  # fmt: skip


def _bare(settings: Settings, days: int) -> None:
    with connect(settings, autocommit=True) as connection:
        connection.execute("TRUNCATE reading_analytics, reading_days, rollup_dirty")
        load(settings, reading_of(settings), FIRST, FIRST + dt.timedelta(days=days))
        refresh_all(connection, (READING_HOURLY, READING_DAILY))


def _launch(settings: Settings, home: Path, first: dt.date, last: dt.date) -> None:
    shutil.copyfile("dagster.yaml", home / "dagster.yaml")
    environment = {
        **os.environ,
        **settings.environment(),
        "DAGSTER_DB_NAME": f"{settings.db_name}_dagster",
        "DAGSTER_HOME": str(home),
        "DAGSTER_EVENT_BATCH_SIZE": "100",
        "PYTHONWARNINGS": "ignore",
    }
    dg = Path(sys.executable).parent / "dg"
    command = [str(dg), "launch", "--assets", ",".join(ASSETS), "--partition-range", f"{first}...{last}"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
