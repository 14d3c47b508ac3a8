"""kill -9, a server that goes away, twenty at once: the last good backup stays, nothing partial looks good."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
from pathlib import Path

import psycopg
import pytest

from hub.backups.dump import Progress
from hub.backups.restore import Request, restore
from hub.backups.run import Wanted, take
from hub.backups.store import BusyError, Store
from hub.backups.swap import drop_kept, kept_databases
from hub.backups.verify import verify
from hub.embedded.postgres import EmbeddedPostgres
from hub.errors import HubError, UnavailableError
from hub.settings import Settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.support.backups import child, count, fill, nothing_partial, only, verified

TAKE = """
from pathlib import Path
from hub.backups import routine
from hub.backups.run import Wanted
print("begun", flush=True)
backup = routine.run_backup(settings, Wanted(True, (Path(settings.hub_data_dir),)))
routine.run_verify(settings, backup.name)
routine.run_prune(settings)
"""
RESTORE = """
from hub.backups.restore import Request, restore
print("begun", flush=True)
restore(settings, Request())
"""


@pytest.fixture
def filled(settings: Settings) -> Settings:
    fill(settings, 1500)
    settings.hub_data_dir.mkdir(parents=True)
    (settings.hub_data_dir / "data").write_bytes(random.randbytes(3_000_000))
    return only(settings)


def test_kill_9_at_random_moments_of_a_backup(filled: Settings) -> None:
    few = filled.model_copy(update={"backup_keep_last": 1, "backup_keep_daily": 0, "backup_keep_weekly": 0,
                                    "backup_keep_monthly": 0, "backup_keep_yearly": 0})  # fmt: skip
    verified(few)
    for number in range(6):
        kill_after(few, TAKE, 0.1 + number * 0.15)
        nothing_partial(few)
    backup = verified(few)  # the lock is free, and what was left behind has been swept away
    names = {entry.name for entry in few.backup_dir.iterdir() if not entry.name.startswith(".lock")}
    assert names == set(Store(few.backup_dir).names())
    assert Store(few.backup_dir).find().name == backup.name


def test_kill_9_at_random_moments_of_a_restore(filled: Settings) -> None:
    """A backup of 1,500 rows, a database that has 1,600 since: it has either, and it serves."""
    verified(filled)
    fill(filled, 100, start="2026-04-01")
    try:
        for number in range(6):
            kill_after(filled, RESTORE, 0.1 + number * 0.25)
            assert count(filled) in (1500, 1600)
        restore(filled, Request())
        assert count(filled) == 1500
        with connect(filled, database="postgres") as connection:
            names = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        beside = {name for name in names if name.startswith(f"{filled.db_name}_")}
        assert beside == set(kept_databases(filled, filled.db_name))
    finally:
        drop_kept(filled, filled.db_name)


def kill_after(settings: Settings, code: str, seconds: float) -> None:
    process = child(settings, code)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
    timer.start()
    process.communicate()
    timer.cancel()


def _contend(settings: Settings, start: object, results: object, release: object) -> None:
    def hold(progress: Progress) -> None:
        release.wait(600)  # type: ignore[attr-defined]

    start.wait()  # type: ignore[attr-defined]
    try:
        take(settings, Wanted(False, (settings.hub_data_dir,)), report=hold)
        results.put("done")  # type: ignore[attr-defined]
    except BusyError as error:
        results.put(str(error))  # type: ignore[attr-defined]


def test_twenty_at_once_give_one_winner_and_nineteen_clear_refusals(filled: Settings) -> None:
    context = multiprocessing.get_context("fork")
    start, release, results = context.Barrier(20), context.Event(), context.Queue()
    processes = [context.Process(target=_contend, args=(filled, start, results, release)) for _ in range(20)]
    for process in processes:
        process.start()
    refusals = [results.get(timeout=300) for _ in range(19)]
    release.set()
    assert results.get(timeout=300) == "done"
    for process in processes:
        process.join()
    assert all("is at work on" in text and "wait until it is done" in text for text in refusals)
    assert len(Store(filled.backup_dir).names()) == 1


class TestTheServerGoesAway:
    """With a server of its own, because it is killed."""

    @pytest.fixture
    def alone(self, make_settings: object, tmp_path: Path) -> tuple[EmbeddedPostgres, Settings]:
        server = EmbeddedPostgres(tmp_path / "server", settings={"fsync": "off"})
        server.start()
        given = {name.lower(): value for name, value in server.environment().items() if name != "DAGSTER_DB_NAME"}
        settings = only(make_settings(**given))  # type: ignore[operator]
        upgrade(settings)
        yield server, settings  # type: ignore[misc]
        server.stop()

    def test_in_the_middle_of_a_dump(self, alone: tuple[EmbeddedPostgres, Settings]) -> None:
        server, settings = alone
        fill(settings, 20_000, wide=1500)
        good = verified(settings)
        stopped = threading.Event()

        def stop(progress: Progress) -> None:
            if not stopped.is_set() and progress.doing.startswith("dumping"):
                stopped.set()
                server.stop()

        with pytest.raises((UnavailableError, HubError), match=r"check that it runs|cannot be reached|lost the server"):
            take(settings, Wanted(), report=stop)
        assert stopped.is_set()
        assert Store(settings.backup_dir).names() == [good.name]
        assert verify(settings, good.name).ok
        assert not list(settings.backup_dir.glob(".partial-*"))
        with pytest.raises(UnavailableError, match="cannot be reached"):
            take(settings, Wanted())

    def test_a_table_that_something_else_locks_is_waited_for(self, alone: tuple[EmbeddedPostgres, Settings]) -> None:
        _, settings = alone
        fill(settings, 100)
        with psycopg.connect(
            host=settings.db_host, port=settings.db_port, user=settings.db_user, dbname=settings.db_name,
            password=settings.db_password.get_secret_value(),
        ) as holder:  # fmt: skip
            holder.execute("LOCK TABLE reading_days IN ACCESS EXCLUSIVE MODE")
            said: list[str] = []

            def let_go(progress: Progress) -> None:
                said.append(progress.doing)
                if "trying again" in progress.doing:
                    holder.rollback()

            backup = take(settings, Wanted(), report=let_go)
        assert any("locked by something else" in text for text in said)
        assert backup.manifest.databases[0].facts.tables["public.reading_analytics"] == 100
