"""PostgreSQL fails before or during a load: no row of any table has changed, and a retry succeeds."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from hub.embedded.postgres import EmbeddedPostgres
from hub.errors import DeniedError, SchemaError, UnavailableError
from hub.settings import Settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.support.load_faults import (
    PASSWORD,
    assert_fails_without_a_trace,
    assert_succeeds,
    documents_after,
    small_batches,
    state_before,
)
from tests.support.mongo_wire import WireServer
from tests.support.readings import database, everything

__all__ = ["small_batches"]
pytestmark = pytest.mark.usefixtures("small_batches")
FAST = {"fsync": "off", "max_connections": "20", "autovacuum": "off"}


def at_batch(wire: WireServer, number: int, action: Callable[[], object]) -> None:
    """Do this once, before the server sends its n-th batch from now."""
    wire.batches_sent = 0
    wire.on_batch = lambda batch: action() if batch == number else None


# ------------------------------------------------------------------- refused at the door


def test_a_wrong_password(settings: Settings, wire: WireServer) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()
    wrong = settings.model_copy(update={"db_password": SecretStr(PASSWORD)})
    error = assert_fails_without_a_trace(
        wrong,
        DeniedError,
        f"{settings.db_name!r} on {settings.db_host}:{settings.db_port}",
        "wrong password",
        "Correct DB_PASSWORD",
        before=before,
    )
    assert not error.retryable
    assert everything(settings) == before
    assert_succeeds(settings)


def test_a_server_that_is_not_there(settings: Settings, wire: WireServer) -> None:
    away = settings.model_copy(update={"db_port": 1})
    error = assert_fails_without_a_trace(
        away, UnavailableError, "127.0.0.1:1", "cannot be reached", "check that it runs", before={"": []}
    )
    assert error.retryable


def test_a_database_that_does_not_exist(settings: Settings, wire: WireServer) -> None:
    missing = settings.model_copy(update={"db_name": "no_such_database"})
    error = assert_fails_without_a_trace(
        missing, SchemaError, "'no_such_database'", "does not exist", "hub db upgrade", before={"": []}
    )
    assert not error.retryable


def test_a_database_without_the_schema(make_settings: Callable[..., Settings], wire: WireServer) -> None:
    settings = make_settings(mongo_uri=wire.uri)
    wire.documents[:] = documents_after()
    error = assert_fails_without_a_trace(settings, SchemaError, settings.db_name, "hub db upgrade")
    assert not error.retryable
    assert everything(settings) == {}
    assert wire.batches_sent == 0
    upgrade(settings)
    assert_succeeds(settings)


def test_a_user_who_may_not_write(settings: Settings, wire: WireServer) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()
    reader = f"{settings.db_name}_reader"
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {reader} LOGIN PASSWORD '{PASSWORD}'")  # type: ignore[call-overload]
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")  # type: ignore[call-overload]
        try:
            lesser = settings.model_copy(update={"db_user": reader, "db_password": SecretStr(PASSWORD)})
            error = assert_fails_without_a_trace(
                lesser, DeniedError, reader, "permission denied", "Grant it", before=before
            )
            assert not error.retryable
            assert everything(settings) == before
        finally:
            connection.execute(f"DROP OWNED BY {reader}")  # type: ignore[call-overload]
            connection.execute(f"DROP ROLE {reader}")  # type: ignore[call-overload]


# ------------------------------------------------------------------- killed


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that may be killed."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("killed"), settings=FAST)
    server.start()
    yield server
    server.stop()


def kill(server: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster; returns when the whole server is gone."""
    postmaster = psutil.Process(server.pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    postmaster.kill()
    gone, alive = psutil.wait_procs(family[1:], timeout=120)
    assert not alive, gone


def environment(server: EmbeddedPostgres) -> dict[str, str]:
    given = server.environment()
    return {name: given[name] for name in ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD")}


@pytest.mark.parametrize("batch", [1, 3, 8, 10], ids=["at the start", "while comparing", "while copying", "at the end"])
def test_the_server_is_killed_in_mid_load(own_server: EmbeddedPostgres, wire: WireServer, batch: int) -> None:
    with database(environment(own_server), mongo_uri=wire.uri) as settings:
        state_before(settings, wire)
        before = everything(settings)
        wire.documents[:] = documents_after()
        at_batch(wire, batch, lambda: kill(own_server))
        error = assert_fails_without_a_trace(
            settings,
            UnavailableError,
            f"127.0.0.1:{own_server.port}",
            "went away",
            "Nothing was changed",
            before=before,
        )
        assert error.retryable
        own_server.stop()
        own_server.start(own_server.port)
        assert everything(settings) == before
        assert_succeeds(settings)


@pytest.mark.parametrize("batch", [3, 8], ids=["while comparing", "while copying"])
def test_the_connection_is_ended_by_an_administrator_in_mid_load(
    settings: Settings, wire: WireServer, batch: int
) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()

    def end() -> None:
        with connect(settings, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    at_batch(wire, batch, end)
    assert assert_fails_without_a_trace(settings, UnavailableError, "went away", before=before).retryable
    assert everything(settings) == before
    assert_succeeds(settings)


# ------------------------------------------------------------------- full


@pytest.fixture
def small_disk() -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system, which goes with all that is in it at the end of the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))  # the server must be able to reach it: not in tmp_path

    def mount(size: str) -> Path:
        folder.chmod(0o755)
        remount = ["-o", f"remount,size={size}"] if os.path.ismount(folder) else []
        options = remount or ["-t", "tmpfs", "-o", f"size={size},mode=0755"]
        done = subprocess.run(
            ["mount", *options, *([] if remount else ["tmpfs"]), str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def disk_server(
    small_disk: Callable[[str], Path],
) -> Iterator[Callable[[Path], EmbeddedPostgres]]:
    """Starts a PostgreSQL in a folder; it stops before its disk goes."""
    started: list[EmbeddedPostgres] = []

    def start(folder: Path) -> EmbeddedPostgres:
        server = EmbeddedPostgres(folder / "postgres", settings=FAST | {"wal_level": "minimal", "max_wal_senders": "0"})
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.mark.parametrize("loaded_before", [False, True], ids=["first load", "merge"])
def test_no_room_for_the_tables(
    tmp_path: Path, small_disk: Callable[[str], Path], disk_server: Any, wire: WireServer, loaded_before: bool
) -> None:
    tables = small_disk("14m") / "tables"
    server = disk_server(tmp_path)
    tables.mkdir(mode=0o700)
    owner = (server.data / "base").stat()
    os.chown(tables, owner.st_uid, owner.st_gid)
    with database(environment(server), mongo_uri=wire.uri) as settings:
        with connect(settings, database="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")  # type: ignore[call-overload]
            connection.execute(f"ALTER DATABASE {settings.db_name} SET TABLESPACE small")  # type: ignore[call-overload]
        if loaded_before:
            state_before(settings, wire)
        before = everything(settings)
        wire.documents[:] = documents_after(size=30_000)
        error = assert_fails_without_a_trace(
            settings,
            UnavailableError,
            settings.db_name,
            "no room left",
            "No space left on device",
            "free space",
            before=before,
        )
        assert error.retryable
        assert everything(settings) == before
        small_disk("120m")
        assert_succeeds(settings)


def test_no_room_for_anything_of_the_server(
    small_disk: Callable[[str], Path], disk_server: Any, wire: WireServer
) -> None:
    disk = small_disk("220m")
    server = disk_server(disk)
    ballast = disk / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            file.write(b"\0" * (free - 3 * 2**20))

    with database(environment(server), mongo_uri=wire.uri) as settings:
        state_before(settings, wire)
        before = everything(settings)
        wire.documents[:] = documents_after(size=30_000)
        at_batch(wire, 8, fill)
        # Whether a table or the log hits the wall first is the server's affair; without its log it stops.
        error = assert_fails_without_a_trace(settings, UnavailableError, "Nothing was changed", before=before)
        assert error.retryable
        assert ballast.exists()
        ballast.unlink()
        server.stop()
        server.start(server.port)
        assert everything(settings) == before
        wire.on_batch = None
        assert_succeeds(settings)
