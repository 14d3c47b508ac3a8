"""How long a document takes from MongoDB to the rollup under `hub dev`, and what one a second costs at rest."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pymongo
from bson.objectid import ObjectId

from hub.embedded.process import free_port

TRIES = 20
# Runs are asked for once in this time: a try begins after a quiet one. The released setting is 60.
PAUSE = 10
REST_SECONDS = 180


def run() -> Iterator[dict[str, Any]]:
    """Yield a line for the latency of inserts and updates, and one for a steady document a second."""
    with tempfile.TemporaryDirectory() as folder:
        with _dev(Path(folder), PAUSE) as place:
            yield _latency(place)
        with _dev(Path(folder), 60) as place:
            yield _steady(place)


@contextlib.contextmanager
def _dev(folder: Path, pause: int) -> Iterator[dict[str, Any]]:
    """`hub dev` with its own servers; yields how to reach them."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DB_", "MONGO_", "DAGSTER_"))
    }
    environment |= {
        "HUB_DATA_DIR": str(folder / "hub"), "BACKUP_DIR": str(folder / "backups"),
        "READING_SENSOR_SECONDS": str(pause), "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    port = free_port()
    hub = Path(sys.executable).parent / "hub"
    log = (folder / "dev.log").open("w")
    process = subprocess.Popen(
        [str(hub), "dev", "--port", str(port)], env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        _until(lambda: "Dagster UI: http" in (folder / "dev.log").read_text(), 300)
        found = json.loads((folder / "hub" / "embedded.json").read_text())["environment"]
        yield {**found, "pid": process.pid, "logs": folder / "hub" / "logs"}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        log.close()


def _until(done: Any, seconds: float) -> float:
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - began


def _database(place: dict[str, Any], name: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=place["DB_HOST"], port=place["DB_PORT"], user=place["DB_USER"], password=place["DB_PASSWORD"],
        dbname=name, autocommit=True,
    )  # fmt: skip


def _latency(place: dict[str, Any]) -> dict[str, Any]:
    seconds: list[float] = []
    with (
        pymongo.MongoClient[dict[str, Any]](place["MONGO_URI"]) as client,
        _database(place, place.get("DB_NAME", "reading_hub")) as connection,
    ):
        documents = client["reading"]["events"]

        def seen(source: str, value: float) -> bool:
            row = connection.execute(
                "SELECT value_sum FROM reading_daily WHERE source = %s AND value_sum = %s", (source, value)
            ).fetchone()
            return row is not None

        identifier = ObjectId()
        for number in range(TRIES + 1):
            source = f"try-{number // 2}"
            now = dt.datetime.now(dt.UTC)
            if number % 2 == 0:
                identifier = ObjectId()
                document = {"_id": identifier, "timestamp": now, "source": source, "payload": {"value": 1.0}}
                documents.insert_one(document)
            else:
                documents.update_one({"_id": identifier}, {"$set": {"payload": {"value": 2.0}}})
            value = 1.0 + number % 2
            took = _until(lambda source=source, value=value: seen(source, value), 180)
            if number:  # the first one waits for what the start has to do
                seconds.append(took)
            time.sleep(PAUSE + 5)
    ordered = sorted(seconds)
    return {
        "what": "from insert or update to the rollup", "tries": len(seconds),
        "p50_seconds": round(statistics.median(seconds), 1),
        "p95_seconds": round(ordered[int(0.95 * (len(ordered) - 1))], 1), "worst_seconds": round(ordered[-1], 1),
        "bar": 10,
    }  # fmt: skip


def _steady(place: dict[str, Any]) -> dict[str, Any]:
    """One document a second for a while: CPU of every process, and how Dagster's storage grows."""
    with (
        pymongo.MongoClient[dict[str, Any]](place["MONGO_URI"]) as client,
        _database(place, "dagster") as dagster,
    ):
        documents = client["reading"]["events"]
        time.sleep(30)  # the start's own work
        idle = _cpu(place["pid"], 60)
        before, bytes_before, runs_before = _times(place["pid"]), _size(dagster), _runs(dagster)
        began = time.monotonic()
        while time.monotonic() - began < REST_SECONDS:
            now = dt.datetime.now(dt.UTC)
            documents.insert_one({"timestamp": now, "source": "steady", "payload": {"value": 1.0}})
            time.sleep(1)
        took = time.monotonic() - began
        cpu = _times(place["pid"], before) / took
        return {
            "what": "one document a second", "seconds": round(took), "runs": _runs(dagster) - runs_before,
            "cpu_cores": round(cpu, 3), "idle_cpu_cores": round(idle, 3),
            "dagster_mib_a_day": round((_size(dagster) - bytes_before) / took * 86_400 / 2**20, 1),
        }  # fmt: skip


def _cpu(pid: int, seconds: float) -> float:
    before = _times(pid)
    time.sleep(seconds)
    return _times(pid, before) / seconds


def _times(pid: int, since: float = 0.0) -> float:
    """CPU seconds of a process and all below it, ended children included."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total - since


def _size(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0


def _runs(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM runs").fetchone()
    return int(row[0]) if row else 0
