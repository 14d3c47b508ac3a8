"""Real servers for the tests: PostgreSQL (one for each test process), a database for each test, a MongoDB wire server."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import hypothesis
import psycopg
import pytest

from hub.embedded.postgres import EmbeddedPostgres
from hub.settings import Settings, load_settings
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect
from hub.timescale.schema import upgrade
from tests.support.mongo_wire import WireServer

ROOT = Path(__file__).resolve().parent.parent
_NUMBERS = itertools.count(1)

# The same examples everywhere, however slow the machine.
hypothesis.settings.register_profile(
    "hub", deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("hub")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """A developer's own settings must not reach the tests."""
    patch = pytest.MonkeyPatch()
    prefixes = ("DB_", "GRAFANA_", "MONGO_", "READING_", "DAGSTER_", "BACKUP_", "HUB_", "NOTIFY_", "PROXY_", "METRICS_")
    for name in list(os.environ):
        if name.startswith(prefixes):
            patch.delenv(name)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """DB_* settings of the server for tests: the one that TEST_DATABASE_URL names, or an embedded one."""
    url = os.environ.get("TEST_DATABASE_URL")
    if url:
        parts = urlsplit(url)
        yield {
            "DB_HOST": parts.hostname or "127.0.0.1",
            "DB_PORT": str(parts.port or 5432),
            "DB_USER": unquote(parts.username or "postgres"),
            "DB_PASSWORD": unquote(parts.password or ""),
        }
        return
    server = EmbeddedPostgres(
        tmp_path_factory.mktemp("postgres"),
        settings={
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "60",
        },
    )
    server.start()
    environment = server.environment()
    yield {name: environment[name] for name in ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD")}
    server.stop()


@contextlib.contextmanager
def databases(postgres: dict[str, str]) -> Iterator[Callable[[], str]]:
    """A function that makes empty databases; they go at the end of the block."""
    made: list[str] = []

    def admin(statement: str) -> None:
        with psycopg.connect(
            host=postgres["DB_HOST"], port=int(postgres["DB_PORT"]), user=postgres["DB_USER"],
            password=postgres["DB_PASSWORD"], dbname="postgres", autocommit=True,
        ) as connection:  # fmt: skip
            connection.execute(statement)

    def make() -> str:
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        admin(f"CREATE DATABASE {name} TEMPLATE template0")
        made.append(name)
        return name

    yield make
    for name in made:
        admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def make_database(postgres: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Make empty databases; they go at the end of the test."""
    with databases(postgres) as make:
        yield make


@pytest.fixture
def make_settings(
    postgres: dict[str, str], make_database: Callable[[], str], tmp_path: Path
) -> Callable[..., Settings]:
    """Settings that point at a new database; keyword arguments are settings."""

    def make(**given: Any) -> Settings:
        servers = {name.lower(): value for name, value in postgres.items()}
        defaults = {
            "mongo_uri": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200",
            "hub_data_dir": tmp_path / "hub",
            "backup_dir": tmp_path / "backups",
            "reading_compress_after_days": 36_500,  # no background job may rewrite what a test looks at
            "_env_file": None,
        }
        database = {} if "db_name" in given else {"db_name": make_database()}
        return load_settings(**(defaults | servers | database | given))

    return make


@pytest.fixture
def wire() -> Iterator[WireServer]:
    """A MongoDB server in threads of this process; `wire.documents` are its documents."""
    with WireServer() as server:
        yield server


@pytest.fixture
def settings(make_settings: Callable[..., Settings], wire: WireServer) -> Settings:
    """Settings for an upgraded database of its own and the server `wire`."""
    made = make_settings(mongo_uri=wire.uri, mongo_db_name=wire.database, mongo_collection=wire.collection)
    upgrade(made)
    return made


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """An autocommit connection to the test's database."""
    with connect(settings, autocommit=True) as opened:
        yield opened


def dagster_variables(settings: Settings, database: str, home: Path) -> dict[str, str]:
    """The environment of Dagster processes whose instance lives in the folder `home` and in `database`."""
    home.mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    return {
        **os.environ,
        **settings.environment(),
        "DAGSTER_DB_NAME": database,
        "DAGSTER_HOME": str(home),
        "PYTHONWARNINGS": "ignore",
        "RETRY_SECONDS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


@pytest.fixture
def dagster_environment(settings: Settings, make_database: Callable[[], str], tmp_path: Path) -> dict[str, str]:
    """The environment of a Dagster process that works for this test: its own instance, database and source."""
    return dagster_variables(settings, make_database(), tmp_path / "dagster")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which levels of the database the tests ran on."""
    levels = {
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "level"
    }
    for level in sorted(levels):
        terminalreporter.write_line(f"database level: {level}")


@pytest.fixture(autouse=True)
def _record_level(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Note the level of the test's database for the summary."""
    if "settings" in request.fixturenames:
        with connect(request.getfixturevalue("settings")) as opened:
            level = detect(opened)
        record_property("level", f"{level.value}, {level.title}")
