"""Dagster tries a load again where that can help, and only there; the run says why it failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.engine import RETRIES, HubResource
from hub.settings import Settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from pipelines.definitions import build_defs
from tests.support.load_faults import PASSWORD, source_uri
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import DAY, everything, readings, rows


@pytest.fixture
def materialize(
    settings: Settings, wire: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dg.ExecuteInProcessResult]:
    """Run the readings job for the day, in this process; keyword arguments are other settings."""
    wire.documents[:] = readings(5)
    monkeypatch.chdir(tmp_path)

    def run(config: dict[str, Any] | None = None, **other: str) -> dg.ExecuteInProcessResult:
        for name, value in {**settings.environment(), "MONGO_URI": source_uri(wire), **other}.items():
            monkeypatch.setenv(name, value)
        job = build_defs({"hub": HubResource(retry_seconds=0)}).resolve_job_def("readings")
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                partition_key=str(DAY), instance=instance, raise_on_error=False, run_config=config
            )

    return run


def retries(result: dg.ExecuteInProcessResult) -> int:
    return sum(event.event_type_value == "STEP_RESTARTED" for event in result.all_events)


def said(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step shows in the UI, causes and all."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.error_display_string) + str(event.step_failure_data.user_failure_data)


def test_a_transient_failure_is_tried_again_and_the_run_succeeds(
    materialize: Callable[..., dg.ExecuteInProcessResult], settings: Settings, wire: WireServer
) -> None:
    wire.faults = Faults(close_after_batches=1, times=2)  # twice, since the driver itself tries a query again
    result = materialize()
    assert result.success
    assert retries(result) == 1
    with connect(settings) as connection:
        assert len(rows(connection)) == 5


def test_a_transient_failure_that_stays_ends_the_run_with_its_reason(
    materialize: Callable[..., dg.ExecuteInProcessResult], settings: Settings, wire: WireServer
) -> None:
    before = everything(settings)
    wire.faults = Faults(close_after_batches=1)
    result = materialize()
    assert retries(result) == RETRIES
    text = said(result)
    assert "went away" in text
    assert "Nothing was changed" in text
    assert PASSWORD not in text
    assert everything(settings) == before


@pytest.mark.parametrize(
    ("faults", "other", "reason"),
    [
        (Faults(refuse_authentication=True), {}, "Correct MONGO_URI"),
        (Faults(refuse_commands=["find"]), {}, "Grant it the role `read`"),
        (Faults(), {"DB_PASSWORD": "wrong-hunter2"}, "Correct DB_PASSWORD"),
        (Faults(), {"DB_NAME": "no_such_database"}, "hub db upgrade"),
        (Faults(), {"MONGO_URI": "http://ann:hunter2@host"}, "MONGO_URI must begin with mongodb://"),
        (Faults(), {"DB_PORT": "many"}, "DB_PORT must be a valid integer"),
    ],
    ids=["MongoDB password", "MongoDB permission", "PostgreSQL password", "no database", "malformed", "no number"],
)
def test_a_permanent_failure_is_not_tried_again(
    materialize: Callable[..., dg.ExecuteInProcessResult],
    settings: Settings,
    wire: WireServer,
    faults: Faults,
    other: dict[str, str],
    reason: str,
) -> None:
    before = everything(settings)
    wire.faults = faults
    result = materialize(**other)
    assert retries(result) == 0
    text = said(result)
    assert reason in text
    assert PASSWORD not in text
    assert everything(settings) == before


def test_a_database_without_the_schema_is_not_tried_again(
    materialize: Callable[..., dg.ExecuteInProcessResult], settings: Settings, make_database: Callable[[], str]
) -> None:
    name = make_database()
    result = materialize(DB_NAME=name)
    assert retries(result) == 0
    assert "hub db upgrade" in said(result)
    upgrade(settings.model_copy(update={"db_name": name}))
    assert materialize(DB_NAME=name).success


def test_a_refused_mirror_is_not_tried_again_and_names_the_day(
    materialize: Callable[..., dg.ExecuteInProcessResult], settings: Settings, wire: WireServer
) -> None:
    assert materialize().success
    before = everything(settings)
    del wire.documents[2:]
    mirror = {"ops": {"load_readings": {"config": {"mode": "mirror"}}}}
    result = materialize(mirror)
    assert retries(result) == 0
    assert f"mirror would delete 3 of the 5 rows of {DAY}" in said(result)
    assert everything(settings) == before
    mirror["ops"]["load_readings"]["config"]["max_delete_share"] = 1.0  # type: ignore[assignment]
    assert materialize(mirror).success
