"""From samples to `system_metrics`, its rollups and its checks in Dagster."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest

from hub.metrics.checks import Counts, counts, hosts
from hub.metrics.collect import Collector
from hub.metrics.model import Sample
from hub.metrics.rollups import METRIC_ROLLUPS, SYSTEM_METRICS_5M
from hub.metrics.sample import Sampler
from hub.metrics.spool import Spool
from hub.metrics.store import store
from hub.rollups.refresh import refresh_all
from hub.settings import Settings, load_settings
from hub.timescale.connection import Connection
from hub.timescale.level import detect
from hub.timescale.schema import upgrade
from pipelines.definitions import build_defs
from tests.conftest import databases

_DAYS = itertools.count(1)


@pytest.fixture(scope="module")
def settings(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One database for the module; each test has days of its own."""
    with databases(postgres) as make:
        servers = {name.lower(): value for name, value in postgres.items()}
        folder = tmp_path_factory.mktemp("hub")
        made = load_settings(**servers, db_name=make(), mongo_uri="mongodb://none", hub_data_dir=folder, _env_file=None)
        upgrade(made)
        yield made


@pytest.fixture
def noon() -> dt.datetime:
    """Noon of a day that, with the four days after it, no other test uses."""
    return dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC) + dt.timedelta(days=5 * next(_DAYS))


