"""The weekly report through Dagster: one run over two weeks, the files, the metadata, and the same again."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from bson.objectid import ObjectId

from hub.loading.load import load
from hub.report.weekly import Week, analyse, read
from hub.report.weekly_file import make, write
from hub.rollups.declared import READING_DAILY, READING_HOURLY
from hub.rollups.refresh import refresh
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection
from pipelines.definitions import build_defs
from tests.support.mongo_wire import WireServer

MONDAY = dt.date(2026, 3, 2)
SUNDAY = MONDAY + dt.timedelta(days=13)
TODAY = dt.date(2026, 6, 1)


@pytest.fixture
def two_weeks(settings: Settings, wire: WireServer, connection: Connection) -> Settings:
    """Two loaded weeks: one kobo reading a day, two on the second Wednesday, and nothing on its Thursday."""
    days = [MONDAY + dt.timedelta(days=number) for number in range(14) if number != 10]
    for day in [*days, MONDAY + dt.timedelta(days=9)]:
        noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
        document = {"_id": ObjectId(), "timestamp": noon, "source": "kobo", "payload": {"value": 2.5}}
        wire.documents += [document]
    load(settings, reading_of(settings), MONDAY, SUNDAY + dt.timedelta(days=1))
    refresh(connection, READING_HOURLY, [READING_DAILY])
    refresh(connection, READING_DAILY)
    return settings


def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Run the job over both weeks as one run; return the metadata by partition."""
    for variable, value in settings.environment().items():
        monkeypatch.setenv(variable, value)
    tags = {
        "dagster/asset_partition_range_start": str(MONDAY),
        "dagster/asset_partition_range_end": str(MONDAY + dt.timedelta(weeks=1)),
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = build_defs().resolve_job_def("report").execute_in_process(tags=tags, instance=instance)
    assert result.success
    made = result.asset_materializations_for_node("reading_report")
    return {str(each.partition): {key: value.value for key, value in each.metadata.items()} for each in made}


def files(settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (settings.hub_data_dir / "reports").iterdir()}


def test_one_run_reports_on_each_of_its_weeks_and_repeats_itself(
    two_weeks: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(two_weeks, monkeypatch)
    assert list(first) == ["2026-03-02", "2026-03-09"]
    assert [each["readings"] for each in first.values()] == [7, 7]
    assert [each["streak_days"] for each in first.values()] == [7, 3]
    assert first["2026-03-09"]["readings_week_before"] == 7
    assert "![Readings by day and by week](data:image/png;base64," in first["2026-03-09"]["report"]
    written = files(two_weeks)
    assert sorted(written) == ["2026-W10.md", "2026-W10.png", "2026-W11.md", "2026-W11.png"]
    second_week = written["2026-W11.md"].decode()
    assert "![Readings by day and by week](2026-W11.png)" in second_week
    assert "A streak of 10 days ended on Wednesday, 11 March: Thursday had no reading." in second_week
    assert Path(first["2026-03-09"]["file"]) == two_weeks.hub_data_dir.absolute() / "reports" / "2026-W11.md"

    assert run(two_weeks, monkeypatch) == first
    assert files(two_weeks) == written


def test_what_is_read_stops_at_the_end_of_the_week(two_weeks: Settings, connection: Connection) -> None:
    history = read(connection, Week(MONDAY), TODAY)
    assert history.days["day"].max() == MONDAY + dt.timedelta(days=6)
    assert list(history.streaks["days"]) == [7]
    assert analyse(history).values is not None
    later = read(connection, Week(MONDAY + dt.timedelta(weeks=1)), TODAY)
    assert list(later.sources.itertuples(index=False, name=None)) == [("kobo", MONDAY, MONDAY + dt.timedelta(days=6))]
    assert later.hours["events"].sum() == 7
    assert set(later.hours["hour"]) == {12}


def test_a_day_whose_last_load_was_before_its_end_is_not_whole(two_weeks: Settings, connection: Connection) -> None:
    assert analyse(read(connection, Week(MONDAY), TODAY)).missing == ()
    connection.execute("UPDATE reading_days SET whole = false WHERE day = %s", (MONDAY,))
    assert analyse(read(connection, Week(MONDAY), TODAY)).missing == (MONDAY,)


def test_a_week_that_was_never_loaded_says_so(settings: Settings) -> None:
    made = make(settings, Week(MONDAY), TODAY)
    assert "Not loaded yet, or not to the end: the whole week." in made.path.read_text()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "2026-W10.md"
    write(path, b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hub.report.weekly_file.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_the_schedule_asks_for_the_week_before() -> None:
    repository = build_defs().get_repository_def()
    schedule = repository.get_schedule_def("report_weekly")
    with dg.DagsterInstance.local_temp() as instance:
        context = dg.build_schedule_context(
            instance=instance,
            repository_def=repository,
            scheduled_execution_time=dt.datetime(2026, 11, 23, 10, 30, tzinfo=dt.UTC),
        )
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert request.tags["dagster/partition"] == "2026-11-16"
