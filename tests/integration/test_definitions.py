"""What Dagster knows of: it loads from nothing, shows the whole graph, and takes other resources."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.engine import HubResource
from hub.errors import SettingsError
from hub.settings import Settings
from pipelines.definitions import build_defs
from tests.integration.dagster_stack import ROOT, dead_letter, materialized, reading, rows_by_day
from tests.support.mongo_wire import WireServer

COLLECTION = dg.AssetKey(["mongo", "readings"])
READINGS, REJECTS = dg.AssetKey("reading_analytics"), dg.AssetKey("reading_rejects")
HOURLY, DAILY = dg.AssetKey("reading_hourly"), dg.AssetKey("reading_daily")

# It ends the process, since a connection may be opened by a thread. Audit events do not see inside of libpq.
GUARD = """
import os, sys
import psycopg

def seen(event, arguments=()):
    if event in ("socket.connect", "socket.getaddrinfo", "psycopg"):
        os.write(2, f"connection by {event}".encode())
        os._exit(3)

sys.addaudithook(seen)
psycopg.connect = psycopg.Connection.connect = lambda *arguments, **options: seen("psycopg")
"""


@pytest.fixture(autouse=True)
def _no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's own `.env` must not reach the tests."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def graph() -> dg.AssetGraph:
    return build_defs().get_repository_def().asset_graph


def run_guarded(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with an empty environment, where every connection ends the process."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{GUARD}\n{code}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={}, cwd=folder, text=True, capture_output=True, timeout=120
    )


def test_definitions_load_with_no_environment_and_open_no_connection(tmp_path: Path) -> None:
    done = run_guarded(
        "from pipelines.definitions import defs\n"
        "repository = defs().get_repository_def()\n"
        "repository.load_all_definitions()\n"
        "print(len(repository.asset_graph.get_all_asset_keys()) > 4)",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pymongo; pymongo.MongoClient('127.0.0.1', 1).admin.command('ping')",
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "import psycopg; psycopg.connect('host=127.0.0.1')",
    ],
)
def test_the_guard_sees_connections(code: str, tmp_path: Path) -> None:
    done = run_guarded(code, tmp_path)
    assert (done.returncode, done.stderr.partition(" by ")[0]) == (3, "connection")


def test_the_graph_leads_from_the_collection_to_the_rollups(graph: dg.AssetGraph) -> None:
    assert not graph.get(COLLECTION).is_materializable
    assert graph.get(READINGS).parent_keys == {COLLECTION}
    assert graph.get(REJECTS).parent_keys == {COLLECTION}
    assert graph.get(HOURLY).parent_keys == {READINGS}
    assert graph.get(DAILY).parent_keys == {HOURLY}


def test_groups_and_kinds_say_what_an_asset_is(graph: dg.AssetGraph) -> None:
    groups = {key.path[-1]: graph.get(key).group_name for key in (COLLECTION, READINGS, REJECTS, HOURLY, DAILY)}
    assert groups == {
        "readings": "source",
        "reading_analytics": "readings",
        "reading_rejects": "readings",
        "reading_hourly": "rollups",
        "reading_daily": "rollups",
    }
    assert graph.get(COLLECTION).kinds == {"mongodb"}
    for key in (READINGS, REJECTS, HOURLY, DAILY):
        assert graph.get(key).kinds == {"postgres", "timescaledb"}


def test_every_asset_has_an_owner_a_group_a_kind_and_a_description(graph: dg.AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.owners, key
        assert node.kinds, key
        assert node.group_name != "default", key
        assert node.description, key


def test_readings_are_partitioned_by_utc_day_and_backfilled_in_one_run(graph: dg.AssetGraph) -> None:
    for key in (READINGS, REJECTS, HOURLY, DAILY):
        node = graph.get(key)
        assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)
        assert node.partitions_def.timezone == "UTC"
        assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_today_is_a_partition(graph: dg.AssetGraph) -> None:
    days = graph.get(READINGS).partitions_def
    assert days is not None
    before = dt.datetime.now(dt.UTC).date().isoformat()
    assert days.get_last_partition_key() in (before, dt.datetime.now(dt.UTC).date().isoformat())
    assert days.get_first_partition_key() == "2020-01-01"


def test_checks_stand_beside_their_assets(graph: dg.AssetGraph) -> None:
    checks = {(key.asset_key.path[-1], key.name) for key in graph.asset_check_keys}
    assert checks >= {
        ("reading_analytics", "nothing_lost"),
        ("reading_analytics", "fresh"),
        ("reading_rejects", "few_rejects"),
        ("reading_hourly", "equals_raw"),
        ("reading_daily", "equals_raw"),
    }
    assert all(graph.get_check_spec(key).description for key in graph.asset_check_keys)


def test_every_schedule_and_sensor_is_on_from_the_start() -> None:
    repository = build_defs().get_repository_def()
    every = [*repository.schedule_defs, *repository.sensor_defs]
    assert [each.name for each in every if each.default_status.value != "RUNNING"] == []


def schedule_of_readings() -> dg.ScheduleDefinition:
    return build_defs().get_repository_def().get_schedule_def("readings_daily")


def test_the_schedule_is_at_ten_utc_unless_reading_cron_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = schedule_of_readings()
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 10 * * *", "UTC")
    monkeypatch.setenv("READING_CRON", "30 4 * * 1-5")
    assert schedule_of_readings().cron_schedule == "30 4 * * 1-5"


def test_a_malformed_cron_is_named_when_definitions_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READING_CRON", "at ten")
    with pytest.raises(SettingsError, match="READING_CRON must be a cron expression"):
        build_defs()


def test_overrides_replace_a_resource(settings: Settings, wire: WireServer) -> None:
    class Here(HubResource):
        def settings(self) -> Settings:
            return settings

    wire.documents += [reading("2026-03-05"), reading("2026-03-05"), dead_letter("2026-03-05")]
    job = build_defs({"hub": Here()}).resolve_job_def("readings")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, partition_key="2026-03-05").success
        assert materialized(instance, "reading_analytics") == {"2026-03-05": 2}
        assert materialized(instance, "reading_rejects") == {"2026-03-05": 1}
    assert rows_by_day(settings) == {"2026-03-05": 2}


def test_the_checks_of_a_run_say_what_they_found(settings: Settings, wire: WireServer) -> None:
    class Here(HubResource):
        def settings(self) -> Settings:
            return settings

    wire.documents += [reading("2026-03-05", 2.5), dead_letter("2026-03-05")]
    job = build_defs({"hub": Here()}).resolve_job_def("readings")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, partition_key="2026-03-05")
    found = {(check.asset_key.path[-1], check.check_name): check for check in result.get_asset_check_evaluations()}
    lost = found["reading_analytics", "nothing_lost"]
    assert lost.passed
    assert [lost.metadata[name].value for name in ("read", "loaded", "rejected")] == [2, 1, 1]
    assert not found["reading_rejects", "few_rejects"].passed
    assert not found["reading_analytics", "fresh"].passed
    daily = found["reading_daily", "equals_raw"]
    assert daily.passed
    assert (daily.metadata["events"].value, daily.metadata["value_sum"].value) == (1, 2.5)
