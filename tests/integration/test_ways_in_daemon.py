"""The ways in that need the webserver and the daemon: queued jobs, the UI, UI backfills, the schedule, the sensor.

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
from bson.objectid import ObjectId

from hub.loading.load import load
from hub.settings import load_settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import connect
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
    until,
)
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import everything

MONGO_PASSWORD = "pA55-of-the-source"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
ASSET_KEYS = [{"path": [name]} for name in READING_ASSETS]
SENSOR = {**REPOSITORY, "sensorName": "readings_arrived"}
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
    """All but the sensor's work is asked for at once, and goes on while the sensor's tests wait for the sensor:
    the queue, the backfill daemon and the schedule keep one waiting for many seconds each.

    The documents are none that the sensor would find: it looks for ObjectIds only.
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


# --- The sensor ---------------------------------------------------------------------------------------------


@pytest.fixture
def sensor(stack: Stack) -> Iterator[None]:
    """The sensor is on for the time of the test."""
    answer = stack.graphql(
        """mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
             ... on Sensor { id } ... on Error { message } } }""",
        selector=SENSOR,
    )
    yield
    stack.graphql(
        "mutation ($id: String!) { stopSensor(id: $id) { __typename ... on Error { message } } }",
        id=answer["startSensor"]["id"],
    )


@dataclass(frozen=True)
class Tick:
    """One look of the sensor, and the cursor that it left."""

    timestamp: float
    ended: float
    cursor: dict[str, Any]
    run_ids: list[str]


def ticks(stack: Stack) -> list[Tick]:
    """The ticks that have ended, the newest first; one that failed fails the test."""
    data = stack.graphql(
        """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
             ... on Error { message } ... on Sensor { sensorState { ticks(limit: 50) {
               timestamp endTimestamp status cursor runIds error { message } } } } } }""",
        selector=SENSOR,
    )
    found = data["sensorOrError"]["sensorState"]["ticks"]
    assert not [tick["error"] for tick in found if tick["error"]]
    return [
        Tick(tick["timestamp"], tick["endTimestamp"], json.loads(tick["cursor"] or "{}"), tick["runIds"])
        for tick in found
        if tick["status"] in ("SUCCESS", "SKIPPED")
    ]


def requesting_tick(stack: Stack, *, after: float) -> Tick:
    """The first tick after a time that asked for runs."""
    return until(
        "the sensor asks for runs",
        lambda: next((t for t in reversed(ticks(stack)) if t.timestamp > after and t.run_ids), None),
    )


def next_tick(stack: Stack, *, after: float) -> Tick:
    return until(
        "the sensor looks again",
        lambda: next((t for t in reversed(ticks(stack)) if t.timestamp > after), None),
    )


def ended_at(stack: Stack, run_id: str) -> float:
    record = stack.instance.get_run_record_by_id(run_id)
    assert record is not None
    assert record.end_time is not None
    return record.end_time


def ranges(stack: Stack, run_ids: list[str]) -> set[tuple[str, str]]:
    """First and last day of each of the runs."""
    runs = [stack.finished(run_id) for run_id in run_ids]
    return {(run.tags[RANGE_START], run.tags[RANGE_END]) for run in runs}


def now() -> float:
    return dt.datetime.now(dt.UTC).timestamp()


@pytest.mark.usefixtures("sensor")
def test_the_sensor_asks_for_exactly_the_days_touched_and_moves_on_after_success(stack: Stack) -> None:
    began = now()
    arrived = [reading(day) for day in ("2026-04-01", "2026-04-02", "2026-04-02", "2026-04-08")]
    stack.wire.documents += arrived
    asked = requesting_tick(stack, after=began)
    assert asked.cursor["done"] < str(arrived[0]["_id"]), "the cursor waits for the runs"
    assert ranges(stack, asked.run_ids) == {("2026-04-01", "2026-04-02"), ("2026-04-08", "2026-04-08")}
    for run_id in asked.run_ids:
        stack.succeeded(run_id)

    loaded = max(ended_at(stack, run_id) for run_id in asked.run_ids)
    moved = next_tick(stack, after=loaded)
    assert moved.cursor["done"] == str(max(document["_id"] for document in arrived))
    assert moved.run_ids == []
    early = [tick for tick in ticks(stack) if asked.timestamp <= tick.timestamp and tick.ended < loaded]
    assert {tick.cursor["done"] for tick in early} == {asked.cursor["done"]}
    counts = rows_by_day(stack.settings)
    assert [counts.get(day) for day in ("2026-04-01", "2026-04-02", "2026-04-08")] == [1, 2, 1]


@pytest.mark.usefixtures("sensor")
def test_after_a_failed_run_the_cursor_stays_and_the_days_are_asked_for_again(stack: Stack) -> None:
    began = now()
    late_id = ObjectId.from_datetime(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5))
    with connect(stack.settings, autocommit=True) as connection:
        connection.execute("ALTER TABLE reading_analytics ADD CONSTRAINT no_nook CHECK (source <> 'nook')")
        stack.wire.documents.append(reading("2026-05-03", _id=late_id, source="nook"))
        asked = requesting_tick(stack, after=began)
        (run_id,) = asked.run_ids
        assert not stack.finished(run_id).is_success
        connection.execute("ALTER TABLE reading_analytics DROP CONSTRAINT no_nook")
    assert "no_nook" in stack.log_of(run_id)

    kept = next_tick(stack, after=ended_at(stack, run_id))
    assert kept.cursor["done"] == asked.cursor["done"]
    assert (kept.cursor["failures"], kept.run_ids) == (1, [])
    stop_waiting(stack, kept.cursor)
    again = requesting_tick(stack, after=kept.timestamp)
    assert ranges(stack, again.run_ids) == ranges(stack, asked.run_ids) == {("2026-05-03", "2026-05-03")}
    stack.succeeded(again.run_ids[0])
    assert rows_by_day(stack.settings)["2026-05-03"] == 1


def stop_waiting(stack: Stack, cursor: dict[str, Any]) -> None:
    """What an operator does who will not wait a minute for the next try: edit the cursor in the UI."""
    # The daemon writes the cursor a moment after the tick that left it, and would write over the edited one.
    until("the tick's cursor is kept", lambda: kept_cursor(stack) == cursor)
    stack.graphql(
        """mutation ($selector: SensorSelector!, $cursor: String) {
             setSensorCursor(sensorSelector: $selector, cursor: $cursor) { ... on Error { message } } }""",
        selector=SENSOR,
        cursor=json.dumps({**cursor, "not_before": None}),
    )


def kept_cursor(stack: Stack) -> dict[str, Any]:
    """The cursor that the next tick begins with."""
    data = stack.graphql(
        """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
             ... on Error { message } ... on Sensor { sensorState {
               typeSpecificData { ... on SensorData { lastCursor } } } } } }""",
        selector=SENSOR,
    )
    found: dict[str, Any] = json.loads(data["sensorOrError"]["sensorState"]["typeSpecificData"]["lastCursor"])
    return found


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
    assert failed, "the test of the sensor makes a run fail"
    shown = json.dumps(
        [
            stack.graphql(SHOWN, repository=REPOSITORY),
            *(stack.graphql(SHOWN_OF_A_RUN, run=run.run_id) for run in (*failed, stack.succeeded(requested.run_id))),
        ]
    )
    for part in ("configuredValues", "mirror", "no_nook", "documents_per_second"):
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
