"""The ways in that need the webserver and the daemon: queued jobs, the UI, UI backfills, the schedule.

All share one deployment whose passwords are known, and the last test looks for them in all that it wrote.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from hub.loading.load import load
from hub.settings import load_settings
from hub.streams.declared import reading as reading_of
from hub.timescale.schema import upgrade
from pipelines.sensors import _UNDERWAY
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_stack import (
    READING_ASSETS,
    REPOSITORY,
    Stack,
    dagster_stack,
    everything_stored,
    findable,
    materialized,
    process,
    reading,
    rolled_by_day,
    rows_by_day,
    switch_off,
    until,
)
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import everything

MONGO_PASSWORD = "pA55-of-the-source"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
ASSET_KEYS = [{"path": [name]} for name in READING_ASSETS]
SCHEDULE = {**REPOSITORY, "scheduleName": "readings_daily"}

QUEUED = ["2026-03-01", "2026-03-02", "2026-03-03"]
BACKFILLED = ["2026-03-11", "2026-03-12", "2026-03-13", "2026-03-14"]
LAUNCHED = "2026-03-21"
KILLED = "2026-03-25"
TODAY = dt.datetime.now(dt.UTC).date()
AROUND_MIDNIGHT = [(TODAY - dt.timedelta(days=1)).isoformat(), TODAY.isoformat()]


@pytest.fixture(scope="module")
def stack(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running deployment, whose source wants a password."""
    folder = tmp_path_factory.mktemp("stack")
    with WireServer() as wire, databases(postgres) as make_database:
        settings = load_settings(
            **{name.lower(): value for name, value in postgres.items()},
            db_name=make_database(),
            mongo_uri=f"mongodb://reader:{MONGO_PASSWORD}@127.0.0.1:{wire.port}/?authMechanism=PLAIN"
            "&directConnection=true&serverSelectionTimeoutMS=2000",
            mongo_db_name=wire.database,
            mongo_collection=wire.collection,
            reading_compress_after_days=36_500,  # `loaded` looks at columns that compressed chunks do not show
            reading_cron="* * * * *",
            reading_sensor_seconds=5,
            hub_data_dir=folder / "hub",
            backup_dir=folder / "backups",
            _env_file=None,
        )
        upgrade(settings)
        environment = dagster_variables(settings, make_database(), folder / "dagster")
        with dagster_stack(settings, wire, environment, folder) as started:
            switch_off(started, "readings_arrived")  # tests/integration/test_arrivals_daemon.py is about it
            yield started


@dataclass(frozen=True)
class Requested:
    """What was asked for: a UI launch, a UI backfill, a command and its log."""

    run_id: str
    backfill_id: str
    job_launch: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(scope="module", autouse=True)
def requested(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Requested]:
    """All of the work is asked for at once: the queue, the backfill daemon and the schedule keep one waiting for many
    seconds each.
    """
    numbers = itertools.count()

    def document(day: str) -> dict[str, Any]:
        return reading(day, _id=f"requested {next(numbers)}")

    gone = document(LAUNCHED)
    queued, backfilled = [*QUEUED, QUEUED[0]], [BACKFILLED[0], *BACKFILLED[2:]]
    days = [LAUNCHED, LAUNCHED, *queued, *backfilled, *AROUND_MIDNIGHT]
    stack.wire.documents += [gone, *map(document, days)]
    day = dt.date.fromisoformat(LAUNCHED)
    assert load(stack.settings, reading_of(stack.settings), day, day + dt.timedelta(days=1)).loaded == 3
    stack.wire.documents.remove(gone)

    start_schedule(stack)
    backfill = launch_backfill(stack, BACKFILLED)
    launched = launch(stack, LAUNCHED, {"mode": "mirror", "max_delete_share": 0.5})
    tags = json.dumps({RANGE_START: QUEUED[0], RANGE_END: QUEUED[-1]})
    log = tmp_path_factory.mktemp("requested") / "job_launch.log"
    command = ["dagster", "job", "launch", "-j", "readings", "--tags", tags]
    with process(command, stack.environment, log) as job_launch:
        yield Requested(launched, backfill, job_launch, log)


