"""The sensor under a real daemon: whatever comes into the collection, changes in it, or was missed, becomes rows."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pymongo
import pytest
from bson.objectid import ObjectId

from hub.mongo import Documents
from hub.settings import load_settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_stack import (
    REPOSITORY,
    Stack,
    dagster_stack,
    reading,
    rolled_by_day,
    rows_by_day,
    until,
)
from tests.support.mongo_wire import WireServer

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
SENSOR = {**REPOSITORY, "sensorName": "readings_arrived"}
COMPLETE = dg.AssetCheckKey(dg.AssetKey("reading_analytics"), "complete")


@pytest.fixture(scope="module")
def stack(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running deployment with a source that has change streams; nobody has switched anything on."""
    folder = tmp_path_factory.mktemp("stack")
    with WireServer(change_streams=True) as wire, databases(postgres) as make_database:
        settings = load_settings(
            **{name.lower(): value for name, value in postgres.items()},
            db_name=make_database(),
            mongo_uri=wire.uri,
            mongo_db_name=wire.database,
            mongo_collection=wire.collection,
            reading_compress_after_days=36_500,
            reading_sensor_seconds=5,
            hub_data_dir=folder / "hub",
            backup_dir=folder / "backups",
            _env_file=None,
        )
        upgrade(settings)
        environment = dagster_variables(settings, make_database(), folder / "dagster")
        with dagster_stack(settings, wire, environment, folder) as started:
            # What comes before the first look is the ledger's to find, which is another test.
            until("the sensor has begun to watch", lambda: any("changeStream" in str(r) for r in wire.requests))
            yield started


@pytest.fixture
def documents(stack: Stack) -> Iterator[Documents]:
    with pymongo.MongoClient[dict[str, Any]](stack.wire.uri, tz_aware=True) as client:
        yield client[stack.wire.database][stack.wire.collection]


@dataclass(frozen=True)
class Tick:
    """One look of the sensor that has ended, with the cursor that it left."""

    timestamp: float
    cursor: dict[str, Any]
    run_ids: list[str]
    logged: str


def ticks(stack: Stack) -> list[Tick]:
    """The ticks that have ended, the newest first; one that failed fails the test."""
    data = stack.graphql(
        """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
             ... on Error { message } ... on Sensor { sensorState { ticks(limit: 100) {
               timestamp status cursor runIds error { message } logEvents { events { message } } } } } } }""",
        selector=SENSOR,
    )
    found = data["sensorOrError"]["sensorState"]["ticks"]
    assert not [tick["error"] for tick in found if tick["error"]]
    return [
        Tick(
            tick["timestamp"],
            json.loads(json.loads(tick["cursor"] or "{}").get("reading", "{}")),
            tick["runIds"],
            " ".join(event["message"] for event in tick["logEvents"]["events"]),
        )
        for tick in found
        if tick["status"] in ("SUCCESS", "SKIPPED")
    ]


def runs_for(stack: Stack, first: str, last: str | None = None) -> list[dg.DagsterRun]:
    return stack.runs(**{RANGE_START: first, RANGE_END: last or first})


def loaded(stack: Stack, day: str, rows: int = 1) -> None:
    """Wait until the day has as many rows and events in its rollup."""
    until(f"{rows} rows of {day}", lambda: rows_by_day(stack.settings).get(day) == rows)
    until(f"the rollup of {day}", lambda: rolled_by_day(stack.settings).get(day) == rows)


def value_of(stack: Stack, identifier: str) -> float | None:
    with connect(stack.settings) as connection:
        row = connection.execute("SELECT value FROM reading_analytics WHERE mongo_id = %s", (identifier,)).fetchone()
    return row[0] if row else None


def test_documents_of_any_id_and_age_arrive_and_ask_for_exactly_their_days(stack: Stack, documents: Documents) -> None:
    documents.insert_many(
        [
            reading("2026-04-01", _id="a text"),
            reading("2026-04-02", _id=17),
            reading("2026-04-02", _id=ObjectId.from_datetime(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))),
            reading("2025-04-08"),
        ]
    )
    loaded(stack, "2026-04-02", 2)
    loaded(stack, "2026-04-01")
    loaded(stack, "2025-04-08")
    assert len(runs_for(stack, "2026-04-01", "2026-04-02")) == 1
    assert len(runs_for(stack, "2025-04-08")) == 1


def test_a_value_that_is_corrected_in_mongodb_is_corrected_here(stack: Stack, documents: Documents) -> None:
    documents.insert_one(reading("2026-04-11", _id="corrected", value=1.0))
    until("the row", lambda: value_of(stack, "corrected") == 1.0)
    documents.update_one({"_id": "corrected"}, {"$set": {"payload": {"value": 2.0}}})
    until("the corrected row", lambda: value_of(stack, "corrected") == 2.0)
    documents.replace_one({"_id": "corrected"}, reading("2026-04-13", _id="corrected", value=3.0))
    until("the row of another day", lambda: value_of(stack, "corrected") == 3.0)
    loaded(stack, "2026-04-13")
    until("the day that it left", lambda: "2026-04-11" not in rolled_by_day(stack.settings))


