"""Ticks that were missed and runs that died, under a real daemon: its machine was off, was killed, or its code location was.

Each test goes on where the one before it ended: the life of one deployment.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Iterator

import dagster as dg
import pytest

from hub.instance.alive import HELD
from hub.settings import load_settings
from hub.timescale.schema import upgrade
from pipelines.schedules import monday, partitions_of
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_deployment import Deployment, deployment_of
from tests.integration.dagster_stack import (
    materialized,
    process,
    reading,
    rolled_by_day,
    rows_by_day,
    run_command,
    until,
)
from tests.support.mongo_wire import WireServer

DAY, WEEK = dt.timedelta(days=1), dt.timedelta(weeks=1)
NOW = dt.datetime.now(dt.UTC)
TICK = NOW - dt.timedelta(hours=1)
"""When everything was due today, while the machine was off."""
DUE = TICK.date()
OFF = 16 * DAY
LOADED = DUE - DAY - OFF
"""The last day that was loaded before the machine was off."""
MISSED = [LOADED + number * DAY for number in range(1, OFF.days + 1)]
JOBS = {
    "readings_daily": "readings",
    "report_weekly": "report",
    "metrics_rollups": "metrics",
    "backup_nightly": "backup",
}
# The daemon's monitoring asks every second, and a dead run is told after three; the rest is for slow machines.
SOON = 60
ROWS = "dagster/partition_row_count"


@pytest.fixture(scope="module")
def deployment(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("missed")
    with WireServer() as wire, databases(postgres) as make_database:
        settings = load_settings(
            **{name.lower(): value for name, value in postgres.items()},
            db_name=make_database(),
            mongo_uri=wire.uri,
            mongo_db_name=wire.database,
            mongo_collection=wire.collection,
            reading_start_date=LOADED - 30 * DAY,
            reading_cron=f"{TICK:%M %H} * * *",
            report_cron=f"{TICK:%M %H} * * {TICK.isoweekday()}",
            backup_cron=f"{TICK:%M %H} * * *",
            backup_drill_cron=f"0 4 1 {(TICK + 180 * DAY).month} *",
            metrics_cron=f"{TICK:%M %H} * * *",
            hub_data_dir=folder / "hub",
            backup_dir=folder / "backups",
            _env_file=None,
        )
        upgrade(settings)
        environment = dagster_variables(settings, make_database(), folder / "dagster")
        with deployment_of(settings, wire, environment) as made:
            yield made


def test_after_days_off_each_schedule_asks_once_for_all_that_it_missed(deployment: Deployment) -> None:
    deployment.start("code")
    # It would load the same days: tests/integration/test_arrivals_daemon.py is about it.
    deployment.switch_off("readings_arrived")
    deployment.start("daemon")
    until("the schedules are on", lambda: schedules_on(deployment) >= JOBS.keys())
    deployment.kill("daemon")
    assert deployment.instance.get_runs_count() == 0
    was_off(deployment, OFF + DAY)
    # None that the sensor would find: it looks for ObjectIds only.
    deployment.wire.documents += [reading(str(day), _id=f"of {day}") for day in MISSED[:-1]]
    deployment.wire.documents += [reading(str(MISSED[3]), _id="another")]

    with deployment.loads_wait():
        deployment.start("daemon")
        asked = {schedule: the_run_of(deployment, schedule) for schedule in JOBS}
        assert {schedule: run.job_name for schedule, run in asked.items()} == JOBS
        assert partitions_of(asked["readings_daily"]) == (MISSED[0], MISSED[-1])
        assert partitions_of(asked["report_weekly"]) == (monday(LOADED), monday(DUE) - WEEK)
        assert partitions_of(asked["metrics_rollups"]) == (LOADED + DAY, DUE)
        for schedule in JOBS.keys() - {"readings_daily"}:
            deployment.succeeded(asked[schedule].run_id)
        assert len([path for path in deployment.settings.backup_dir.iterdir() if path.name[0].isdigit()]) == 1
        until("the load is under way", deployment.loads_waiting)
        assert told(deployment) == {"automation": "switched off: readings_arrived"}
        deployment.kill("daemon", "code")
    lost = the_run_of(deployment, "readings_daily").run_id
    deployment.sql("UPDATE runs SET start_time = start_time - 300 WHERE run_id = %s", lost)  # five minutes pass
    assert told(deployment)["runs"] == f"stuck: readings {lost[:8]}"


def test_a_run_that_died_with_its_machine_is_told_and_asked_for_again(deployment: Deployment) -> None:
    died = the_run_of(deployment, "readings_daily")
    assert died.status is dg.DagsterRunStatus.STARTED
    deployment.start("code", "daemon")
    assert deployment.finished(died.run_id, seconds=SOON).status is dg.DagsterRunStatus.FAILURE
    assert "the process of this run is gone" in deployment.log_of(died.run_id)
    (again,) = until("it is asked for again", lambda: children_of(deployment, died))
    assert partitions_of(deployment.succeeded(again.run_id)) == (MISSED[0], MISSED[-1])
    counts = {str(day): 1 for day in MISSED[:-1]} | {str(MISSED[3]): 2, str(MISSED[-1]): 0}
    assert materialized(deployment.instance, "reading_analytics") == counts
    assert rows_by_day(deployment.settings) == {day: count for day, count in counts.items() if count}
    assert rolled_by_day(deployment.settings) == rows_by_day(deployment.settings)
    for asset, name in (("reading_analytics", "loaded"), ("reading_analytics", "written"), ("reading_daily", ROWS)):
        shown = metadata_by_day(deployment, again.run_id, asset)
        assert {day: numbers[name] for day, numbers in shown.items()} == counts | (
            {str(MISSED[3]): 1} if asset == "reading_daily" else {}
        )
        assert not any({"seconds", "documents"} & numbers.keys() for numbers in shown.values())


def test_a_report_that_came_before_the_load_of_its_days_is_written_again(deployment: Deployment) -> None:
    early = the_run_of(deployment, "report_weekly")
    filters = dg.RunsFilter(job_name="report", tags={"dagster/sensor_name": "report_again"})
    (again,) = until("the report is asked for again", lambda: deployment.instance.get_runs(filters))
    deployment.succeeded(again.run_id)
    assert partitions_of(again) == partitions_of(early)
    weeks = [reports_readings(deployment, run.run_id) for run in (early, again)]
    first = dict.fromkeys(weeks[0], 0)
    assert weeks[0] == first
    for day in MISSED[:-1]:
        if str(monday(day)) in first:
            first[str(monday(day))] += 1 + (day == MISSED[3])
    assert weeks[1] == first


def test_a_run_that_died_with_its_code_location_alone_is_told_and_left_to_who_asked_for_it(
    deployment: Deployment,
) -> None:
    with deployment.loads_wait():
        run_id = launched(deployment)
        until("the load is under way", deployment.loads_waiting)
        deployment.kill("code")
        deployment.start("code")
        died = deployment.finished(run_id, seconds=SOON)
    assert died.status is dg.DagsterRunStatus.FAILURE
    assert not children_of(deployment, died)


def test_a_run_outlives_its_code_location_and_the_loss_of_its_lock_and_is_not_told_dead(deployment: Deployment) -> None:
    with deployment.loads_wait():
        run_id = launched(deployment)
        until("the load is under way", deployment.loads_waiting)
        deployment.kill_alone("code")
        deployment.start("code")
        (first,) = holders(deployment, run_id)
        deployment.sql("SELECT pg_terminate_backend(%s, 5000)", first)
        (second,) = until("the lock is taken again", lambda: holders(deployment, run_id))
        assert second != first
        looked = deployment.sql("SELECT clock_timestamp()")[0][0]
        until("the daemon has looked for as long as it is patient", lambda: looked_for(deployment, looked))
        run = deployment.instance.get_run_by_id(run_id)
        assert run
        assert run.status is dg.DagsterRunStatus.STARTED
    deployment.succeeded(run_id)
    until("the lock goes with the run", lambda: not holders(deployment, run_id))


def test_a_launch_in_a_shell_that_was_killed_is_told(deployment: Deployment) -> None:
    day = str(MISSED[0])
    command = ["dg", "launch", "--assets", "reading_analytics,reading_rejects", "--partition-range", f"{day}...{day}"]
    with deployment.loads_wait():
        with process(command, deployment.environment, deployment.folder / "launch.log"):
            until("the load is under way", deployment.loads_waiting)
        (died,) = deployment.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert deployment.finished(died.run_id, seconds=SOON).status is dg.DagsterRunStatus.FAILURE


def schedules_on(deployment: Deployment) -> set[str]:
    states = deployment.instance.all_instigator_state()
    return {state.instigator_name for state in states if state.instigator_type.value == "SCHEDULE"}


def was_off(deployment: Deployment, time: dt.timedelta) -> None:
    """Write the past: everything succeeded until that long ago, and nothing has been done since."""
    done = {"readings_daily": LOADED, "report_weekly": monday(LOADED) - WEEK, "metrics_rollups": LOADED + DAY}
    for schedule, day in done.items():
        tags = {"dagster/schedule_name": schedule, "dagster/partition": str(day)}
        deployment.instance.add_run(dg.DagsterRun(JOBS[schedule], status=dg.DagsterRunStatus.SUCCESS, tags=tags))
    ago = str((NOW - time).timestamp())
    for field in ("start_timestamp", "last_iteration_timestamp"):
        deployment.sql(
            "UPDATE instigators SET instigator_body = regexp_replace(instigator_body, %s, %s)",
            rf'("{field}": )[0-9.]+', rf"\g<1>{ago}".replace(r"\g<1>", "\\1"),
        )  # fmt: skip


def the_run_of(deployment: Deployment, schedule: str) -> dg.DagsterRun:
    """The first run of a schedule that the daemon asked for, once there is one: those of the written past have no log."""

    def asked_for() -> list[dg.DagsterRun]:
        filters = dg.RunsFilter(tags={"dagster/schedule_name": schedule})
        runs = deployment.instance.get_runs(filters, ascending=True)
        return [run for run in runs if deployment.instance.get_records_for_run(run.run_id).records]

    return until(f"{schedule} asks for a run", asked_for)[0]


def told(deployment: Deployment) -> dict[str, str]:
    """What the doctor says of Dagster that is wrong."""
    done = subprocess.run(["hub", "doctor", "--json"], env=deployment.environment, stdout=subprocess.PIPE, timeout=120)
    findings = json.loads(done.stdout)["findings"]
    return {
        each["name"]: each["detail"] for each in findings if not each["ok"] and each["name"] in ("automation", "runs")
    }


def children_of(deployment: Deployment, run: dg.DagsterRun) -> list[dg.DagsterRun]:
    return list(deployment.instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id})))


def reports_readings(deployment: Deployment, run_id: str) -> dict[str, int]:
    """Readings by week, as the reports of a run have them."""
    records = deployment.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    found = [record.asset_materialization for record in records]
    return {str(each.partition): int(each.metadata["readings"].value) for each in found if each}


def metadata_by_day(deployment: Deployment, run_id: str, asset: str) -> dict[str, dict[str, object]]:
    """What a run says of each partition of an asset."""
    records = deployment.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    made = [found for record in records if (found := record.asset_materialization)]
    return {
        str(each.partition): {name: value.value for name, value in each.metadata.items()}
        for each in made
        if each.asset_key.path[-1] == asset
    }


def launched(deployment: Deployment) -> str:
    """A run that a person asked for."""
    tags = {"dagster/partition": str(MISSED[0]), "asked": str(dt.datetime.now())}
    run_command(deployment.environment, "dagster", "job", "launch", "-j", "readings", "--tags", json.dumps(tags))
    (run,) = deployment.instance.get_runs(dg.RunsFilter(tags={"asked": tags["asked"]}))
    return run.run_id


def holders(deployment: Deployment, run_id: str) -> list[int]:
    """The database's processes that hold the sign of life of a run."""
    held = HELD.replace("%(run)s", "%s")
    assert deployment.sql(held, run_id)[0][0] in (True, False)
    found = deployment.sql("SELECT pid FROM pg_stat_activity WHERE application_name = %s", f"run {run_id}")
    return [pid for (pid,) in found if deployment.sql(held, run_id) == [(True,)]]


def looked_for(deployment: Deployment, since: dt.datetime) -> bool:
    """Whether the daemon's monitoring has been at work for three times its patience since then."""
    (row,) = deployment.sql("SELECT body FROM daemon_heartbeats WHERE daemon_type = 'MONITORING'")
    return json.loads(row[0])["timestamp"] > since.timestamp() + 9
