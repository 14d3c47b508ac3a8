"""Backups as Dagster runs them: the jobs, their metadata, their checks."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets.engine import HubResource
from hub.backups.store import Store
from hub.settings import Settings, load_definition_settings
from hub.timescale.connection import connect
from pipelines.backups import BACKUP_JOB, DRILL_JOB, build_backups
from tests.support.backups import fill


@pytest.fixture
def definitions(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    fill(settings, 400)
    volume = tmp_path / "grafana_data"
    volume.mkdir()
    (volume / "file").write_text("content")
    given = settings.environment() | {"BACKUP_VOLUMES": str(volume), "DAGSTER_DB_NAME": settings.db_name}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return dg.Definitions.merge(
        build_backups(load_definition_settings()), dg.Definitions(resources={"hub": HubResource(retry_seconds=0)})
    )


def run(definitions: dg.Definitions, job: str) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def test_the_nightly_job_and_the_drill_pass_all_checks(definitions: dg.Definitions, settings: Settings) -> None:
    nightly = run(definitions, BACKUP_JOB)
    assert nightly.success
    assert checks(nightly) == {"complete": True, "size_not_fallen": True, "checksums": True, "fresh_backup": True}
    (made,) = nightly.asset_materializations_for_node("take_backup")[:1]
    assert made.asset_key.to_user_string() == "database_backup"
    assert {"bytes", "bytes_live", "ratio", "seconds", "path", "dagster/row_count", "rows"} <= made.metadata.keys()
    drilled = run(definitions, DRILL_JOB)
    assert drilled.success
    assert checks(drilled) == {"restorable": True}
    (backup,) = Store(settings.backup_dir).backups()[0]
    assert backup.drill is not None
    assert [part.name for part in backup.manifest.volumes] == ["grafana_data"]


def test_a_database_that_lost_its_rows_is_seen(definitions: dg.Definitions, settings: Settings) -> None:
    run(definitions, BACKUP_JOB)
    with connect(settings) as connection:
        connection.execute("DELETE FROM reading_analytics")
        connection.execute("DELETE FROM rollup_dirty")
    assert checks(run(definitions, BACKUP_JOB))["size_not_fallen"] is False


def test_a_failure_ends_the_run_with_the_hubs_own_sentence(
    definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_VOLUMES", "/no/such/volume")
    failed = run(definitions, BACKUP_JOB)
    assert not failed.success
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    assert "/no/such/volume is no folder: correct BACKUP_VOLUMES" in str(failure.step_failure_data.error)


def test_schedules_and_the_watch_are_on_from_the_start(definitions: dg.Definitions) -> None:
    assert {
        schedule.name: (schedule.cron_schedule, schedule.default_status.value)
        for schedule in definitions.schedules or []
    } == {"backup_nightly": ("30 2 * * *", "RUNNING"), "restore_drill_weekly": ("0 4 * * 0", "RUNNING")}
    (watch,) = definitions.sensors or []
    assert watch.default_status is dg.DefaultSensorStatus.RUNNING