def launch(stack: Stack, day: str, config: dict[str, Any] | None = None) -> str:
    """Press `Materialize` in the UI for one day of every asset; return the run's id."""
    data = stack.graphql(
        """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
             __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message }
             ... on RunConfigValidationInvalid { errors { message } } } }""",
        params={
            "selector": {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": ASSET_KEYS},
            "runConfigData": {"ops": {"load_readings": {"config": config or {}}}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
        },
    )
    assert data["launchRun"]["__typename"] == "LaunchRunSuccess", data
    return str(data["launchRun"]["run"]["runId"])


def launch_backfill(stack: Stack, days: list[str]) -> str:
    """Ask for a backfill of every asset in the UI; return its id."""
    data = stack.graphql(
        """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
             __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }""",
        params={"assetSelection": ASSET_KEYS, "partitionNames": days, "title": "March"},
    )
    assert data["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", data
    return str(data["launchPartitionBackfill"]["backfillId"])


def start_schedule(stack: Stack) -> None:
    """Switch the schedule on, as in the UI."""
    stack.graphql(
        """mutation ($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) {
             __typename ... on Error { message } } }""",
        selector=SCHEDULE,
    )


def stop_schedule(stack: Stack) -> None:
    """Switch the schedule off again."""
    found = stack.graphql(
        """query ($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
             ... on Schedule { id } ... on Error { message } } }""",
        selector=SCHEDULE,
    )
    stack.graphql(
        "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename ... on Error { message } } }",
        id=found["scheduleOrError"]["id"],
    )


# --- Runs ---------------------------------------------------------------------------------------------------


def test_a_ui_launch_loads_its_day_and_in_mode_mirror_deletes_what_left_the_source(
    stack: Stack, requested: Requested
) -> None:
    stack.succeeded(requested.run_id)
    assert rows_by_day(stack.settings)[LAUNCHED] == 2
    assert rolled_by_day(stack.settings)[LAUNCHED] == 2
    shown = latest_metadata(stack, "reading_analytics", LAUNCHED)
    assert (shown["mode"], shown["deleted"], shown["dagster/partition_row_count"]) == ("mirror", 1, 2)


def latest_metadata(stack: Stack, asset: str, day: str) -> dict[str, Any]:
    """What the UI shows beside the latest materialization of a day."""
    data = stack.graphql(
        """query ($key: AssetKeyInput!, $days: [String!]) { assetNodeOrError(assetKey: $key) {
             ... on AssetNode { assetMaterializations(partitions: $days, limit: 1) { metadataEntries {
               label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } } } } } }""",
        key={"path": [asset]},
        days=[day],
    )
    entries = data["assetNodeOrError"]["assetMaterializations"][0]["metadataEntries"]
    return {entry["label"]: entry.get("text", entry.get("intValue")) for entry in entries}


def test_dagster_job_launch_queues_one_run_for_a_range(stack: Stack, requested: Requested) -> None:
    assert requested.job_launch.wait(600) == 0, requested.log.read_text()
    (run,) = stack.runs(**{RANGE_START: QUEUED[0], RANGE_END: QUEUED[-1]})
    stack.succeeded(run.run_id)
    assert [rows_by_day(stack.settings)[day] for day in QUEUED] == [2, 1, 1]
    assert [materialized(stack.instance, "reading_analytics")[day] for day in QUEUED] == [2, 1, 1]
    assert run.job_name == "readings"


def test_a_ui_backfill_becomes_one_run_for_its_range(stack: Stack, requested: Requested) -> None:
    run = until("the backfill's run", lambda: stack.runs(dagster__backfill=requested.backfill_id))[0]
    stack.succeeded(run.run_id)
    assert (run.tags[RANGE_START], run.tags[RANGE_END]) == (BACKFILLED[0], BACKFILLED[-1])
    counts = materialized(stack.instance, "reading_analytics")
    assert [counts[day] for day in BACKFILLED] == [1, 0, 1, 1]
    assert set(BACKFILLED) <= set(materialized(stack.instance, "reading_daily"))
    assert len(stack.runs(dagster__backfill=requested.backfill_id)) == 1
    assert {BACKFILLED[0], BACKFILLED[2], BACKFILLED[3]} <= set(rolled_by_day(stack.settings))


def test_the_schedule_runs_yesterday(stack: Stack, requested: Requested) -> None:
    runs = until("a tick of the schedule", lambda: stack.runs(dagster__schedule_name="readings_daily"))
    stop_schedule(stack)
    run = stack.succeeded(runs[-1].run_id)
    at = dt.datetime.fromisoformat(run.tags[".dagster/scheduled_execution_time"])
    yesterday = (at.astimezone(dt.UTC).date() - dt.timedelta(days=1)).isoformat()
    assert run.tags["dagster/partition"] == yesterday
    assert rows_by_day(stack.settings)[yesterday] == 1


@pytest.mark.parametrize(
    ("scheduled", "asked_for"),
    [
        ("2026-03-11T10:00:00+00:00", "2026-03-10"),
        ("2026-03-01T00:00:00+00:00", "2026-02-28"),
        ("2026-03-01T23:59:00+00:00", "2026-02-28"),
    ],
)
def test_a_tick_of_the_schedule_asks_for_the_utc_day_before_it(stack: Stack, scheduled: str, asked_for: str) -> None:
    data = stack.graphql(
        """mutation ($selector: ScheduleSelector!, $at: Float) {
             scheduleDryRun(selectorData: $selector, timestamp: $at) { ... on Error { message }
               ... on DryRunInstigationTick { evaluationResult { error { message }
                 runRequests { runKey tags { key value } } } } } }""",
        selector=SCHEDULE,
        at=dt.datetime.fromisoformat(scheduled).timestamp(),
    )
    result = data["scheduleDryRun"]["evaluationResult"]
    assert result["error"] is None
    (request,) = result["runRequests"]
    assert {"key": "dagster/partition", "value": asked_for} in request["tags"]


def test_a_run_that_is_killed_in_mid_load_fails_with_a_reason_and_the_next_one_succeeds(stack: Stack) -> None:
    stop_schedule(stack)
    under_way = dg.RunsFilter(statuses=list(_UNDERWAY))
    until("no other run is under way", lambda: stack.instance.get_runs_count(under_way) == 0)
    stack.wire.documents.append(reading(KILLED, _id="killed"))
    before = loaded(stack)
    stack.wire.faults = faults = Faults(stall_after_batches=0)
    run_id = launch(stack, KILLED)
    until("the load waits for MongoDB", faults.stalled.is_set)
    for worker in workers(stack):
        worker.kill()
    stack.wire.faults = Faults()
    faults.release.set()
    assert not stack.finished(run_id).is_success
    assert f"Run execution process for {run_id} was terminated by signal 9 (SIGKILL)" in stack.log_of(run_id)
    assert loaded(stack) == before
    stack.succeeded(launch(stack, KILLED))
    assert rows_by_day(stack.settings)[KILLED] == 1


def loaded(stack: Stack) -> dict[str, Any]:
    """What loads write, with the transaction that wrote each row."""
    tables = everything(stack.settings)
    return {name: tables[name] for name in ("reading_analytics", "reading_rejects", "reading_days", "rollup_dirty")}


def workers(stack: Stack) -> list[psutil.Process]:
    """The processes that execute runs, each started by the code location."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = one.environ().get("DAGSTER_HOME") == stack.environment["DAGSTER_HOME"]
            if ours and any("spawn_main" in word for word in one.cmdline()):
                found.append(one)
    assert found
    return found


# --- Secrets ------------------------------------------------------------------------------------------------


def test_no_password_is_in_anything_that_the_deployment_shows_or_writes(stack: Stack, requested: Requested) -> None:
    failed = stack.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert failed, "the test that kills a run makes one fail"
    shown = json.dumps(
        [
            stack.graphql(SHOWN, repository=REPOSITORY),
            *(stack.graphql(SHOWN_OF_A_RUN, run=run.run_id) for run in (*failed, stack.succeeded(requested.run_id))),
        ]
    )
    for part in ("configuredValues", "mirror", "documents_per_second"):
        assert part in shown
    folder = Path(stack.environment["DAGSTER_HOME"]).parent
    files = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    stored = everything_stored(stack.settings, stack.environment)
    for secret in findable(MONGO_PASSWORD, stack.settings.db_password.get_secret_value()):
        assert secret not in shown
        assert not [text for text in (*stored, *files) if secret in text]


SHOWN_OF_A_RUN = """query ($run: ID!) { runOrError(runId: $run) { ... on Run {
  runConfigYaml tags { key value } eventConnection { events {
    ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { message stack errorChain { error { message stack } } } }
    ... on RunFailureEvent { error { message stack } } } } } } }"""

SHOWN = """query ($repository: RepositorySelector!) {
  runsOrError { ... on Runs { results { runConfigYaml tags { key value } } } }
  assetNodes { assetMaterializations { metadataEntries { label description
    ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
    ... on JsonMetadataEntry { jsonString } } } }
  instance { info }
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) { ... on ResourceDetailsList {
    results { name configuredValues { key value } } } ... on Error { message } }
}"""