@pytest.fixture
def spool(settings: Settings, tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.sqlite", limit_bytes=2**20)


def cpu(noon: dt.datetime, minute: int, percent: float, host: str = "box") -> Sample:
    payload = {"percent": percent, "load_1m": percent / 100, "cores": 4}
    return Sample(noon + dt.timedelta(minutes=minute), host, "Linux", "cpu", payload)


def disk(noon: dt.datetime, minute: int, used: int) -> Sample:
    payload = {"used": used, "total": 100, "percent": used, "mounts": {"/": {"used": used}}, "read_rate": None}
    return Sample(noon + dt.timedelta(minutes=minute), "box", "Linux", "disk", payload)


def rows_of(connection: Connection, noon: dt.datetime, what: str, table: str, time: str = "bucket") -> list[Any]:
    """Columns of the rows of a table that are of that day."""
    order = "bucket, host" if table.startswith("system_metrics_") else "1"
    found = connection.execute(
        f"SELECT {what} FROM {table} WHERE {time} >= %s AND {time} < %s ORDER BY {order}",
        (noon - dt.timedelta(hours=12), noon + dt.timedelta(hours=12)),
    )
    return found.fetchall()


def dirty(connection: Connection, noon: dt.datetime) -> list[dt.datetime]:
    return [bucket for (bucket,) in rows_of(connection, noon, "bucket", "rollup_dirty")]


def test_a_sample_is_stored_once_and_marks_its_bucket_once(connection: Connection, noon: dt.datetime) -> None:
    assert store(connection, [cpu(noon, 1, 10), cpu(noon, 7, 20)]) == 2
    assert dirty(connection, noon) == [noon, noon + dt.timedelta(minutes=5)]
    refresh_all(connection, METRIC_ROLLUPS)
    assert store(connection, [cpu(noon, 1, 99), cpu(noon, 7, 99)]) == 0
    assert dirty(connection, noon) == []


def test_rollups_are_exact_with_different_numbers_of_samples(connection: Connection, noon: dt.datetime) -> None:
    store(connection, [cpu(noon, minute, percent) for minute, percent in ((0, 10), (1, 20), (2, 30), (5, 100))])
    store(connection, [disk(noon, 0, 10), disk(noon, 1, 90), disk(noon, 6, 40), cpu(noon, 0, 50, host="other")])
    refresh_all(connection, METRIC_ROLLUPS)
    columns = "host, samples, cpu_percent_avg, cpu_percent_max, cpu_cores, disk_percent_max, disk_mounts->'/'->>'used'"
    assert rows_of(connection, noon, columns, "system_metrics_5m") == [
        ("box", 5, 20, 30, 4, 90, "90"),
        ("other", 1, 50, 50, 4, None, None),
        ("box", 2, 100, 100, 4, 40, "40"),
    ]
    assert rows_of(connection, noon, columns, "system_metrics_hourly") == [
        ("box", 7, 40, 100, 4, 90, "40"),
        ("other", 1, 50, 50, 4, None, None),
    ]
    rates = rows_of(connection, noon, "disk_read_rate_count, disk_read_rate_avg", "system_metrics_hourly")
    assert rates[0] == (0, None)


def test_a_late_sample_reaches_the_rollups(connection: Connection, noon: dt.datetime) -> None:
    store(connection, [cpu(noon, 0, 10)])
    refresh_all(connection, METRIC_ROLLUPS)
    store(connection, [cpu(noon, 1, 30)])
    refresh_all(connection, METRIC_ROLLUPS)
    assert rows_of(connection, noon, "cpu_percent_avg", "system_metrics_hourly") == [(20,)]


def test_a_refresh_hides_nothing_that_comes_into_an_open_bucket(connection: Connection) -> None:
    soon = SYSTEM_METRICS_5M.ceil(dt.datetime.now(dt.UTC)) + dt.timedelta(days=30)
    store(connection, [cpu(soon, 0, 10, "open")])
    refresh_all(connection, METRIC_ROLLUPS)
    store(connection, [cpu(soon, 1, 30, "open")])
    if not detect(connection).continuous_aggregates:  # levels 2 and 3 are as new as the last refresh
        refresh_all(connection, METRIC_ROLLUPS)
    for rollup in METRIC_ROLLUPS:
        found = connection.execute(f"SELECT cpu_percent_avg FROM {rollup.name} WHERE host = 'open'")
        assert found.fetchall() == [(20,)]
    connection.execute("DELETE FROM system_metrics WHERE host = 'open'")


def test_counts_agree_but_for_what_waits_for_a_refresh(connection: Connection, noon: dt.datetime) -> None:
    days = (noon.date(), noon.date() + dt.timedelta(days=1))
    store(connection, [cpu(noon, 0, 10), cpu(noon, 70, 10)])
    refresh_all(connection, METRIC_ROLLUPS)
    store(connection, [cpu(noon, 1, 30)])
    for rollup in METRIC_ROLLUPS:
        assert counts(connection, rollup, *days) == Counts(raw=1, rolled=1)
    connection.execute("DELETE FROM rollup_dirty")  # a mark that was lost
    assert counts(connection, METRIC_ROLLUPS[0], *days) == Counts(raw=3, rolled=2)


def test_hosts_tells_the_newest_sample_and_its_kinds(connection: Connection, noon: dt.datetime) -> None:
    store(connection, [cpu(noon, 0, 1, "one"), cpu(noon, 1, 1, "one"), cpu(noon, 0, 1, "two")])
    found = [state for state in hosts(connection, noon) if state.host in ("one", "two")]
    assert [(state.host, state.newest, state.kinds) for state in found] == [
        ("one", noon + dt.timedelta(minutes=1), ("cpu",)),
        ("two", noon, ("cpu",)),
    ]
    later = hosts(connection, noon + dt.timedelta(hours=1))
    assert not {state.host for state in later} & {"one", "two"}


def test_a_tick_of_this_host_arrives(
    settings: Settings, connection: Connection, noon: dt.datetime, spool: Spool
) -> None:
    collector = Collector(settings, Sampler(hostname="box"), spool)
    collector.tick(noon.timestamp())
    assert spool.waiting() == 5
    assert collector.send() == 5
    assert spool.waiting() == 0
    kinds = rows_of(connection, noon, "metric_type, host, time", "system_metrics", "time")
    assert kinds == [(kind, "box", noon) for kind in ("cpu", "disk", "memory", "network", "uptime")]


def test_a_sample_that_the_database_refuses_does_not_hold_up_the_others(
    settings: Settings, connection: Connection, noon: dt.datetime, spool: Spool
) -> None:
    bad = Sample(noon, "box", "Linux", "disk", {"mounts": {"/\0": 1}})
    spool.append([cpu(noon, 0, 1), bad, cpu(noon, 1, 2)])
    Collector(settings, Sampler(hostname="box"), spool).send()
    assert rows_of(connection, noon, "metric_type", "system_metrics", "time") == [("cpu",), ("cpu",)]
    assert spool.waiting() == 0


class TestDagster:
    @pytest.fixture
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.ephemeral()

    def launch(
        self, settings: Settings, instance: dg.DagsterInstance, first: dt.datetime, last: dt.datetime
    ) -> dg.ExecuteInProcessResult:
        job = build_defs().resolve_job_def("metrics")
        tags = {
            "dagster/asset_partition_range_start": f"{first:%Y-%m-%d}",
            "dagster/asset_partition_range_end": f"{last:%Y-%m-%d}",
        }
        with mock.patch.dict(os.environ, settings.environment()):
            return job.execute_in_process(instance=instance, tags=tags)

    def test_the_job_rolls_up_a_range_of_days_and_checks_it(
        self, settings: Settings, connection: Connection, instance: dg.DagsterInstance, noon: dt.datetime
    ) -> None:
        days = [noon + dt.timedelta(days=number) for number in range(3)]
        store(connection, [cpu(day, 0, 10) for day in days])
        done = self.launch(settings, instance, days[0], days[-1])
        assert done.success
        for day in days:
            assert rows_of(connection, day, "samples", "system_metrics_hourly") == [(1,)]
        for name in ("system_metrics_5m", "system_metrics_hourly"):
            materialized = instance.get_materialized_partitions(dg.AssetKey(name))
            assert materialized == {f"{day:%Y-%m-%d}" for day in days}
        verdicts = {check.check_name: check.passed for check in done.get_asset_check_evaluations()}
        assert verdicts == {"collected": False, "every_kind": True, "equals_raw": True}

    def test_a_fresh_sample_of_every_kind_passes_the_checks(
        self, settings: Settings, connection: Connection, instance: dg.DagsterInstance
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        store(connection, Sampler(hostname="box").sample(now))
        done = self.launch(settings, instance, now, now)
        assert {check.check_name: check.passed for check in done.get_asset_check_evaluations()} == {
            "collected": True,
            "every_kind": True,
            "equals_raw": True,
        }

    def test_the_schedule_asks_for_today(self, noon: dt.datetime) -> None:
        repository = build_defs().get_repository_def()
        with dg.DagsterInstance.local_temp() as instance:
            context = dg.build_schedule_context(
                instance=instance, scheduled_execution_time=noon, repository_def=repository
            )
            (request,) = repository.get_schedule_def("metrics_rollups").evaluate_tick(context).run_requests or []
        assert request.tags["dagster/partition"] == f"{noon:%Y-%m-%d}"
        assert request.run_key == f"metrics_rollups:{noon:%Y-%m-%dT%H:%M}"
