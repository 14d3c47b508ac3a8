"""What each alert rule on a database says: on a new hub, when all is well, and when it is not."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest

from assets.engine import HubResource
from hub.loading.load import load
from hub.metrics.store import store
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection, connect
from pipelines.definitions import build_defs
from tests.conftest import dagster_variables
from tests.support import grafana
from tests.support.grafana_data import backed_up, sample_of_disk
from tests.support.mongo_wire import WireServer
from tests.support.readings import reading, without

RULES = {rule["uid"]: rule for rule in grafana.rules()}
HOUR = dt.timedelta(hours=1)


def asked(connection: Connection, uid: str) -> list[tuple[Any, ...]]:
    """Rows of a rule's query: labels, then the value."""
    (query,) = [one for one in grafana.queries() if one.where == uid]
    return connection.execute(query.text).fetchall()  # type: ignore[call-overload]


def firing(connection: Connection, uid: str) -> list[tuple[Any, ...]]:
    """Labels of the rows that are above the rule's limit."""
    condition = RULES[uid]["data"][-1]["model"]["conditions"][0]["evaluator"]
    assert condition["type"] == "gt"
    return [row[:-1] for row in asked(connection, uid) if row[-1] > condition["params"][0]]


def read(wire: WireServer, settings: Settings, *documents: bytes, days_ago: int) -> None:
    """Load a day's documents."""
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days_ago)
    wire.documents = list(documents)
    load(settings, reading_of(settings), day, day + dt.timedelta(days=1))


def noon(days_ago: int) -> dt.datetime:
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days_ago)
    return dt.datetime.combine(day, dt.time(12), dt.UTC)


@pytest.mark.parametrize(
    ("uid", "without_data"),
    [("rh-backup-stale", "OK"), ("rh-readings-stale", "NoData"), ("rh-rejects", "OK"), ("rh-disk-full", "NoData")],
)
def test_a_new_hub_has_nothing_to_judge(connection: Connection, uid: str, without_data: str) -> None:
    assert asked(connection, uid) == []
    assert RULES[uid]["noDataState"] == without_data


