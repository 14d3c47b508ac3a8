"""A failed run is told once until its job recovers; stale readings are told once; the message says what to do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import pytest
from bson.objectid import ObjectId

from assets.engine import HubResource
from hub.loading.load import load
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection
from pipelines.alerts import readings_stale, run_failed, run_succeeded, topic_of
from pipelines.definitions import build_defs
from tests.support.mongo_wire import WireServer
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def hub(settings: Settings, receiver: Receiver) -> HubResource:
    url = type(settings.db_password)(f"json://user:hunter2@127.0.0.1:{receiver.server_port}/")
    given = settings.model_copy(update={"notify_urls": url})

    class Given(HubResource):
        """Dagster copies resources, so that the settings stand in the class."""

        def settings(self) -> Settings:
            return given

    return Given(retry_seconds=0)


def run(hub: HubResource, instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    job = build_defs({"hub": hub}).resolve_job_def("readings")
    return job.execute_in_process(instance=instance, partition_key="2026-03-05", raise_on_error=False)


def tell_failure(hub: HubResource, instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> None:
    context = dg.build_run_status_sensor_context(
        "run_failed", result.get_run_failure_event(), instance, result.dagster_run, resources={"hub": hub}
    )
    run_failed(context.for_run_failure())


def test_a_failing_job_is_told_once_and_its_recovery_once(
    hub: HubResource, receiver: Receiver, connection: Connection
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        connection.execute("ALTER TABLE reading_days RENAME TO away")
        for _ in range(2):
            failed = run(hub, instance)
            assert not failed.success
            tell_failure(hub, instance, failed)
        assert [title for title, _ in receiver.messages] == ["Reading Hub: job readings failed"]
        message = receiver.messages[0][1]
        assert "Run `hub db upgrade`" in message
        assert failed.run_id not in message  # it was the first of the two runs that was told
        assert "hunter2" not in message

        connection.execute("ALTER TABLE away RENAME TO reading_days")
        succeeded = run(hub, instance)
        assert succeeded.success
        for _ in range(2):
            run_succeeded(
                dg.build_run_status_sensor_context(
                    "run_succeeded",
                    succeeded.get_run_success_event(),
                    instance,
                    succeeded.dagster_run,
                    resources={"hub": hub},
                )
            )
        assert [title for title, _ in receiver.messages][1:] == ["Reading Hub: job readings works again"]


def test_stale_readings_are_told_until_a_new_one_is_loaded(
    hub: HubResource, receiver: Receiver, wire: WireServer
) -> None:
    settings = hub.settings()
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def arrive(day: dt.datetime) -> None:
        wire.documents.append({"_id": ObjectId(), "timestamp": day, "source": "kobo"})
        load(settings, reading_of(settings), day.date(), day.date() + dt.timedelta(days=1))

    readings_stale(dg.build_sensor_context(resources={"hub": hub}))
    assert receiver.messages == []
    arrive(today - dt.timedelta(days=3))
    for _ in range(2):
        readings_stale(dg.build_sensor_context(resources={"hub": hub}))
    assert [title for title, _ in receiver.messages] == ["Reading Hub: readings failed"]
    arrive(today)
    readings_stale(dg.build_sensor_context(resources={"hub": hub}))
    assert receiver.messages[1][0] == "Reading Hub: readings works again"


def test_a_run_without_a_job_is_named_by_its_assets() -> None:
    run = dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset({dg.AssetKey("b"), dg.AssetKey("a")}))
    assert topic_of(run) == "run of a, b"
