"""The collector when its database stops, hangs or comes back, and when it is killed itself."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from hub.embedded.postgres import EmbeddedPostgres
from hub.errors import UnavailableError
from hub.metrics.collect import Collector
from hub.metrics.sample import Sampler
from hub.metrics.spool import Spool
from hub.settings import Settings, load_settings
from hub.timescale.connection import connect, parameters
from hub.timescale.schema import upgrade
from tests.support.proxy import until

NOON = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of our own, to be stopped and killed."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("outage"), settings={"fsync": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(server: EmbeddedPostgres, tmp_path: Path) -> Settings:
    """Settings for that server, whose `system_metrics` is empty."""
    names = {name.lower(): value for name, value in server.environment().items()}
    made = load_settings(**names, mongo_uri="mongodb://none", hub_data_dir=tmp_path, _env_file=None)
    upgrade(made)
    with connect(made) as connection:
        connection.execute("TRUNCATE system_metrics, rollup_dirty")
    return made


@pytest.fixture
def collector(settings: Settings, tmp_path: Path) -> Collector:
    spool = Spool(tmp_path / "metrics" / "spool.sqlite", limit_bytes=64 * 2**20)
    return Collector(settings, Sampler(hostname="box"), spool)


def stored(settings: Settings) -> list[dt.datetime]:
    """The times of the stored samples, in the order of the transactions that wrote them.

    Not by ctid: a table that grows by several pages at once fills them in any order.
    """
    with connect(settings) as connection:
        rows = connection.execute(
            "SELECT time FROM system_metrics WHERE metric_type = 'cpu' ORDER BY xmin::text::bigint, time"
        )
        return [time for (time,) in rows]


def test_a_day_without_the_database_is_replayed_in_order(
    server: EmbeddedPostgres, settings: Settings, collector: Collector
) -> None:
    port, minutes = server.port, 24 * 60
    server.stop()
    collector.tick(NOON.timestamp())
    with pytest.raises(UnavailableError):
        collector.send()
    payloads = collector.sampler.sample(NOON)
    for minute in range(0, minutes, 60):  # an hour at a time: each append is an fsync
        times = [NOON + dt.timedelta(minutes=minute + number) for number in range(60)]
        collector.spool.append(
            type(found)(time, found.host, found.os, found.metric_type, found.payload)
            for time in times
            for found in payloads
        )
    assert not collector.try_to_send()
    server.start(port)
    assert collector.try_to_send()
    assert stored(settings) == [NOON + dt.timedelta(minutes=minute) for minute in range(minutes)]
    assert collector.spool.waiting() == 0
    with connect(settings) as connection:
        marked = connection.execute("SELECT count(DISTINCT bucket) FROM rollup_dirty").fetchone()
    assert marked == (minutes / 5,)


def test_a_database_that_hangs_does_not_stop_the_clock(
    server: EmbeddedPostgres, settings: Settings, collector: Collector
) -> None:
    stop = threading.Event()
    running = threading.Thread(target=collector.run, args=(0.2, stop))
    with psycopg.connect(**parameters(settings)) as blocker:
        blocker.execute("LOCK TABLE system_metrics")
        running.start()
        until("ten samples wait", lambda: collector.spool.waiting() >= 50)
    until("they have arrived", lambda: len(stored(settings)) >= 10)
    stop.set()
    running.join(120)
    assert not running.is_alive()
    times = stored(settings)
    assert times == sorted(times)
    assert collector.spool.waiting() == 0


def test_killed_between_the_insert_and_the_spool_nothing_is_doubled(settings: Settings, collector: Collector) -> None:
    collector.tick(NOON.timestamp())
    taken = collector.spool.take(100)
    collector.send()
    collector.spool.append([found for _, found in taken])  # as if the samples had not been removed
    collector.send()
    assert stored(settings) == [NOON]


def test_the_service_survives_kill_9_and_a_restart_of_the_database(
    server: EmbeddedPostgres, settings: Settings, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "hub", "metrics", "collect", "--interval", "1s"]
    environment = {**os.environ, **settings.environment()}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdout=(tmp_path / "log").open("ab"), cwd=tmp_path)

    spool = tmp_path / "metrics" / "spool.sqlite"
    port, first = server.port, start()
    try:
        until("a sample arrives", lambda: stored(settings))
        server.stop()
        until("two samples wait", lambda: Spool(spool, limit_bytes=2**26).waiting() >= 10)
        first.kill()
        first.wait()
    finally:
        first.kill()
        server.start(port)
    waiting = {found.time for _, found in Spool(spool, limit_bytes=2**26).take(1000)}
    second = start()
    try:
        until("what waited has arrived", lambda: waiting <= set(stored(settings)))
        second.send_signal(signal.SIGTERM)
        assert second.wait(120) == 0
    finally:
        second.kill()
    times = stored(settings)
    assert len(times) == len(set(times))
    assert all(time.microsecond == 0 for time in times)
    assert "the database is back" not in (tmp_path / "log").read_text()  # the second one never saw it away
    assert "samples wait in" in (tmp_path / "log").read_text()


def test_the_service_stays_below_its_limits(settings: Settings, tmp_path: Path) -> None:
    """At most 60 MB, and at one sample a minute at most 1 % of a core."""
    import psutil

    command = [sys.executable, "-m", "hub", "metrics", "collect", "--interval", "1s"]
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        try:
            watched = psutil.Process(process.pid)
            until("two samples arrive", lambda: len(stored(settings)) >= 2)
            begun, count = sum(watched.cpu_times()[:2]), len(stored(settings))
            until("three more arrive", lambda: len(stored(settings)) >= count + 3)
            each = (sum(watched.cpu_times()[:2]) - begun) / (len(stored(settings)) - count)
            memory = watched.memory_info().rss
        finally:
            process.kill()
    assert memory < 60 * 2**20
    assert each / 60 < 0.01
