"""The proxy API under load: a 30-day rollup at 200 requests a second, and as fast as it goes (with wrk)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from hub.embedded.postgres import EmbeddedPostgres
from hub.embedded.process import free_port
from hub.rollups.declared import ROLLUPS
from hub.rollups.refresh import refresh_all
from hub.settings import Settings, load_settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.support.proxy import make_token, until

RATE = 200
SECONDS = 20
CONNECTIONS = 16
DAYS, SOURCES, TYPES = 30, 5, 4
_FIRST = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def run() -> Iterator[dict[str, Any]]:
    """Yield a result for each bucket length, and one for the most requests a second where wrk is on PATH."""
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as settings, _proxy(settings) as port:
        token = make_token(settings, "read")
        window = f"from={_FIRST:%Y-%m-%d}&to={_FIRST + dt.timedelta(days=DAYS):%Y-%m-%d}"
        daily = f"/api/readings/rollup?bucket=day&{window}"
        one_source = f"/api/readings/rollup?bucket=hour&{window}&source=source-1&event_type=type-1"
        for name, path in (("day, all sources", daily), ("hour, one source and type", one_source)):
            asyncio.run(_load(port, path, token, rate=50, seconds=2))  # plans, caches, connections
            latencies, failed, size = asyncio.run(_load(port, path, token, rate=RATE, seconds=SECONDS))
            yield {
                "what": "rollup of 30 days",
                "bucket": name,
                "requests_per_second": RATE,
                "requests": len(latencies),
                "failed": failed,
                "bytes": size,
                **{f"p{share}_ms": _percentile(latencies, share) for share in (50, 95, 99)},
                "max_ms": round(1000 * max(latencies), 1),
                "load": round(os.getloadavg()[0], 1),
            }
        if shutil.which("wrk"):
            yield _wrk(port, daily, token)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[Settings]:
    """A database with 30 days of readings by 5 sources and 4 types, 720 a source, type and day."""
    server = EmbeddedPostgres(folder)
    server.start()
    try:
        names = {name.lower(): value for name, value in server.environment().items()}
        settings = load_settings(
            **names, mongo_uri="mongodb://none", hub_data_dir=folder / "hub", _env_file=None,
            proxy_rate_per_second=100_000,
        )  # fmt: skip
        upgrade(settings)
        with connect(settings, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value)"
                " SELECT concat_ws('-', s, t, at), at, 'source-' || s, 'type-' || t, 1.5"
                " FROM generate_series(1, %s) AS s, generate_series(1, %s) AS t,"
                " generate_series(%s, %s - interval '1 second', interval '20 minutes') AS at",
                (SOURCES, TYPES, _FIRST, _FIRST + dt.timedelta(days=DAYS)),
            )
            connection.execute(
                "INSERT INTO rollup_dirty (rollup, bucket)"
                " SELECT DISTINCT 'reading_hourly', date_trunc('hour', event_timestamp) FROM reading_analytics"
            )
            refresh_all(connection, ROLLUPS)
            connection.execute("VACUUM ANALYZE")
        yield settings
    finally:
        server.stop()


@contextlib.contextmanager
def _proxy(settings: Settings) -> Iterator[int]:
    """The proxy as it is served, in a process of its own; its port."""
    port = free_port()
    command = [sys.executable, "-m", "hub", "proxy", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **settings.environment()}, stdout=subprocess.DEVNULL)
    try:

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            return False

        until("the proxy is ready", ready)
        yield port
    finally:
        process.terminate()
        process.wait()


async def _load(port: int, path: str, token: str, *, rate: int, seconds: int) -> tuple[list[float], int, int]:
    """Latencies in seconds, failures and the size of an answer, at a steady rate over kept connections.

    A latency counts from when the request was due, not from when a connection was free for it: an answer
    that is late delays the ones behind it, and that is theirs to pay.
    """
    head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        connections.put_nowait(await asyncio.open_connection("127.0.0.1", port, limit=2**24))
    latencies: list[float] = []
    failed, size = 0, 0

    async def ask(due: float) -> None:
        nonlocal failed, size
        reader, writer = await connections.get()
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer)
        assert length is not None
        size = len(await reader.readexactly(int(length[1])))
        connections.put_nowait((reader, writer))
        latencies.append(time.perf_counter() - due)
        failed += not answer.startswith(b"HTTP/1.1 200")

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(rate * seconds):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(due))
    while not connections.empty():
        connections.get_nowait()[1].close()
    return latencies, failed, size


def _percentile(latencies: list[float], share: int) -> float:
    """Milliseconds."""
    return round(1000 * sorted(latencies)[min(len(latencies) - 1, len(latencies) * share // 100)], 1)


def _wrk(port: int, path: str, token: str) -> dict[str, Any]:
    """As many requests as go through on 8 connections."""
    command = [
        "wrk", "-t1", "-c8", f"-d{SECONDS // 2}s", "--latency", "-H", f"Authorization: Bearer {token}",
        f"http://127.0.0.1:{port}{path}",
    ]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    assert rate is not None
    assert p99 is not None
    return {
        "what": "rollup of 30 days, as fast as it goes",
        "requests_per_second": float(rate[1]),
        "failed": 0 if "Non-2xx" not in text else text[text.index("Non-2xx") :].split("\n")[0],
        "p99_ms": float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]],
        "cores": psutil.cpu_count(),
    }


if __name__ == "__main__":
    import json

    for result in run():
        print(json.dumps(result))