class TestBackups:
    RULE = "rh-backup-stale"

    def test_readings_without_a_backup_fire_after_26_hours(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        read(wire, settings, reading(time=noon(1)), days_ago=1)
        assert firing(connection, self.RULE) == []
        connection.execute("UPDATE reading_days SET load_at = load_at - INTERVAL '27 hours'")
        assert firing(connection, self.RULE) == [()]

    def test_only_a_backup_whose_newest_verification_was_good_counts(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        read(wire, settings, reading(time=noon(1)), days_ago=1)
        backed_up(settings, nights=3)
        assert firing(connection, self.RULE) == []
        connection.execute(
            "UPDATE backup_runs SET state = 'failed' WHERE kind = 'verify' AND started_at > now() - INTERVAL '2 hours'"
        )
        ((hours,),) = asked(connection, self.RULE)
        assert 24 < hours < 26
        connection.execute(
            "UPDATE backup_runs SET state = 'failed' WHERE kind = 'verify' AND started_at > now() - INTERVAL '30 hours'"
        )
        assert firing(connection, self.RULE) == [()]


class TestReadings:
    RULE = "rh-readings-stale"

    def test_a_load_that_is_old_fires_and_a_new_one_ends_it(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        read(wire, settings, reading(time=noon(1)), days_ago=1)
        connection.execute("UPDATE reading_days SET load_at = load_at - INTERVAL '27 hours'")
        assert firing(connection, self.RULE) == [()]
        read(wire, settings, reading(time=noon(0) - 12 * HOUR), days_ago=0)
        assert firing(connection, self.RULE) == []

    def test_a_backfill_of_old_days_does_not_hide_that_nothing_new_comes(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        read(wire, settings, reading(time=noon(1)), days_ago=1)
        connection.execute("UPDATE reading_days SET load_at = load_at - INTERVAL '27 hours'")
        read(wire, settings, reading("old", time=noon(90)), days_ago=90)
        assert firing(connection, self.RULE) == [()]

    def test_a_load_that_finds_no_reading_does_not_count(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        read(wire, settings, days_ago=0)
        assert asked(connection, self.RULE) == []


class TestRejects:
    RULE = "rh-rejects"

    def test_it_fires_above_five_percent_documents_without_a_time_included(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        good = [reading(number, time=noon(1)) for number in range(38)]
        read(wire, settings, *good, without("timestamp", _id="none"), days_ago=1)
        ((percent,),) = asked(connection, self.RULE)
        assert percent == pytest.approx(100 / 39)
        assert firing(connection, self.RULE) == []
        nul = reading("nul", time=noon(1), payload={"text": "\0"})
        read(wire, settings, *good, without("timestamp", _id="none"), nul, days_ago=1)
        ((percent,),) = asked(connection, self.RULE)
        assert percent == pytest.approx(100 * 2 / 40)
        assert firing(connection, self.RULE) == []
        more = reading("nul too", time=noon(1), payload={"text": "\0"})
        read(wire, settings, *good, without("timestamp", _id="none"), nul, more, days_ago=1)
        assert firing(connection, self.RULE) == [()]

    def test_what_was_loaded_more_than_a_week_ago_is_history(
        self, wire: WireServer, settings: Settings, connection: Connection
    ) -> None:
        read(wire, settings, reading(time=noon(1), payload={"text": "\0"}), days_ago=1)
        assert firing(connection, self.RULE) == [()]
        connection.execute("UPDATE reading_days SET load_at = load_at - INTERVAL '8 days'")
        connection.execute("UPDATE reading_rejects SET rejected_at = rejected_at - INTERVAL '8 days'")
        assert asked(connection, self.RULE) == []


class TestDisks:
    RULE = "rh-disk-full"

    def test_it_fires_for_the_mount_that_is_full_now(self, connection: Connection) -> None:
        now = dt.datetime.now(dt.UTC)
        minute = dt.timedelta(minutes=1)
        store(connection, [
            sample_of_disk("was full", now - 3 * minute, 99.0), sample_of_disk("was full", now - minute, 50.0),
            sample_of_disk("is full", now - 3 * minute, 50.0), sample_of_disk("is full", now - minute, 85.5),
            sample_of_disk("just not", now - minute, 85.0),
        ])  # fmt: skip
        assert firing(connection, self.RULE) == [("is full", "/")]

    def test_a_host_that_is_silent_for_an_hour_is_not_judged(self, connection: Connection) -> None:
        store(connection, [sample_of_disk("gone", dt.datetime.now(dt.UTC) - 2 * HOUR, 99.0)])
        assert asked(connection, self.RULE) == []


def test_a_job_fires_from_its_failure_to_its_next_success(
    settings: Settings, make_database: Any, tmp_path: Path
) -> None:
    environment = dagster_variables(settings, make_database(), tmp_path / "dagster")
    tags = {"dagster/partition": "2026-01-05"}
    with (
        mock.patch.dict(os.environ, environment),
        dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance,
        connect(settings, database=environment["DAGSTER_DB_NAME"], autocommit=True) as connection,
    ):
        assert asked(connection, "rh-run-failed") == []
        definitions = build_defs({"hub": HubResource(retry_seconds=0)})

        def launch(name: str, **changed: str) -> bool:
            job = definitions.resolve_job_def(name)
            with mock.patch.dict(os.environ, changed):
                return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success

        assert launch("metrics")
        assert firing(connection, "rh-run-failed") == []
        assert not launch("metrics", DB_PORT="1")
        assert firing(connection, "rh-run-failed") == [("metrics",)]
        instance.create_run_for_job(definitions.resolve_job_def("metrics"), tags=tags)  # one that waits changes nothing
        assert firing(connection, "rh-run-failed") == [("metrics",)]
        assert launch("metrics")
        assert firing(connection, "rh-run-failed") == []
        assert asked(connection, "rh-run-failed") == [("metrics", 0)]
