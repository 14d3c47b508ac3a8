"""Database roles: who may do what is what the table of grants says, on a server with the whole set of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import errors as pg
from pydantic import SecretStr

from hub.doctor import Finding, examine
from hub.embedded.postgres import EmbeddedPostgres
from hub.errors import DeniedError, RefusedError, SettingsError
from hub.metrics.model import Sample
from hub.metrics.rollups import METRIC_ROLLUPS
from hub.metrics.store import store
from hub.notify import Told, tell
from hub.proxy import tokens
from hub.rollups.apply import view_names
from hub.rollups.declared import ROLLUPS
from hub.rollups.refresh import refresh_all
from hub.rollups.status import status
from hub.settings import Settings, load_settings
from hub.timescale.audit import complaints
from hub.timescale.connection import MAINTENANCE, Connection, connect
from hub.timescale.grants import access
from hub.timescale.level import Level, detect
from hub.timescale.roles import make_roles
from hub.timescale.schema import upgrade
from tests.support.backups import fill
from tests.support.proxy import FakeDagster, client, make_token, serving, until
from tests.support.receiver import receiving
from tests.support.roles import as_dagster, as_grafana, as_proxy, given, role_set


@pytest.fixture(scope="module")
def made(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The whole set of roles, and a database with readings that the writer has written and rolled up."""
    with role_set(postgres, hub_data_dir=tmp_path_factory.mktemp("hub")) as settings:
        make_roles(settings)
        upgrade(settings)
        fill(settings, 3000)
        yield settings


def session(settings: Settings) -> Connection:
    """A session whose errors are PostgreSQL's own; the caller closes it."""
    return psycopg.connect(
        host=settings.db_host, port=settings.db_port, dbname=settings.db_name, user=settings.db_user,
        password=settings.db_password.get_secret_value(), autocommit=True,
    )  # fmt: skip


@pytest.fixture
def writer(made: Settings) -> Iterator[Connection]:
    with session(made) as connection:
        yield connection


@pytest.fixture
def admin(made: Settings) -> Iterator[Connection]:
    with session(made.as_admin()) as connection:
        yield connection


@pytest.fixture(params=["grafana", "proxy"])
def reader(request: pytest.FixtureRequest, made: Settings) -> Iterator[Connection]:
    with session(as_grafana(made) if request.param == "grafana" else as_proxy(made)) as connection:
        yield connection


@pytest.fixture
def grafana(made: Settings) -> Iterator[Connection]:
    with session(as_grafana(made)) as connection:
        yield connection


def test_every_relation_has_a_line_in_the_table_of_grants(admin: Connection) -> None:
    found = admin.execute(
        "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')"
        " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('e', 'i'))"
    ).fetchall()
    assert {name for (name,) in found} == set(access(detect(admin)))


def test_everything_is_the_owners_and_again_changes_nothing(made: Settings, admin: Connection) -> None:
    owners = admin.execute(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class c"
        " WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('_timescaledb_internal'))"
        " AND relkind IN ('r', 'v', 'm', 'S')"
        " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
    ).fetchall()
    assert owners == [(made.owner,)]
    assert not upgrade(made).changed
    assert all(line.endswith("(as before)") for line in make_roles(made))


