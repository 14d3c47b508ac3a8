"""What 30 kept backups of a database that grew over two years take, and what is new in a night.

Fourteen daily, eight weekly, twelve monthly ones of 1 M readings, of Dagster's database and of a volume. On the server that
TEST_DATABASE_URL names, which should have TimescaleDB; on an embedded one, what it comes to on plain PostgreSQL.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from hub.backups import shared, tools
from hub.backups.digests import digest
from hub.backups.model import Backup
from hub.backups.run import Wanted, take
from hub.backups.store import Store
from hub.backups.verify import verify
from hub.rollups.declared import ROLLUPS
from hub.rollups.refresh import refresh_all
from hub.settings import Settings
from hub.timescale.connection import connect, parameters
from hub.timescale.level import Level, detect
from tests.bench.servers import database

ROWS = int(os.environ.get("NIGHTS_ROWS", "1000000"))
DAYS = 730
LAST = dt.date(2026, 6, 17)
FIRST = LAST - dt.timedelta(days=DAYS - 1)
COMPRESS_AFTER = dt.timedelta(days=30)
# Dagster's own database: runs a day, events a run (41 were counted), and how long they are kept.
RUNS, EVENTS, KEEP = 40, 41, 14
_DAY = dt.timedelta(days=1)


def kept_days(last: dt.date = LAST) -> list[dt.date]:
    """The days whose backups the default rules keep: 14 daily, 8 weekly and 12 monthly ones."""
    days = [last - number * _DAY for number in range(500)]
    found = set(days[:14])
    for form, count in (("%G-W%V", 8), ("%Y-%m", 12)):
        newest: dict[str, dt.date] = {}
        for day in days:
            newest.setdefault(day.strftime(form), day)
        found |= set(list(newest.values())[:count])
    return sorted(found)


def run() -> Iterator[dict[str, Any]]:
    """A line for the store, one for what the nights consist of, one for the time of a backup."""
    with database() as settings:
        settings = settings.model_copy(update={"dagster_db_name": f"{settings.db_name}_dagster", "backup_jobs": 2})
        with psycopg.connect(**parameters(settings, database="postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {settings.dagster_db_name}")
        try:
            yield from _nights(settings)
        finally:
            with psycopg.connect(**parameters(settings, database="postgres"), autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {settings.dagster_db_name} WITH (FORCE)")


def _nights(settings: Settings) -> Iterator[dict[str, Any]]:
    store = Store(settings.backup_dir)
    volume = settings.hub_data_dir / "loki_data"
    volume.mkdir()
    loaded, whole, bare = FIRST, [], []
    own: list[Counter[str]] = []
    uploads: list[float] = []
    level = Level.PLAIN
    for day in kept_days():
        level = _grow(settings, volume, loaded, day)
        loaded = day + _DAY
        noon = dt.datetime.combine(day, dt.time(2, 30), dt.UTC) + _DAY
        before = {entry.sha256 for one in store.backups()[0] for entry in one.manifest.files}
        began = time.perf_counter()
        backup = take(settings, Wanted(True, (volume,)), clock=lambda noon=noon: noon)  # type: ignore[misc]
        whole.append(time.perf_counter() - began)
        assert verify(settings, backup.name).ok
        parts = _new(store, backup, before)
        own.append(parts)
        uploads.append(parts.total() / backup.manifest.bytes)
        bare.append(_bare(settings))
    backups, _ = store.backups()
    plain = sum(_size(store.path(one.name)) for one in backups)
    disk = int(subprocess.check_output(["du", "-s", "--apparent-size", "-B1", store.folder]).split()[0])
    blocks = int(subprocess.check_output(["du", "-s", "-B1", store.folder]).split()[0])
    yield {
        "what": "kept backups", "level": level.value, "backups": len(backups), "rows": ROWS,
        "files": len(backups[-1].manifest.files), "plain_mib": _mib(plain), "mib": _mib(disk), "blocks_mib": _mib(blocks),
        "ratio": round(disk / plain, 3), "bar": 0.12,
    }  # fmt: skip
    daily = own[-13:]
    yield {
        "what": "a night's own bytes", "of_mib": _mib(backups[-1].manifest.bytes),
        "share": round(sorted(uploads[-13:])[6], 4), "bar": 0.05,
        "kib": {name: round(sum(one[name] for one in daily) / len(daily) / 1024, 1) for name in sorted(set().union(*daily))},
    }  # fmt: skip
    last = slice(-13, None)
    yield {
        "what": "seconds", "whole": round(sorted(whole[last])[6], 2), "bare": round(sorted(bare[last])[6], 2),
        "ratio": round(sorted(one / other for one, other in zip(whole[last], bare[last], strict=True))[6], 3), "bar": 1.15,
    }  # fmt: skip


def _new(store: Store, backup: Backup, before: set[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in backup.manifest.files:
        if entry.sha256 not in before:
            found[shared.kind(entry.path)] += entry.bytes
    found["manifest"] = sum(
        path.stat().st_size for path in store.path(backup.name).glob("*") if path.is_file() and path.name != "roles.sql"
    )
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mib(size: int) -> float:
    return round(size / 2**20, 2)


def _grow(settings: Settings, volume: Path, first: dt.date, last: dt.date) -> Level:
    """Readings, logs and runs of the days from `first` to `last`, as the hub would have left them that night."""
    with connect(settings, autocommit=True) as connection:
        level = detect(connection)
        per_day = ROWS // DAYS
        days = (last - first).days + 1
        connection.execute(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload, meta)"
            " SELECT left(md5(%(day)s::text || n), 24), %(day)s::date::timestamptz + n * (INTERVAL '1 day' / %(count)s),"
            " 'source-' || n %% 20, 'type-' || n / 20 %% 3, n %% 997, jsonb_build_object('page', n %% 700, 'title',"
            " 'The book number ' || n %% 300, 'session', md5(n::text || %(day)s)), '{\"app\": \"koreader-2026.03\"}'"
            " FROM generate_series(0, %(rows)s - 1) AS n",
            {"day": first, "count": per_day, "rows": per_day * days},
        )
        for rollup in ROLLUPS[:1]:
            connection.execute(
                "INSERT INTO rollup_dirty (rollup, bucket)"  # type: ignore[arg-type]
                f" SELECT DISTINCT '{rollup.name}', {rollup.bucket_sql(time_bucket=False)} FROM {rollup.source}"
                f" WHERE event_timestamp >= '{first}' ON CONFLICT DO NOTHING"
            )
        refresh_all(connection, ROLLUPS)
        if level is Level.TIMESCALE:
            edge = last + _DAY - COMPRESS_AFTER
            connection.execute(
                "SELECT compress_chunk(c, if_not_compressed => true)"
                " FROM show_chunks('reading_analytics', older_than => %s::timestamptz) c",
                (edge,),
            )
    _runs(settings, first, last)
    chance = random.Random(str(last))
    for number in range((last - max(first, last - KEEP * _DAY)).days + 1):
        (volume / f"chunk-{last - number * _DAY}").write_bytes(chance.randbytes(100_000))
    for path in sorted(volume.iterdir())[:-KEEP]:
        path.unlink()
    return level


def _runs(settings: Settings, first: dt.date, last: dt.date) -> None:
    with psycopg.connect(**parameters(settings, database=settings.dagster_db_name), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS event_logs (id bigserial PRIMARY KEY, run_id varchar(255), event text NOT NULL,"
            " dagster_event_type text, timestamp timestamp, step_key text, asset_key text, partition text);"
            "CREATE TABLE IF NOT EXISTS runs (id bigserial PRIMARY KEY, run_id varchar(255) UNIQUE, snapshot_id text,"
            " pipeline_name text, status varchar(63), run_body text, create_timestamp timestamp, update_timestamp timestamp)"
        )
        start = max(first, last - (KEEP - 1) * _DAY)
        number = (last - start).days + 1
        connection.execute(
            "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key)"
            ' SELECT md5(r::text || d), format(\'{"__class__": "EventLogEntry", "run_id": "%%s", "timestamp": %%s,'
            ' "dagster_event": {"event_type_value": "STEP_MATERIALIZATION", "step_key": "reading_analytics", "pid": %%s,'
            ' "message": "%%s", "metadata": %%s}}\', md5(r::text || d), extract(epoch FROM d) + r * 900 + e, r * 7 %% 3000,'
            ' repeat(\'Finished execution of step in the usual way. \', 6), repeat(\'{"label": "rows", "value": \' || r * e ||'
            ' \', "__class__": "IntMetadataEntryData"}, \', 22)),'
            " 'STEP_MATERIALIZATION', d + r * interval '15 min' + e * interval '1 s', 'reading_analytics'"
            " FROM generate_series(%(day)s::timestamp, %(last)s::timestamp, '1 day') d, generate_series(1, %(runs)s) r,"
            " generate_series(1, %(events)s) e",
            {"day": start, "last": last, "runs": RUNS, "events": EVENTS},
        )
        connection.execute(
            "INSERT INTO runs (run_id, snapshot_id, pipeline_name, status, run_body, create_timestamp, update_timestamp)"
            " SELECT md5(r::text || d), md5('snapshot'), 'reading_refresh', 'SUCCESS', format('{\"__class__\": \"DagsterRun\","
            ' "run_id": "%%s", "tags": %%s}\', md5(r::text || d), repeat(\'{"dagster/schedule": "x"}, \', 30)), d, d'
            " FROM generate_series(%(day)s::timestamp, %(last)s::timestamp, '1 day') d, generate_series(1, %(runs)s) r",
            {"day": start, "last": last, "runs": RUNS},
        )
        assert number
        edge = last - (KEEP - 1) * _DAY
        connection.execute("DELETE FROM event_logs WHERE timestamp < %s", (edge,))
        connection.execute("DELETE FROM runs WHERE create_timestamp < %s", (edge,))
        connection.execute("VACUUM event_logs")
        connection.execute("VACUUM runs")


def _bare(settings: Settings) -> float:
    """Both databases by bare pg_dump, and one read."""
    pg_dump = tools.find("pg_dump", at_least=18, because="the server is version 18")
    target = settings.hub_data_dir / "bare"
    compress = ["--compress=zstd"] if tools.codec(pg_dump) == "zstd" else []
    began = time.perf_counter()
    for name in (settings.db_name, settings.dagster_db_name):
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(
            [pg_dump.path, "-Fd", "-j2", *compress, f"--file={target}", f"--dbname={name}"],
            check=True, stderr=subprocess.DEVNULL, env=tools.environment(settings),
        )  # fmt: skip
        for path in target.iterdir():
            digest(path)
    taken = time.perf_counter() - began
    shutil.rmtree(target)
    return taken