def test_what_is_deleted_stays_a_row(stack: Stack, documents: Documents) -> None:
    documents.insert_one(reading("2026-04-15", _id="deleted"))
    loaded(stack, "2026-04-15")
    documents.delete_one({"_id": "deleted"})
    began = ticks(stack)[0].timestamp
    until("the sensor looks again", lambda: ticks(stack)[0].timestamp > began)
    assert rows_by_day(stack.settings)["2026-04-15"] == 1


def test_while_documents_keep_coming_the_token_waits_for_the_runs(stack: Stack, documents: Documents) -> None:
    documents.insert_one(reading("2026-04-17", _id="first"))
    loaded(stack, "2026-04-17")
    documents.insert_one(reading("2026-04-18", _id="second"))
    loaded(stack, "2026-04-18")
    asked = [tick for tick in ticks(stack) if tick.run_ids]
    assert all(tick.cursor["pending"]["mark"]["token"] != tick.cursor["mark"]["token"] for tick in asked[:2])


def test_after_a_failed_run_the_token_stays_and_the_days_are_asked_for_again(
    stack: Stack, documents: Documents
) -> None:
    with connect(stack.settings, autocommit=True) as connection:
        connection.execute("ALTER TABLE reading_analytics ADD CONSTRAINT no_nook CHECK (source <> 'nook')")
        documents.insert_one(reading("2026-05-03", _id="refused", source="nook"))
        (run,) = until("a run", lambda: runs_for(stack, "2026-05-03"))
        assert not stack.finished(run.run_id).is_success
        until("the failure is seen", lambda: next((t for t in ticks(stack) if t.cursor.get("failures")), None))
        connection.execute("ALTER TABLE reading_analytics DROP CONSTRAINT no_nook")
    assert "no_nook" in stack.log_of(run.run_id)
    loaded(stack, "2026-05-03")
    assert len(runs_for(stack, "2026-05-03")) >= 2


# --- What no stream told ------------------------------------------------------------------------------------


def launch_ledger(stack: Stack) -> dg.DagsterRun:
    """What a person does in the UI: launch the job `ledger`."""
    data = stack.graphql(
        """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
             __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }""",
        params={"selector": {**REPOSITORY, "pipelineName": "ledger"}, "runConfigData": {}},
    )
    return stack.succeeded(data["launchRun"]["run"]["runId"])


def evaluation(stack: Stack, run: dg.DagsterRun) -> Any:
    (record,) = stack.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    return record.event_log_entry.dagster_event.event_specific_data  # type: ignore[union-attr]


def test_what_nobody_told_is_found_by_the_ledger_asked_for_in_few_runs_and_then_complete(stack: Stack) -> None:
    """Documents that came while no stream could see them: into days that were loaded, and every other day of a year."""
    days = [(dt.date(2024, 1, 1) + dt.timedelta(days=2 * number)).isoformat() for number in range(180)]
    stack.wire.documents += [reading(day, _id=f"unseen {day}") for day in [*days, "2026-04-02"]]
    before = len(stack.runs())
    found = evaluation(stack, launch_ledger(stack))
    assert not found.passed
    assert found.metadata["missing"].value == 181
    assert found.metadata["missing_days"].value == 181
    assert "2024-01-01" in found.description
    loaded(stack, days[0])
    loaded(stack, days[-1])
    loaded(stack, "2026-04-02", 3)

    def complete() -> bool:
        return bool(evaluation(stack, launch_ledger(stack)).passed)

    until("everything is loaded", complete)
    assert set(days) <= set(rows_by_day(stack.settings))
    assert len(stack.runs()) - before <= 12


def test_a_token_that_is_lost_asks_the_ledger(stack: Stack, documents: Documents) -> None:
    until("no run is under way", lambda: ticks(stack)[0].cursor.get("pending") is None)
    documents.insert_one(reading("2026-06-03", _id="told"))
    loaded(stack, "2026-06-03")
    until("no run is under way", lambda: ticks(stack)[0].cursor.get("pending") is None)
    stack.wire.documents.append(reading("2026-06-05", _id="untold"))
    stack.wire.forget_changes(unseen=1)
    loaded(stack, "2026-06-05")


def test_a_server_that_stops_offering_a_stream_is_told_once_and_new_ids_are_found(
    stack: Stack, documents: Documents
) -> None:
    stack.wire.change_streams = False
    stack.wire.forget_changes()
    told = until("it is told", lambda: [tick for tick in ticks(stack) if "offers no change stream" in tick.logged])
    documents.insert_one(reading("2026-06-09"))
    loaded(stack, "2026-06-09")
    again = [tick for tick in ticks(stack) if "offers no change stream" in tick.logged]
    assert [tick.timestamp for tick in again] == [tick.timestamp for tick in told]
    stack.wire.change_streams = True
    documents.insert_one(reading("2026-06-11", _id="by the stream again"))
    loaded(stack, "2026-06-11")
