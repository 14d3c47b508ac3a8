"""What dumps of TimescaleDB lose without a word, and ours do not; on the server that TEST_DATABASE_URL names."""

from __future__ import annotations

import os
import threading
import time

import psycopg
import pytest
from psycopg import errors as pg

from hub.backups.drill import drill
from hub.backups.load import create, drop, load
from hub.backups.restore import Request, restore
from hub.backups.run import Wanted, take
from hub.backups.store import Store
from hub.backups.swap import drop_kept
from hub.backups.verify import verify
from hub.errors import RefusedError
from hub.settings import Settings
from hub.timescale.connection import Connection, connect
from hub.timescale.level import Level, detect
from tests.support.backups import count, fill, only, verified

pytestmark = pytest.mark.skipif("TEST_DATABASE_URL" not in os.environ, reason="TEST_DATABASE_URL names no TimescaleDB")
DUMPS = 20
DAYS = 40


@pytest.fixture
def timescale(settings: Settings, connection: Connection) -> Settings:
    if detect(connection) is not Level.TIMESCALE:
        pytest.skip("the server of TEST_DATABASE_URL has no TimescaleDB with the Timescale licence")
    return only(settings)


def test_dumps_that_overlap_the_columnstore_policy_and_four_writers_lose_no_row(timescale: Settings) -> None:
    """Each dump is restored and counted; what was committed before it began is in it."""
    fill(timescale, DAYS * 1440, start="2026-01-01")
    stop = threading.Event()
    committed = [0, 0, 0, 0]
    overlaps = [0]

    def write(writer: int) -> None:
        with connect(timescale, autocommit=True) as connection:
            while not stop.is_set():
                number = committed[writer] + 1
                try:
                    connection.execute(
                        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type)"
                        " SELECT %s || '-' || g, '2026-01-01'::timestamptz + %s %% 60 * interval '1 day',"
                        " 'kobo', 'page'"
                        " FROM generate_series(1, 20) g",
                        (f"w{writer}-{number}", number * 7 + writer),
                    )
                except pg.DeadlockDetected:  # with the decompression below; nothing was written
                    continue
                committed[writer] = number

    def compress() -> None:
        """The policy, over and over: it finds chunks that are old enough, and they become rows again after it."""
        with connect(timescale, autocommit=True) as connection:
            job = connection.execute(
                "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'"
                " AND hypertable_name = 'reading_analytics'"
            ).fetchone()
            assert job is not None
            while not stop.is_set():
                try:
                    connection.execute("CALL run_job(%s)", job)
                    overlaps[0] += 1
                    connection.execute("SELECT decompress_chunk(c, true) FROM show_chunks('reading_analytics') c")
                except (pg.DeadlockDetected, pg.LockNotAvailable, pg.InternalError, pg.ObjectNotInPrerequisiteState):
                    overlaps[0] += 1
                except psycopg.Error as error:
                    if "is not" not in str(error) and "already" not in str(error):
                        raise

    threads = [
        *(threading.Thread(target=write, args=(writer,)) for writer in range(4)),
        threading.Thread(target=compress),
    ]
    for thread in threads:
        thread.start()
    names: list[tuple[str, int]] = []
    try:
        for _ in range(DUMPS):
            before = sum(committed) * 20
            names.append((take(timescale, Wanted()).name, before))
            assert all(thread.is_alive() for thread in threads)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert overlaps[0] > 3
    store = Store(timescale.backup_dir)
    for number, (name, before) in enumerate(names):
        backup = store.read(name)
        (part,) = backup.manifest.databases
        assert part.facts.tables["public.reading_analytics"] >= DAYS * 1440 + before
        if number % 4:  # the counts of the snapshot against those of the restored copy
            create(timescale, part, f"{timescale.db_name}_check")
            try:
                copy = load(
                    timescale,
                    part,
                    store.path(name),
                    f"{timescale.db_name}_check",
                    jobs=2,
                    report=lambda progress: None,
                )
            finally:
                drop(timescale, f"{timescale.db_name}_check")
            assert copy.differences == ()
        else:
            assert verify(timescale, name).ok
            assert drill(timescale, name).differences == ()


def test_a_two_year_old_backup_under_a_retention_policy_restores_with_every_row_and_no_job_run(
    timescale: Settings, connection: Connection
) -> None:
    fill(timescale, 5000, start="2024-01-01")
    connection.execute(
        "SELECT alter_job(add_retention_policy('reading_analytics', INTERVAL '30 days',"
        " initial_start => now() + interval '1 day'), next_start => now() + interval '1 day')"
    )
    backup = verified(timescale)
    assert count(timescale) == 5000
    connection.execute("TRUNCATE reading_analytics")
    connection.close()
    began = time.time()
    done = restore(timescale, Request(backup.name))
    try:
        with connect(timescale, autocommit=True) as restored:
            assert restored.execute("SELECT count(*) FROM reading_analytics").fetchone() == (5000,)
            jobs = restored.execute(
                "SELECT proc_name, scheduled, extract(epoch FROM next_start)::float8"
                " FROM timescaledb_information.jobs WHERE job_id >= 1000"
            ).fetchall()
            runs = restored.execute(
                "SELECT count(*) FROM timescaledb_information.job_stats WHERE job_id >= 1000 AND total_runs > 0"
            ).fetchone()
        assert runs == (0,)
        assert len(jobs) == len(backup.manifest.databases[0].facts.jobs)
        held = [name for name, scheduled, _ in jobs if not scheduled]
        assert held == ["policy_retention"]
        assert any("would drop" in remark and "alter_job" in remark for remark in done.remarks)
        assert all(start > began + 200 for name, _, start in jobs if name not in held)
    finally:
        drop_kept(timescale, timescale.db_name)


def test_a_database_left_in_restoring_mode_is_not_backed_up(timescale: Settings, connection: Connection) -> None:
    fill(timescale, 100)
    good = verified(timescale)
    connection.execute(f"ALTER DATABASE {timescale.db_name} SET timescaledb.restoring = 'on'")  # type: ignore[arg-type]
    try:
        with pytest.raises(RefusedError, match=r"restoring mode .* wrong counts.*timescaledb_post_restore"):
            take(timescale, Wanted())
    finally:
        connection.execute(f"ALTER DATABASE {timescale.db_name} RESET timescaledb.restoring")  # type: ignore[arg-type]
    assert Store(timescale.backup_dir).names() == [good.name]


def test_the_scheduler_lives_on_after_a_restore(timescale: Settings, connection: Connection) -> None:
    fill(timescale, 100)
    verified(timescale)
    connection.close()
    restore(timescale, Request())
    try:
        with connect(timescale, autocommit=True) as restored:
            deadline = time.monotonic() + 180
            alive = None
            while alive is None and time.monotonic() < deadline:
                alive = restored.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name LIKE '%Background Worker Scheduler%'"
                ).fetchone()
            assert alive == (1,)
    finally:
        drop_kept(timescale, timescale.db_name)
