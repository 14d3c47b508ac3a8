"""A check that never fails checks nothing: rows are lost and rollups falsified for real, and the run must stop there."""

from __future__ import annotations

import dagster as dg
import pytest

from assets.engine import HubResource
from hub.settings import Settings
from hub.timescale.connection import Connection
from hub.timescale.level import detect
from pipelines.definitions import build_defs
from tests.integration.dagster_stack import materialized, reading
from tests.support.mongo_wire import WireServer

FIRST, SECOND, THIRD = "2026-03-05", "2026-03-06", "2026-03-07"
LOSE = """
    CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.source = 'nook' THEN RETURN NULL; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER lose BEFORE INSERT ON reading_analytics FOR EACH ROW EXECUTE FUNCTION lose();
"""


@pytest.fixture
def job(settings: Settings, wire: WireServer) -> dg.JobDefinition:
    """The readings job; the source has two readings on each of three days."""

    class Here(HubResource):
        def settings(self) -> Settings:
            return settings

    wire.documents += [reading(day, source=source) for day in (FIRST, SECOND, THIRD) for source in ("kobo", "komga")]
    return build_defs({"hub": Here(retry_seconds=0)}).resolve_job_def("readings")


def launch(job: dg.JobDefinition, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": THIRD}
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {f"{found.asset_key.path[-1]}.{found.check_name}": found for found in result.get_asset_check_evaluations()}


def test_a_row_that_the_database_swallows_fails_the_load_itself_and_leaves_nothing(
    job: dg.JobDefinition, wire: WireServer, connection: Connection
) -> None:
    connection.execute(LOSE)  # type: ignore[arg-type]
    wire.documents.append(reading(SECOND, source="nook"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = launch(job, instance)
        assert not result.success
        assert materialized(instance, "reading_hourly") == {}
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    message = str(failed.step_failure_data.error_display_string)
    assert "rows were lost" in message
    assert f"({SECOND}: 3 sent, 2 found)" in message
    assert connection.execute("SELECT count(*) FROM reading_analytics").fetchone() == (0,)


@pytest.mark.parametrize("day", [FIRST, SECOND, THIRD])
def test_a_day_whose_books_do_not_add_up_fails_its_check(
    job: dg.JobDefinition, connection: Connection, day: str
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert launch(job, instance).success
        connection.execute("UPDATE reading_days SET read = read + 1 WHERE day = %s", (day,))
        result = launch(job, instance)
    assert not result.success
    lost = verdicts(result)["reading_analytics.nothing_lost"]
    assert not lost.passed
    (line,) = str(lost.metadata["unbalanced"].value).splitlines()[2:]
    assert line == f"| {day} | 3 | 2 | 0 | 2 |"


@pytest.mark.parametrize("rollup", ["reading_hourly", "reading_daily"])
def test_a_rollup_that_was_falsified_fails_its_check_and_says_how_to_mend_it(
    job: dg.JobDefinition, connection: Connection, rollup: str
) -> None:
    if detect(connection).continuous_aggregates:
        pytest.skip("nobody can falsify a continuous aggregate by an UPDATE")
    with dg.DagsterInstance.ephemeral() as instance:
        assert launch(job, instance).success
        connection.execute(f"UPDATE {rollup} SET events = events + 1 WHERE bucket < %s", (SECOND,))  # type: ignore[call-overload]
        result = launch(job, instance)
    assert not result.success
    wrong = verdicts(result)[f"{rollup}.equals_raw"]
    assert not wrong.passed
    assert "rebuild: true" in str(wrong.description)