def test_grafana_reads_every_view_rollup_and_table_that_it_is_to_draw(grafana: Connection) -> None:
    relations = access(detect(grafana))
    for name, one in relations.items():
        if one.grafana:
            columns = ", ".join(one.grafana) if one.grafana != ("",) else "*"
            grafana.execute(f"SELECT {columns} FROM {name}").fetchall()  # type: ignore[arg-type]
        else:
            with pytest.raises(pg.InsufficientPrivilege):
                grafana.execute(f"SELECT FROM {name}")  # type: ignore[arg-type]
    assert set(view_names()) < {name for name, one in relations.items() if one.grafana}
    assert grafana.execute("SELECT count(*) FROM reading_rejects").fetchone() == (0,)
    assert grafana.execute("SELECT sum(events) FROM reading_daily").fetchone() == (3000,)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT secret FROM api_tokens",
        "SELECT request FROM api_idempotency",
        "SELECT problem FROM notify_state",
        "SELECT raw FROM reading_rejects",
        "SELECT * FROM reading_rejects",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_grafana_reads_no_secret_and_no_raw_document(grafana: Connection, statement: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        grafana.execute(statement)  # type: ignore[arg-type]


WRITES = [
    "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type) VALUES ('x', now(), 'a', 'b')",
    "UPDATE reading_analytics SET value = 0",
    "DELETE FROM reading_analytics",
    "DELETE FROM reading_rejects",
    "INSERT INTO rollup_dirty (rollup, bucket) VALUES ('reading_daily', now())",
    "UPDATE rollup_state SET refreshed_at = NULL",
    "SELECT * FROM reading_analytics FOR UPDATE",
    "TRUNCATE reading_analytics",
    "COPY reading_days FROM STDIN",
    "CREATE TABLE mine (number int)",
    "CREATE TEMP TABLE mine (number int)",
    "SELECT * INTO TEMP mine FROM reading_days",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "SELECT nextval('backup_runs_id_seq')",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "DROP VIEW reading_streaks",
    "ALTER TABLE reading_days ADD mine int",
    "COMMENT ON TABLE reading_days IS 'mine'",
    "ALTER ROLE current_user SUPERUSER",
    "COPY (SELECT 1) TO PROGRAM 'true'",
]


@pytest.mark.parametrize("statement", WRITES)
def test_a_reader_writes_nothing_even_if_it_undoes_read_only(reader: Connection, statement: str) -> None:
    with pytest.raises((pg.ReadOnlySqlTransaction, pg.InsufficientPrivilege)):
        reader.execute(statement)  # type: ignore[arg-type]
    reader.execute("SET default_transaction_read_only = off")
    with pytest.raises(pg.InsufficientPrivilege):
        reader.execute(statement)  # type: ignore[arg-type]


def test_a_reader_becomes_nobody_else_and_adds_no_job(made: Settings, reader: Connection) -> None:
    reader.execute("SET default_transaction_read_only = off")
    for role in (made.owner, made.db_user, made.as_admin().db_user):
        with pytest.raises(pg.InsufficientPrivilege):
            reader.execute(f'SET ROLE "{role}"')  # type: ignore[arg-type]
    if detect(reader).hypertables:
        with pytest.raises(pg.InsufficientPrivilege):
            reader.execute("SELECT add_job('pg_sleep', '1 hour')")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE reading_days",
        "ALTER TABLE reading_analytics ADD mine int",
        "TRUNCATE reading_analytics",
        "CREATE TABLE mine (number int)",
        "DELETE FROM api_tokens",
        "DELETE FROM backup_runs",
        "UPDATE alembic_version SET version_num = '0001'",
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
    ],
)
def test_the_writer_alters_nothing_by_accident(writer: Connection, statement: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        writer.execute(statement)  # type: ignore[arg-type]


def test_the_writer_refreshes_rollups_and_is_itself_again(made: Settings) -> None:
    with connect(made, autocommit=True) as connection:
        assert [one.dirty for one in status(connection, ROLLUPS)] == [0, 0]
        assert connection.execute("SELECT sum(events) FROM reading_daily").fetchone() == (3000,)
        assert connection.execute("SELECT current_user::text").fetchone() == (made.db_user,)


def test_host_metrics_are_written_and_rolled_up_by_the_writer(made: Settings) -> None:
    old = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    with connect(made, autocommit=True) as connection:
        assert store(connection, [Sample(old, "host", "linux", "cpu", {"percent": 50.0})]) == 1
        assert store(connection, [Sample(old, "host", "linux", "cpu", {"percent": 50.0})]) == 0
        refresh_all(connection, METRIC_ROLLUPS)
    with connect(as_grafana(made)) as connection:
        assert connection.execute("SELECT samples FROM system_metrics_hourly").fetchall() == [(1,)]


def test_what_was_told_is_kept_by_the_writer(made: Settings) -> None:
    with receiving() as receiver:
        url = type(made.db_password)(f"json://127.0.0.1:{receiver.server_port}")
        telling = made.model_copy(update={"notify_urls": url})
        assert tell(telling, "roles", "something failed") is Told.FAILURE
        assert tell(telling, "roles", "something failed") is Told.NOTHING
        assert tell(telling, "roles", None) is Told.RECOVERY
    assert not (made.hub_data_dir / "notify.json").exists()


def test_the_proxy_reads_as_its_own_role_and_writes_as_the_writer(made: Settings) -> None:
    days = {"from": "2026-01-01", "to": "2026-01-01"}
    with (
        FakeDagster() as dagster,
        serving(made.model_copy(update={"dagster_url": dagster.url})) as url,
        client(url, make_token(made, "read", "sync")) as api,
    ):
        for path in ("readings", "readings/rollup", "readings/summary", "system-metrics", "system-metrics?bucket=5m"):
            assert api.get(f"/api/{path}").status_code == 200
        for _ in range(2):  # the key's row is the writer's
            assert api.post("/api/sync/readings", json=days, headers={"Idempotency-Key": "1"}).status_code == 202
        assert len(dagster.runs) == 1
    with connect(made) as connection:
        (token,) = tokens.listed(connection)
        tokens.revoke(connection, token.id)


def test_nobody_logs_in_as_the_owner_and_strangers_do_not_get_in(made: Settings, admin: Connection) -> None:
    row = admin.execute("SELECT rolpassword, rolcanlogin, rolsuper FROM pg_authid WHERE rolname = %s", (made.owner,))
    assert row.fetchone() == (None, True, False)
    with pytest.raises(DeniedError, match="wrong password"), connect(made.model_copy(update={"db_user": made.owner})):
        pass
    stranger = f"{made.db_name}_stranger"
    admin.execute(f"CREATE ROLE {stranger} LOGIN PASSWORD 'x'")  # type: ignore[arg-type]
    for database in (made.db_name, made.dagster_db_name):
        with pytest.raises(DeniedError, match="permission denied for database"), connect(
            made.model_copy(update={"db_user": stranger, "db_password": SecretStr("x")}), database=database
        ):  # fmt: skip
            pass


def test_grafana_reads_what_dagster_makes_later_and_dagster_stays_out_of_the_readings(made: Settings) -> None:
    dagster = as_dagster(made)
    with session(dagster) as connection:
        connection.execute("CREATE TABLE later (number int)")
        connection.execute("INSERT INTO later VALUES (7)")
    with session(as_grafana(made).model_copy(update={"db_name": made.dagster_db_name})) as connection:
        assert connection.execute("SELECT number FROM later").fetchall() == [(7,)]
        connection.execute("SET default_transaction_read_only = off")
        for statement in ("DELETE FROM later", "CREATE TABLE mine (number int)", "CREATE TEMP TABLE mine (number int)"):
            with pytest.raises(pg.InsufficientPrivilege):
                connection.execute(statement)  # type: ignore[arg-type]
    for settings, database in (
        (dagster, made.db_name),
        (made, made.dagster_db_name),
        (as_proxy(made), made.dagster_db_name),
    ):
        with pytest.raises(DeniedError), connect(settings, database=database):
            pass


def finding(settings: Settings, name: str) -> Finding:
    return next(found for found in examine(settings) if found.name == name)


def test_the_doctor_says_who_does_what_and_what_is_wrong_with_it(made: Settings, admin: Connection) -> None:
    healthy = finding(made, "roles")
    assert healthy.ok
    assert healthy.detail == f"{made.owner} owns, {made.db_user} writes, the others only read"
    admin.execute(f"REVOKE SELECT ON reading_daily FROM {made.grafana_db_user}")  # type: ignore[arg-type]
    admin.execute("GRANT SELECT ON api_tokens TO PUBLIC")
    admin.execute("ALTER TABLE reading_days OWNER TO CURRENT_USER")
    sick = finding(made, "roles")
    assert not sick.ok
    for part in (
        f"{made.grafana_db_user} lacks SELECT on reading_daily",
        "PUBLIC has SELECT on api_tokens, which it must not",
        f"reading_days not owned by {made.owner}",
    ):
        assert part in sick.detail
    assert sick.remedy == "run `hub db upgrade`"
    assert upgrade(made).rights == 3
    admin.execute(f"ALTER ROLE {made.db_user} SUPERUSER")  # type: ignore[arg-type]
    admin.execute(f"GRANT CONNECT ON DATABASE {made.db_name} TO PUBLIC")  # type: ignore[arg-type]
    admin.execute(f"REVOKE {made.owner} FROM {made.db_user}")  # type: ignore[arg-type]
    sick = finding(made, "roles")
    assert f"{made.db_user} is a superuser" in sick.detail
    assert "every role of the server may connect in this database" in sick.detail
    assert sick.remedy == "run `hub db roles`"
    make_roles(made)
    assert finding(made, "roles") == healthy


def test_a_rebuilt_rollup_keeps_its_grants(made: Settings, admin: Connection) -> None:
    admin.execute("UPDATE rollup_state SET signature = 'another' WHERE rollup IN ('reading_hourly', 'reading_daily')")
    done = upgrade(made)
    assert done.rollups == ("reading_hourly", "reading_daily")
    assert done.rights > 0
    with connect(as_grafana(made)) as connection:
        assert connection.execute("SELECT sum(events) FROM reading_daily").fetchone() == (3000,)
        connection.execute("SELECT * FROM reading_last_30_days")
    with connect(as_proxy(made)) as connection:
        assert connection.execute("SELECT sum(events) FROM reading_hourly").fetchone() == (3000,)
        assert list(complaints(connection, made)) == []
    fill(made, 60, start="2026-04-01")
    with connect(made) as connection:
        assert connection.execute("SELECT sum(events) FROM reading_daily").fetchone() == (3060,)


def test_background_jobs_run_as_the_owner(made: Settings, admin: Connection) -> None:
    if detect(admin) is not Level.TIMESCALE:
        pytest.skip("the server of the tests has no background jobs")
    admin.execute(
        "SELECT alter_job(job_id, next_start => now()) FROM timescaledb_information.jobs WHERE job_id >= 1000"
    )

    def ended() -> list[tuple[str, str]]:
        found = admin.execute(
            "SELECT owner::text, last_run_status FROM timescaledb_information.jobs"
            " JOIN timescaledb_information.job_stats USING (job_id) WHERE job_id >= 1000"
        ).fetchall()
        return found if len(found) == 6 and all(state for _, state in found) else []

    assert set(until("every job has run", ended, seconds=60)) == {(made.owner, "Success")}


def test_made_and_upgraded_several_times_at_once(postgres: dict[str, str]) -> None:
    with role_set(postgres) as settings:
        make_roles(settings)
        with ThreadPoolExecutor(4) as pool:
            started = [pool.submit(step, settings) for step in (make_roles, upgrade, make_roles, upgrade)]
            for one in started:
                one.result()
        with connect(settings) as connection:
            assert list(complaints(connection, settings)) == []


def test_made_twice_at_once_from_nothing(postgres: dict[str, str]) -> None:
    with role_set(postgres) as settings:
        with ThreadPoolExecutor(2) as pool:
            lines = [line for made in pool.map(make_roles, [settings, settings]) for line in made]
        assert len([line for line in lines if line.endswith("(as before)")]) == 5
        assert len([line for line in lines if line.startswith("database ")]) == 2
        upgrade(settings)
        with connect(settings) as connection:
            assert list(complaints(connection, settings)) == []


def test_another_password_in_the_settings_is_the_role_s_after_running_it_again(postgres: dict[str, str]) -> None:
    with role_set(postgres) as old:
        make_roles(old)
        changed = {
            "db_password": SecretStr("nëw 'quoted' \\ secret"),
            "grafana_db_password": SecretStr("new"),
            "proxy_db_password": SecretStr("newer"),
            "dagster_db_password": SecretStr("newest"),
        }
        new = old.model_copy(update=changed)
        make_roles(new)
        for of in (lambda settings: settings, as_grafana, as_proxy, as_dagster):
            with connect(of(new)):
                pass
            with pytest.raises(DeniedError, match="wrong password"), connect(of(old)):
                pass


def test_no_password_reaches_the_servers_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every statement is logged there, and failing ones again."""
    logged = {"log_statement": "all", "log_min_duration_statement": "0", "fsync": "off"}
    server = EmbeddedPostgres(tmp_path_factory.mktemp("logged"), settings=logged)
    server.start()
    try:
        settings = load_settings(**given(server.environment(), "logged"))
        make_roles(settings)
        make_roles(settings)
        with connect(settings.as_admin(), database=MAINTENANCE, autocommit=True) as connection:
            connection.execute("CREATE ROLE another SUPERUSER LOGIN PASSWORD 'another'")
        as_another = {"db_user": "reading_hub", "db_admin_user": "another", "db_admin_password": SecretStr("another")}
        with pytest.raises(RefusedError, match="is the superuser that the server was made with"):
            make_roles(settings.model_copy(update=as_another))
    finally:
        server.stop()
    log = server.log.read_text()
    assert "pg_advisory_lock" in log
    assert "secret" not in log
    assert "SCRAM-SHA-256$" not in log


def test_an_older_install_is_handed_over_without_loss(postgres: dict[str, str]) -> None:
    """Everything was one superuser's: tables, rollups, compressed chunks, jobs, and Dagster's tables."""
    with role_set(postgres) as settings:
        old = settings.as_admin().model_copy(update={"db_owner": None, "db_admin_user": None, "proxy_db_user": None})
        for database in (settings.db_name, settings.dagster_db_name):
            with connect(old, database=MAINTENANCE, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {database}")  # type: ignore[arg-type]
        upgrade(old)
        fill(old, 3000)
        with connect(old, autocommit=True) as connection:
            level = detect(connection)
            if level is Level.TIMESCALE:
                connection.execute("SELECT compress_chunk(c) FROM show_chunks('reading_analytics') c").fetchall()
        with connect(old, database=settings.dagster_db_name) as connection:
            connection.execute("CREATE TABLE runs (id bigserial PRIMARY KEY, number int)")
            connection.execute("INSERT INTO runs (number) VALUES (1)")
        make_roles(settings)
        upgrade(settings)
        with connect(settings, autocommit=True) as connection:
            assert list(complaints(connection, settings)) == []
            assert connection.execute("SELECT count(*), sum(value) FROM reading_analytics").fetchone() is not None
            connection.execute(
                "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type)"
                " VALUES ('late', '2026-01-01 12:00:30+00', 'kobo', 'page')"
            )
            connection.execute("UPDATE reading_analytics SET value = 1 WHERE mongo_id = '2026-01-01-700'")
            connection.execute(
                "INSERT INTO rollup_dirty (rollup, bucket) VALUES ('reading_hourly', '2026-01-01 12:00+00')"
            )
            refresh_all(connection, ROLLUPS)
            assert connection.execute("SELECT sum(events) FROM reading_daily").fetchone() == (3001,)
            if level is Level.TIMESCALE:
                owners = connection.execute(
                    "SELECT DISTINCT owner::text FROM timescaledb_information.jobs WHERE job_id >= 1000"
                )
                assert owners.fetchall() == [(settings.owner,)]
        with connect(as_dagster(settings)) as connection:
            connection.execute("INSERT INTO runs (number) VALUES (2)")
            connection.execute("ALTER TABLE runs ADD more int")
        with connect(as_grafana(settings), database=settings.dagster_db_name) as connection:
            assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"grafana_db_user": "PROXY"}, "PROXY_DB_USER must not be the same role as GRAFANA_DB_USER"),
        ({"db_owner": "ADMIN"}, "DB_OWNER must not be the same role as DB_ADMIN_USER"),
        ({"proxy_db_password": None}, "PROXY_DB_PASSWORD is not set"),
        ({"dagster_db_password": None}, "DAGSTER_DB_PASSWORD is not set"),
        ({"dagster_db_name": "HUB"}, "DAGSTER_DB_NAME must not be DB_NAME"),
    ],
)
def test_settings_that_muddle_roles_are_refused_before_anything_is_made(
    postgres: dict[str, str], more: dict[str, str | None], said: str
) -> None:
    with role_set(postgres) as settings:
        names = {"PROXY": settings.proxy_db_user, "ADMIN": postgres["DB_USER"], "HUB": settings.db_name}
        muddled = settings.model_copy(update={key: names.get(str(value), value) for key, value in more.items()})
        with pytest.raises(SettingsError, match=said):
            make_roles(muddled)
        with connect(settings.as_admin(), database=MAINTENANCE) as connection:
            query = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, %s)"
            assert connection.execute(query, (settings.db_name,)).fetchone() == (0,)


def test_only_a_superuser_makes_roles(made: Settings) -> None:
    with pytest.raises(DeniedError, match="is not a superuser and cannot make roles: set DB_ADMIN_USER"):
        make_roles(
            made.model_copy(
                update={
                    "db_admin_user": made.proxy_db_user,
                    "db_admin_password": made.proxy_db_password,
                    "proxy_db_user": None,
                }
            )
        )


def test_an_upgrade_before_the_roles_says_what_to_run(postgres: dict[str, str]) -> None:
    with role_set(postgres) as settings:
        with connect(settings.as_admin(), database=MAINTENANCE, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {settings.db_name}")  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r"there is no role .*_owner' \(DB_OWNER\)\. Run `hub db roles`"):
            upgrade(settings)
