"""The hub at work with a writer that is no superuser: loads through Dagster, backups, drills, restores, other levels."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import errors as pg
from psycopg import sql

from hub.backups import routine, swap
from hub.backups.restore import Request, prepare
from hub.backups.run import Wanted
from hub.errors import SchemaError
from hub.loading.load import load
from hub.rollups.declared import READING_DAILY, READING_HOURLY, ROLLUPS
from hub.rollups.refresh import mark_dirty, refresh, refresh_all
from hub.settings import Settings, load_settings
from hub.streams.declared import reading as reading_of
from hub.streams.model import Mode
from hub.timescale.audit import complaints
from hub.timescale.connection import MAINTENANCE, Connection, connect
from hub.timescale.grants import differences
from hub.timescale.level import Level, detect
from hub.timescale.roles import make_roles
from hub.timescale.schema import upgrade
from tests.conftest import dagster_variables
from tests.integration.dagster_stack import READING_ASSETS, dead_letter, reading, rolled_by_day, run_command
from tests.support import timescale
from tests.support.backups import count, fill
from tests.support.mongo_wire import WireServer
from tests.support.roles import as_dagster, as_grafana, as_proxy, given, remove, role_set

FIRST, LAST = "2026-03-02", "2026-03-05"


@pytest.fixture
def made(postgres: dict[str, str], wire: WireServer, tmp_path: Path) -> Iterator[Settings]:
    """The whole set of roles over empty databases, and a source."""
    source = {"mongo_uri": wire.uri, "mongo_db_name": wire.database, "mongo_collection": wire.collection}
    folders = {"hub_data_dir": tmp_path / "hub", "backup_dir": tmp_path / "backups"}
    with role_set(postgres, **source, **folders, reading_compress_after_days=36_500) as settings:
        make_roles(settings)
        upgrade(settings)
        yield settings


def without_admin(environment: dict[str, str]) -> dict[str, str]:
    """What a process that only loads needs to know."""
    return {
        name: value for name, value in environment.items() if not name.startswith(("DB_ADMIN", "DB_OWNER", "GRAFANA"))
    }


def test_the_commands_make_roles_then_tables_and_tell_no_password(postgres: dict[str, str], tmp_path: Path) -> None:
    with role_set(postgres, hub_data_dir=tmp_path / "hub", backup_dir=tmp_path) as settings:
        environment = dagster_variables(settings, settings.dagster_db_name, tmp_path / "dagster")
        first = run_command(environment, "hub", "db", "roles")
        assert f"{settings.db_user} writes\n" in first
        assert f"database {settings.db_name} made, owned by {settings.owner}\n" in first
        assert run_command(environment, "hub", "db", "upgrade").startswith("Schema empty → ")
        again = run_command(environment, "hub", "db", "roles")
        assert all(line.endswith(" (as before)") for line in again.splitlines())
        assert "Nothing to do" in run_command(environment, "hub", "db", "upgrade")
        assert "secret" not in first + again
        with connect(settings) as connection:
            assert list(complaints(connection, settings)) == []


def test_a_range_of_days_through_dagster_as_the_writer(made: Settings, wire: WireServer, tmp_path: Path) -> None:
    wire.documents += [reading(FIRST, 1.5), reading(FIRST, 2.5), dead_letter(FIRST), reading(LAST)]
    environment = without_admin(dagster_variables(made, made.dagster_db_name, tmp_path / "dagster"))
    launch = ("dg", "launch", "--assets", ",".join(READING_ASSETS), "--partition-range", f"{FIRST}...{LAST}")
    run_command(environment, *launch)
    assert rolled_by_day(made) == {FIRST: 2, LAST: 1}
    with connect(as_grafana(made)) as connection:
        assert connection.execute("SELECT reason, event_day::text FROM reading_rejects").fetchall() == [
            ("nul_character", FIRST)
        ]
        assert connection.execute("SELECT sum(events) FROM reading_last_30_days").fetchone() is not None
    with connect(as_grafana(made), database=made.dagster_db_name) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("SUCCESS",)]
        owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(owners).fetchall() == [(made.dagster_db_user,)]


def test_every_way_of_a_load_as_the_writer(made: Settings, wire: WireServer) -> None:
    """Into an empty day, over one that changed, documents that moved, and mirroring."""
    first, end = dt.date.fromisoformat(FIRST), dt.date.fromisoformat(LAST) + dt.timedelta(days=1)
    wire.documents += [reading(FIRST, float(number)) for number in range(10)]
    assert load(made, reading_of(made), first, end).inserted == 10
    wire.documents[0]["payload"] = {"value": 99.0}
    wire.documents[1]["timestamp"] += dt.timedelta(days=2)
    changed = load(made, reading_of(made), first, end)
    assert (changed.updated, changed.moved) == (1, 1)
    del wire.documents[2]
    assert load(made, reading_of(made), first, end, mode=Mode.MIRROR, max_delete_share=0.5).deleted == 1
    with connect(made, autocommit=True) as connection:
        refresh_all(connection, ROLLUPS)
    assert rolled_by_day(made) == {FIRST: 8, "2026-03-04": 1}


def grants_are_right(settings: Settings) -> None:
    with connect(settings) as connection:
        assert list(complaints(connection, settings)) == []
    with connect(as_grafana(settings)) as connection:
        assert connection.execute("SELECT sum(events) FROM reading_daily").fetchone() == (3000,)
    with connect(as_proxy(settings)) as connection:
        assert connection.execute("SELECT count(*) FROM reading_analytics").fetchone() == (3000,)
    with connect(as_grafana(settings), database=settings.dagster_db_name) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.fixture
def filled(made: Settings) -> Settings:
    fill(made)
    with connect(as_dagster(made)) as connection:
        connection.execute("CREATE TABLE runs (number int)")
        connection.execute("INSERT INTO runs VALUES (1)")
    return made


def backed_up(settings: Settings) -> str:
    taken = routine.run_backup(settings, Wanted.of(settings))
    assert taken.manifest.notes == ()
    assert len(taken.manifest.databases) == 2
    assert routine.run_verify(settings)[1].ok
    return taken.name


def test_backup_drill_and_restore_as_the_administrator_with_books_kept_by_the_writer(filled: Settings) -> None:
    name = backed_up(filled)
    assert routine.run_drill(filled)[1].differences == ()
    with connect(filled) as connection:
        connection.execute("DELETE FROM reading_analytics")
    tables = Request(name, tables=("reading_analytics",))
    (copied,) = routine.run_restore(filled, tables, prepare(filled, tables)).tables
    assert (copied.before, copied.after) == (0, 3000)
    request = Request(name)
    done = routine.run_restore(filled, request, prepare(filled, request))
    assert done.rows >= 3000
    grants_are_right(filled)
    fill(filled, 60, start="2026-05-01")  # loads and rollups go on
    with connect(as_grafana(filled)) as connection:
        books = connection.execute("SELECT kind, state FROM backup_runs ORDER BY id").fetchall()
    assert books == [("backup", "running"), ("restore", "done")]  # the rest came after the snapshot
    swap.undo(filled, filled.db_name)
    assert count(filled) == 3000
    assert len(swap.drop_kept(filled, filled.db_name)) == 1


def test_restored_into_an_empty_server_with_the_roles_of_the_backup(filled: Settings) -> None:
    """No role and no database of the hub is left: roles come from the backup, with their passwords."""
    name = backed_up(filled)
    remove(filled)
    for database in (filled.db_name, filled.dagster_db_name):
        request = Request(name, database=database)
        done = routine.run_restore(filled, request, prepare(filled, request))
        if database == filled.db_name:
            assert {filled.owner, filled.db_user, filled.grafana_db_user, filled.dagster_db_user} <= set(done.roles)
            strangers = set(done.roles) - {name for name in done.roles if name.startswith(filled.db_name)}
    grants_are_right(filled)
    assert not upgrade(filled).changed
    assert routine.run_drill(filled, name)[1].differences == ()
    with connect(filled.as_admin(), database=MAINTENANCE, autocommit=True) as connection:
        for role in strangers:  # of other tests on this server, which the backup held too
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_backup_from_before_the_roles_is_handed_over_as_it_is_restored(filled: Settings) -> None:
    old = filled.as_admin().model_copy(update={"db_owner": None, "db_admin_user": None, "proxy_db_user": None})
    with connect(old, database=MAINTENANCE, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {filled.db_name} WITH (FORCE)")  # type: ignore[arg-type]
        connection.execute(f"CREATE DATABASE {filled.db_name}")  # type: ignore[arg-type]
    upgrade(old)
    fill(old)
    name = backed_up(old)
    request = Request(name)
    routine.run_restore(filled, request, prepare(filled, request))
    grants_are_right(filled)


def test_a_restore_without_the_owner_of_the_settings_says_what_to_run_and_changes_nothing(filled: Settings) -> None:
    name = backed_up(filled)
    lost = filled.model_copy(update={"db_owner": f"{filled.db_name}_nobody"})
    with pytest.raises(SchemaError, match="Run `hub db roles`"):
        routine.run_restore(lost, Request(name), prepare(lost, Request(name)))
    assert count(filled) == 3000
    assert swap.kept_databases(filled.as_admin(), filled.db_name) == []


class TestEachLevel:
    """The same on TimescaleDB in WebAssembly, which has one connection and one user: it becomes each role in turn."""

    @pytest.fixture(scope="class")
    def wasm(self) -> Iterator[Settings]:
        reason = timescale.missing()
        if reason:
            pytest.skip(reason)
        with timescale.server() as port, pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGSSLMODE", "disable")
            server = {"DB_HOST": "127.0.0.1", "DB_PORT": str(port), "DB_USER": "postgres", "DB_PASSWORD": "postgres"}
            one_database = {"db_name": "postgres", "dagster_db_name": "postgres", "dagster_db_user": None}
            yield load_settings(**(given(server, "wasm") | one_database))

    @pytest.fixture(scope="class")
    def here(self, postgres: dict[str, str]) -> Iterator[Settings]:
        with role_set(postgres) as settings:
            yield settings

    @pytest.fixture(params=["here", "wasm"])
    def database(self, request: pytest.FixtureRequest) -> Iterator[tuple[Settings, Connection]]:
        """Roles and schema, and the administrator's connection, after which it is nobody else."""
        settings: Settings = request.getfixturevalue(request.param)
        for _ in range(2):
            make_roles(settings)
            upgrade(settings)
        with connect(settings.as_admin(), autocommit=True) as connection:
            connection.execute("SET SESSION AUTHORIZATION postgres" if request.param == "wasm" else "RESET ROLE")
            yield settings, connection
            connection.execute("RESET ROLE")

    def become(self, connection: Connection, role: str) -> None:
        connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))

    def test_the_writer_refreshes_what_it_does_not_own(self, database: tuple[Settings, Connection]) -> None:
        settings, connection = database
        day = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
        admin = connection.execute("SELECT session_user").fetchone()
        assert admin is not None
        self.become(connection, settings.db_user)
        connection.execute("DELETE FROM reading_analytics")
        connection.execute(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type) VALUES ('1', %s, 'a', 'b')",
            (day,),
        )
        mark_dirty(connection, READING_HOURLY, {day})
        assert refresh(connection, READING_HOURLY, [READING_DAILY]).buckets == 1
        assert refresh(connection, READING_DAILY).buckets == 1
        assert connection.execute("SELECT current_user::text").fetchone() == (settings.db_user,)
        if detect(connection) is Level.TIMESCALE:
            with pytest.raises(pg.InsufficientPrivilege):
                connection.execute("CALL refresh_continuous_aggregate('reading_hourly', NULL, NULL)")
        with pytest.raises(pg.InsufficientPrivilege):
            connection.execute("DROP VIEW reading_streaks")
        self.become(connection, settings.grafana_db_user)
        assert connection.execute("SELECT events FROM reading_daily WHERE bucket = %s", (day,)).fetchall() == [(1,)]
        with pytest.raises(pg.InsufficientPrivilege):
            connection.execute("DELETE FROM reading_analytics")
        self.become(connection, str(admin[0]))

    def test_a_rebuilt_rollup_keeps_its_grants(self, database: tuple[Settings, Connection]) -> None:
        settings, connection = database
        connection.execute(
            "UPDATE rollup_state SET signature = 'x' WHERE rollup IN ('reading_hourly', 'reading_daily')"
        )
        assert upgrade(settings).rollups == ("reading_hourly", "reading_daily")
        assert differences(connection, settings, detect(connection)) == (set(), set())
        assert not upgrade(settings).changed
