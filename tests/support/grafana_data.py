"""A hub that has lived for a while, for the queries of dashboards and alerts: readings, hosts, backups, runs and ticks."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import os
from typing import Any
from unittest import mock

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from hub.backups import books
from hub.loading.load import load
from hub.metrics.model import Sample
from hub.metrics.sample import Sampler
from hub.metrics.store import store
from hub.rollups.declared import EVERY_ROLLUP, READING_HOURLY
from hub.rollups.refresh import mark_dirty, refresh_all
from hub.seed import invalid, readings
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection, connect
from pipelines.definitions import build_defs
from tests.support.mongo_wire import WireServer
from tests.support.readings import encode

HOSTS = ("attic", "o'neill")  # a quote in a name must not break a query
DAYS = 40


def loaded(settings: Settings, wire: WireServer) -> None:
    """Sample readings of the days up to today, and some that are rejected, through the loader."""
    today = dt.datetime.now(dt.UTC).date()
    first = today - dt.timedelta(days=DAYS - 1)
    wire.documents = [encode(one) for one in itertools.chain(readings(first, DAYS, 3000), invalid(today))]
    load(settings, reading_of(settings), first, today + dt.timedelta(days=1))


def inserted(connection: Connection) -> None:
    """Sample readings by plain INSERT, where the server has no COPY."""
    today = dt.datetime.now(dt.UTC).date()
    rows = [
        (str(one["_id"]), time, one["source"], one["event_type"], one["payload"].get("value"))
        for one in readings(today - dt.timedelta(days=DAYS), DAYS, 2000)
        if isinstance(time := one.get("timestamp"), dt.datetime)
    ]
    with connection.transaction():
        connection.execute(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value)"
            " SELECT * FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::double precision[])",
            [list(column) for column in zip(*rows, strict=True)],
        )
        mark_dirty(connection, READING_HOURLY, {READING_HOURLY.floor(row[1]) for row in rows})
        connection.execute(
            "INSERT INTO reading_days SELECT (event_timestamp AT TIME ZONE 'UTC')::date, count(*) + 1, count(*), 1"
            " FROM reading_analytics GROUP BY 1"
        )
        connection.execute("UPDATE reading_days SET whole = day < (now() AT TIME ZONE 'UTC')::date")
        connection.execute(
            "INSERT INTO reading_rejects (mongo_id, reason, detail, raw) VALUES ('x', 'time_missing', 'no time', '')"
        )


def counted(connection: Connection) -> None:
    """Two counts of the ledger, the older with something missing."""
    connection.execute(
        "INSERT INTO ledger_runs SELECT 'reading', now() - hour * interval '1 hour', 500, 2, 30 * hour, hour, 0, 0.4"
        " FROM generate_series(0, 1) AS hour"
    )


def measured(connection: Connection) -> None:
    """Two days of host metrics: a real sample, moved in time and to other hosts."""
    sampler = Sampler(hostname="attic")
    sampler.sample(dt.datetime.now(dt.UTC))
    now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    kinds = sampler.sample(now)
    for one in kinds:
        if one.metric_type == "cpu":
            one.payload["temperature"] = 61.5
    store(connection, [
        dataclasses.replace(one, host=host, time=now - minutes * dt.timedelta(minutes=1))
        for one, host, minutes in itertools.product(kinds, HOSTS, range(1, 2 * 1440, 17))
    ])  # fmt: skip


def rolled_up(connection: Connection) -> None:
    """Every rollup, brought up to date."""
    refresh_all(connection, EVERY_ROLLUP)


def backed_up(settings: Settings, nights: int = 3) -> None:
    """The books of some nights of backups, the last one an hour ago; and of one upload that failed."""
    now = dt.datetime.now(dt.UTC)
    for night in reversed(range(nights)):
        ended = now - night * dt.timedelta(days=1) - dt.timedelta(hours=1)
        name = f"{ended:%Y%m%dT%H%M%SZ}"
        for kind in ("backup", "verify", "drill", "upload", "prune"):
            with books.recorded(settings, kind, name) as entry:
                entry.bytes, entry.rows = 1_000_000 + night, 5000
                entry.bytes_live = 9_000_000 if kind == "backup" else None
                entry.problem = "the bucket is gone" if kind == "upload" and not night else None
            with connect(settings) as connection:
                connection.execute(
                    "UPDATE backup_runs SET started_at = %s, finished_at = %s, seconds = 12"
                    " WHERE id = (SELECT max(id) FROM backup_runs)",
                    (ended, ended + dt.timedelta(seconds=12)),
                )


def ran(settings: Settings, environment: dict[str, str]) -> None:
    """Runs in Dagster's own database: one that succeeded, one that failed, one that waits; ticks and heartbeats."""
    days = {"dagster/asset_partition_range_start": "2026-01-05", "dagster/asset_partition_range_end": "2026-01-06"}
    gone = environment | {"DB_PORT": "1"}
    with (
        mock.patch.dict(os.environ, environment),
        dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance,
    ):
        job = build_defs({"hub": _impatient()}).resolve_job_def("metrics")
        assert job.execute_in_process(instance=instance, tags=days).success
        report = build_defs({"hub": _impatient()}).resolve_job_def("drill")
        with mock.patch.dict(os.environ, gone):
            assert not report.execute_in_process(instance=instance, raise_on_error=False).success
        instance.create_run_for_job(job, tags=days)
        now = dt.datetime.now(dt.UTC).timestamp()
        for number, (name, kind, status, more) in enumerate(_TICKS):
            instance.create_tick(TickData(
                f"origin {name}", name, kind, status, now - 60 * number, selector_id=f"selector {name}", **more
            ))  # fmt: skip
        instance.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", "one", []))


_TICKS: tuple[tuple[str, InstigatorType, TickStatus, dict[str, Any]], ...] = (
    ("readings_arrived", InstigatorType.SENSOR, TickStatus.SKIPPED, {"skip_reason": "nothing new"}),
    ("readings_arrived", InstigatorType.SENSOR, TickStatus.SUCCESS, {"run_ids": ["one"]}),
    ("backup_nightly", InstigatorType.SCHEDULE, TickStatus.SUCCESS, {"run_ids": ["two"]}),
    (
        "metrics_rollups", InstigatorType.SCHEDULE, TickStatus.FAILURE,
        {"error": SerializableErrorInfo("the code location is away\nand more", [], None)},
    ),
)  # fmt: skip


def _impatient() -> object:
    from assets.engine import HubResource

    return HubResource(retry_seconds=0)


def sample_of_disk(host: str, time: dt.datetime, percent: float) -> Sample:
    """A sample whose only mount is that full."""
    disk = {"total": 100, "used": percent, "percent": percent}
    return Sample(time, host, "Linux", "disk", {"percent": percent, "mounts": {"/": disk}})
