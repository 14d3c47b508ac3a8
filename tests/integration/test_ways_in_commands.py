"""The ways in that run in the calling process: dg launch, dagster asset materialize, hub backfill."""

from __future__ import annotations

import shlex

import pytest

from hub.settings import Settings
from tests.integration.dagster_stack import (
    READING_ASSETS,
    dead_letter,
    instance_of,
    materialized,
    reading,
    rolled_by_day,
    rows_by_day,
    run_command,
)
from tests.support.mongo_wire import WireServer

BEFORE, FIRST, EMPTY, THIRD, LAST, AFTER = (f"2026-03-{day:02}" for day in range(1, 7))
RANGE = f"{FIRST}...{LAST}"
DAYS = {FIRST, EMPTY, THIRD, LAST}
ALL_ASSETS = ",".join(READING_ASSETS)


@pytest.fixture
def readings(wire: WireServer) -> WireServer:
    """Two readings and a dead letter on the first day, none on the second, one on each of the next two, and some
    outside of the range."""
    wire.documents += [
        reading(BEFORE),
        reading(FIRST, 1.5),
        reading(FIRST, 2.5),
        dead_letter(FIRST),
        reading(THIRD, timestamp=f"{THIRD}T23:30:00+00:00"),
        reading(LAST),
        reading(AFTER),
    ]
    return wire


def assert_range_loaded(settings: Settings, environment: dict[str, str]) -> None:
    """Every day of the range is in the tables, in the rollups and in Dagster's books, and no other day."""
    assert rows_by_day(settings) == {FIRST: 2, THIRD: 1, LAST: 1}
    assert rolled_by_day(settings) == {FIRST: 2, THIRD: 1, LAST: 1}
    assert rolled_by_day(settings, "reading_hourly") == {FIRST: 2, THIRD: 1, LAST: 1}
    with instance_of(environment) as instance:
        assert [run.status.value for run in instance.get_runs()] == ["SUCCESS"]
        assert materialized(instance, "reading_analytics") == {FIRST: 2, EMPTY: 0, THIRD: 1, LAST: 1}
        assert materialized(instance, "reading_rejects") == {FIRST: 1, EMPTY: 0, THIRD: 0, LAST: 0}
        for rollup in ("reading_hourly", "reading_daily"):
            assert set(materialized(instance, rollup)) == DAYS


def test_dg_launch_loads_every_day_of_a_range_in_one_run(
    readings: WireServer, settings: Settings, dagster_environment: dict[str, str]
) -> None:
    run_command(dagster_environment, "dg", "launch", "--assets", ALL_ASSETS, "--partition-range", RANGE)
    assert_range_loaded(settings, dagster_environment)


def test_dagster_asset_materialize_loads_every_day_of_a_range_in_one_run(
    readings: WireServer, settings: Settings, dagster_environment: dict[str, str]
) -> None:
    run_command(
        dagster_environment, "dagster", "asset", "materialize", "--select", ALL_ASSETS,
        "--partition-range", RANGE, "-m", "pipelines.definitions",
    )  # fmt: skip
    assert_range_loaded(settings, dagster_environment)


def test_make_backfill_loads_every_day_of_a_range_in_one_run(
    readings: WireServer, settings: Settings, dagster_environment: dict[str, str]
) -> None:
    # A dry run, so that make installs nothing; its last line is what it would run.
    # Below `make test` it would also say which folder it enters and leaves.
    dry = ("make", "-n", "--no-print-directory")
    planned = run_command(dagster_environment, *dry, "backfill", f"FROM={FIRST}", f"TO={LAST}")
    command = shlex.split(planned.splitlines()[-1])
    assert command == [".venv/bin/hub", "backfill", FIRST, LAST]
    run_command(dagster_environment, "hub", *command[1:])
    assert_range_loaded(settings, dagster_environment)


def test_dg_launch_loads_a_single_day(
    readings: WireServer, settings: Settings, dagster_environment: dict[str, str]
) -> None:
    run_command(dagster_environment, "dg", "launch", "--assets", ALL_ASSETS, "--partition", THIRD)
    assert rows_by_day(settings) == {THIRD: 1}
    with instance_of(dagster_environment) as instance:
        assert materialized(instance, "reading_analytics") == {THIRD: 1}
