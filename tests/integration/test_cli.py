"""The command line as a person meets it: exit codes, sentences, secrets, and nothing left behind."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from hub.embedded.process import free_port
from hub.settings import Settings
from hub.timescale.connection import Connection, connect
from tests.conftest import dagster_variables
from tests.integration.dagster_stack import everything_stored, findable, instance_of, reading, until
from tests.support.mongo_wire import Faults, WireServer

ROOT = Path(__file__).resolve().parents[2]
HUB = str(Path(sys.executable).parent / "hub")
SECRET = "s3cret-pa55"
MONGO = f"mongodb://reader:{SECRET}@127.0.0.1:1/?serverSelectionTimeoutMS=200"
GOOD = {"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_PASSWORD": SECRET, "MONGO_URI": MONGO}
TIME_INDEX = {"v": 2, "key": {"timestamp": 1}, "name": "timestamp_1"}


def hub(
    *arguments: str, environment: dict[str, str], folder: Path, seconds: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run `hub` in a folder, with what is in this environment and no more than a shell's own variables."""
    return subprocess.run(
        [HUB, *arguments], env=bare(environment), cwd=folder, text=True, capture_output=True, timeout=seconds
    )


def bare(environment: dict[str, str]) -> dict[str, str]:
    shell = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**shell, "PYTHONWARNINGS": "ignore", "COLUMNS": "200", **environment}


# --- Settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"DB_PASSWORD": ""}, "DB_PASSWORD is not set"),
        ({"DB_PORT": "54x32"}, "DB_PORT must be a valid integer"),
        ({"DB_NAME": "a b"}, "DB_NAME must be a plain name"),
        ({"MONGO_URI": f"postgresql://reader:{SECRET}@db"}, "MONGO_URI must begin with mongodb://"),
        ({"READING_CRON": "at ten"}, "READING_CRON must be a cron expression"),
        ({"READING_TIME_FIELD": "meta.time"}, "'meta.time' cannot be a time field"),
        ({"READING_START_DATE": "soon"}, "READING_START_DATE must be"),
        ({"DB_PASSWORD": "", "DB_PORT": "0"}, "DB_PASSWORD is not set; DB_PORT must be"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_named_in_one_sentence(wrong: dict[str, str], sentence: str, tmp_path: Path) -> None:
    done = hub("doctor", environment=GOOD | wrong, folder=tmp_path)
    assert_refused(done, sentence)
    assert list(tmp_path.iterdir()) == [], "nothing was started"


@pytest.mark.parametrize(
    "command",
    [("demo",), ("dev",), ("backfill", "2026-03-01", "2026-03-02"), ("run", "true"), ("env",), ("seed",),
     ("db", "upgrade"), ("rollups", "status")],
    ids=" ".join,
)  # fmt: skip
def test_every_command_checks_the_settings_before_anything_starts(command: tuple[str, ...], tmp_path: Path) -> None:
    # Nothing but this one: the servers would be embedded ones.
    done = hub(*command, environment={"DB_PORT": "many", "DB_PASSWORD": SECRET}, folder=tmp_path)
    assert_refused(done, "DB_PORT must be a valid integer")
    assert list(tmp_path.iterdir()) == [], "nothing was started"


def test_settings_come_from_the_env_file_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("READING_CRON=never\nDB_PORT=many\n")
    done = hub("doctor", environment=GOOD, folder=tmp_path)
    assert_refused(done, "READING_CRON must be a cron expression")
    assert "DB_PORT" not in done.stderr


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        (("2026-02-30", "2026-03-01"), "FROM must be a day such as 2026-01-31, not '2026-02-30'"),
        (("2026-03-01", ""), "TO must be a day such as 2026-01-31, not ''"),
        (("2026-03-02", "2026-03-01"), "FROM 2026-03-02 is later than TO 2026-03-01: swap them"),
    ],
)
def test_days_of_a_backfill_that_are_none_are_named(days: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    assert_refused(hub("backfill", *days, environment=GOOD, folder=tmp_path), sentence)


def assert_refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """Exit code 2 and one line for a person, without a secret."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("hub: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert sentence in done.stderr
    assert_no_secret(done.stdout + done.stderr)


def assert_no_secret(text: str, *secrets: str) -> None:
    assert not [secret for secret in findable(SECRET, *secrets) if secret in text]


# --- Secrets of runs that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"MONGO_URI": "refusing"}, "refused the user or the password. Correct MONGO_URI."),
        ({"DB_PASSWORD": SECRET}, "wrong password. Correct DB_PASSWORD."),
        ({"MONGO_URI": f"mongodb://reader:{SECRET}@127.0.0.1:no/"}, "MONGO_URI is malformed"),
    ],
    ids=["mongodb", "postgresql", "malformed"],
)
def test_a_run_with_a_wrong_password_says_so_and_nothing_keeps_it(
    wrong: dict[str, str], sentence: str, settings: Settings, dagster_environment: dict[str, str], tmp_path: Path
) -> None:
    with WireServer(faults=Faults(refuse_authentication=True)) as refusing:
        if "refusing" in wrong.values():
            wrong = {"MONGO_URI": f"mongodb://reader:{SECRET}@127.0.0.1:{refusing.port}/?authMechanism=PLAIN"}
        done = hub("backfill", "2026-03-01", "2026-03-02", environment=dagster_environment | wrong, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    with instance_of(dagster_environment) as instance:
        (run,) = instance.get_runs()
        assert run.is_failure
    stored = "\n".join(everything_stored(settings, dagster_environment))
    assert sentence in stored
    files = "\n".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    real = settings.db_password.get_secret_value()
    assert_no_secret("\n".join((done.stdout, done.stderr, stored, files)), real)


def test_a_wrong_password_of_dagsters_own_database_is_told_without_it(
    dagster_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {**dagster_environment, "DAGSTER_DB_PASSWORD": SECRET}
    done = hub("backfill", "2026-03-01", "2026-03-02", environment=environment, folder=tmp_path)
    assert done.returncode == 1
    assert "password authentication failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    files = "\n".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert_no_secret(done.stdout + done.stderr + files, dagster_environment["DB_PASSWORD"])


@pytest.mark.parametrize(
    "command", [("seed", "--into", "reading.samples"), ("db", "upgrade"), ("rollups", "status")], ids=" ".join
)
def test_a_server_that_is_away_is_one_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    done = hub(*command, environment=GOOD, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be reached or went away" in done.stderr
    assert_no_secret(done.stdout + done.stderr)


# --- What writes to MongoDB, or to somebody ------------------------------------------------------------------


@pytest.fixture
def source(dagster_environment: dict[str, str]) -> Iterator[tuple[dict[str, str], WireServer]]:
    """The environment of a hub whose MongoDB is somebody's own, and that server."""
    with WireServer() as wire:
        yield {**dagster_environment, "MONGO_URI": wire.uri}, wire


@pytest.mark.parametrize(
    ("command", "remedy"), [(("seed",), "--into reading.events"), (("smoke",), "--yes (make smoke YES=1)")]
)
def test_a_mongodb_of_ones_own_is_written_to_only_where_that_is_said(
    command: tuple[str, ...], remedy: str, source: tuple[dict[str, str], WireServer], tmp_path: Path
) -> None:
    environment, wire = source
    done = hub(*command, environment=environment, folder=tmp_path)
    assert_refused(done, remedy)
    assert wire.documents == []


def test_samples_go_where_they_are_sent(source: tuple[dict[str, str], WireServer], tmp_path: Path) -> None:
    environment, wire = source
    assert_refused(hub("seed", "--into", "samples", environment=environment, folder=tmp_path), "DATABASE.COLLECTION")
    done = hub(
        "seed",
        "--count",
        "10",
        "--into",
        f"{wire.database}.{wire.collection}",
        environment=environment,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(wire.documents) >= 10


def test_the_mongodb_of_the_stack_needs_no_such_word(source: tuple[dict[str, str], WireServer], tmp_path: Path) -> None:
    environment, wire = source
    own = wire.uri.partition("://")[2].partition("/")[0]
    done = hub("seed", "--count", "10", environment={**environment, "MONGO_OWN": own}, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_where_nobody_is_told_the_command_says_so(dagster_environment: dict[str, str], tmp_path: Path) -> None:
    done = hub("notify", "the roof", "--well", environment=dagster_environment, folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, "nobody was told: NOTIFY_URLS is not set\n")


def test_a_wrong_url_of_notifications_is_not_repeated(dagster_environment: dict[str, str], tmp_path: Path) -> None:
    environment = {**dagster_environment, "NOTIFY_URLS": f"{SECRET}://example json//{SECRET}"}
    done = subprocess.run(
        [HUB, "notify", "the roof"],
        env=bare(environment),
        cwd=tmp_path,
        input="it leaks",
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2
    assert "number 1 (of no scheme that apprise knows), number 2" in done.stderr
    assert_no_secret(done.stdout + done.stderr)


# --- hub db upgrade -----------------------------------------------------------------------------------------


def test_two_upgrades_at_once_and_a_third_leave_one_schema(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    environment = bare(settings.environment())
    both = [
        subprocess.Popen(
            [HUB, "db", "upgrade"], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = sorted(process.communicate(timeout=600)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0].startswith("Nothing to do: the schema is at revision")
    assert said[1].startswith("Schema empty →")
    with connect(settings, autocommit=True) as connection:
        before = catalog(connection)
        third = hub("db", "upgrade", environment=settings.environment(), folder=tmp_path)
        assert third.stdout == said[0]
        assert catalog(connection) == before


def catalog(connection: Connection) -> list[tuple[object, ...]]:
    """Every relation with its storage, and the revision: a table that was made again has another number."""
    relations = connection.execute(
        "SELECT c.relname, c.relkind, c.relfilenode, c.xmin::text FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' ORDER BY 1, 2"
    ).fetchall()
    revision = connection.execute("SELECT version_num, xmin::text FROM alembic_version").fetchall()
    assert len(relations) > 5
    return [*relations, *revision]


# --- hub doctor ---------------------------------------------------------------------------------------------


def doctor(environment: dict[str, str], folder: Path) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code and findings by name."""
    done = hub("doctor", "--json", environment=environment, folder=folder)
    assert "Traceback" not in done.stderr, done.stderr
    assert_no_secret(done.stdout + done.stderr, environment["DB_PASSWORD"])
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in answer["findings"]}


def test_the_doctor_is_green_when_all_is_well(
    wire: WireServer, dagster_environment: dict[str, str], tmp_path: Path
) -> None:
    wire.indexes.append(TIME_INDEX)
    wire.documents.append(reading("2026-03-05"))
    code, findings = doctor(dagster_environment, tmp_path)
    assert (code, [name for name, finding in findings.items() if not finding["ok"]]) == (0, [])
    assert set(findings) >= {
        "settings", "MongoDB", "collection", "time index", "PostgreSQL", "level", "schema", "role", "rollups",
        "Dagster instance", "disk", "backup folder",
    }  # fmt: skip
    lines = hub("doctor", environment=dagster_environment, folder=tmp_path)
    assert lines.returncode == 0
    assert len(lines.stdout.splitlines()) == len(findings)
    assert all(line.startswith("✓ ") for line in lines.stdout.splitlines())


def test_the_doctor_names_each_thing_that_is_wrong_and_what_to_do(
    wire: WireServer, make_settings: Callable[..., Settings], make_database: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "backups").write_text("a file")
    made = make_settings(mongo_uri=wire.uri, mongo_db_name=wire.database, mongo_collection=wire.collection)
    environment = dagster_variables(made, make_database(), tmp_path / "dagster")
    code, findings = doctor(environment, tmp_path)
    assert code == 1
    wrong = {name: finding["remedy"] for name, finding in findings.items() if not finding["ok"]}
    assert set(wrong) == {"time index", "schema", "backup folder"}
    assert "createIndex" in str(wrong["time index"])
    assert "hub db upgrade" in str(wrong["schema"])
    lines = hub("doctor", environment=environment, folder=tmp_path)
    assert lines.returncode == 1
    assert lines.stdout.count("✗ ") == lines.stdout.count("→ ") == 3


def test_the_doctor_goes_on_after_a_server_that_is_away(dagster_environment: dict[str, str], tmp_path: Path) -> None:
    wrong = {"MONGO_URI": MONGO, "DB_PASSWORD": SECRET, "DAGSTER_HOME": str(tmp_path / "nowhere")}
    code, findings = doctor(dagster_environment | wrong, tmp_path)
    assert code == 1
    assert {name for name, finding in findings.items() if not finding["ok"]} == {
        "MongoDB", "PostgreSQL", "Dagster instance",
    }  # fmt: skip
    assert "MONGO_URI" in str(findings["MongoDB"]["remedy"])
    assert "DB_PASSWORD" in str(findings["PostgreSQL"]["remedy"])
    assert findings["disk"]["ok"]


def test_the_doctor_says_when_the_collection_is_another(
    wire: WireServer, dagster_environment: dict[str, str], tmp_path: Path
) -> None:
    code, findings = doctor(dagster_environment | {"MONGO_COLLECTION": "other"}, tmp_path)
    assert code == 1
    assert not findings["collection"]["ok"]
    assert wire.collection in str(findings["collection"]["detail"])


# --- hub env, hub run ---------------------------------------------------------------------------------------


def test_hub_env_is_for_a_shell_whatever_the_password(tmp_path: Path) -> None:
    password = 'it\'s $HOME `id` "x" \\ ; #'
    environment = bare(
        GOOD
        | {"DB_PASSWORD": password, "HUB_DATA_DIR": str(tmp_path / "data"), "BACKUP_DIR": str(tmp_path / "backups")}
    )
    script = f'eval "$({HUB} env)" && "{sys.executable}" -c "import json, os; print(json.dumps(dict(os.environ)))"'
    names = ("DB_PASSWORD", "DAGSTER_DB_PASSWORD")
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=300, check=True
    )
    found = json.loads(done.stdout)
    assert [found[name] for name in names] == [password, password]
    assert (found["MONGO_URI"], found["DB_NAME"]) == (MONGO, "reading_hub")
    assert found["DAGSTER_HOME"] == str(tmp_path / "data" / "dagster")
    assert (tmp_path / "data" / "dagster" / "dagster.yaml").exists()


def test_hub_run_gives_a_command_the_environment_and_takes_its_exit_code(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['DB_NAME']); sys.exit(7)"
    done = hub("run", "--", sys.executable, "-c", code, environment=GOOD, folder=tmp_path)
    assert (done.returncode, done.stdout) == (7, "reading_hub\n")


# --- hub demo, hub dev: embedded servers, nothing given -----------------------------------------------------


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One data folder for the demos below; the first one finds it empty."""
    folder = tmp_path_factory.mktemp("demo")
    yield folder
    for process in left_running(folder):
        process.kill()


def left_running(folder: Path) -> list[psutil.Process]:
    """Processes that have this data folder in their environment: all that a command there started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HUB_DATA_DIR") == str(folder / "data"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def demo_environment(folder: Path) -> dict[str, str]:
    return bare({"HUB_DATA_DIR": str(folder / "data"), "BACKUP_DIR": str(folder / "backups")})


def test_hub_demo_shows_sample_readings_and_a_second_one_changes_nothing(demo_folder: Path) -> None:
    first = hub("demo", environment=demo_environment(demo_folder), folder=demo_folder)
    assert first.returncode == 0, first.stdout + first.stderr
    for part in ("sample documents written", "readings ", "rejects ", "reading_daily", "Next:"):
        assert part in first.stdout
    assert "No row changed" not in first.stdout
    assert left_running(demo_folder) == []

    second = hub("demo", environment=demo_environment(demo_folder), folder=demo_folder)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "No row changed" in second.stdout
    assert without_backup(table_of(second.stdout)) == without_backup(table_of(first.stdout)) != []
    assert "every byte read back" in second.stdout
    assert left_running(demo_folder) == []


def without_backup(table: list[str]) -> list[str]:
    """The rows of the summary that a second demo repeats: each takes a backup of its own."""
    return [row for row in table if not row.startswith("│ backup")]


def table_of(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("│")]


@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-C twice", "terminal closed", "kill -9"])
def test_hub_dev_ends_with_nothing_left_running(demo_folder: Path, how: str) -> None:
    port = free_port()
    output = demo_folder / "dev.out"
    with output.open("wb") as log:
        dev = subprocess.Popen(
            [HUB, "dev", "--port", str(port)], env=demo_environment(demo_folder), cwd=demo_folder,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run below nohup
        )  # fmt: skip

    def ready() -> bool:
        assert dev.poll() is None, output.read_text()
        return f"Dagster UI: http://127.0.0.1:{port}" in output.read_text()

    until("hub dev says where the UI is", ready, seconds=600)
    locations = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"
    answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": locations}, timeout=300).json()
    assert [entry["name"] for entry in answer["data"]["workspaceOrError"]["locationEntries"]] == ["reading_hub"]
    running = {" ".join(process.cmdline()) for process in left_running(demo_folder)}
    for program in ("dagster-webserver", "dagster-daemon", "postgres", "nx_27017"):
        assert any(program in command for command in running), program

    sent = {"terminal closed": signal.SIGHUP, "kill -9": signal.SIGKILL}.get(how, signal.SIGINT)
    os.killpg(dev.pid, sent)  # what a terminal does
    if how == "Ctrl-C twice":
        until("hub dev begins to stop", lambda: "Stopping" in output.read_text())
        os.killpg(dev.pid, signal.SIGINT)
    assert dev.wait(300) == {"Ctrl-C twice": 130, "kill -9": -9}.get(how, 0), output.read_text()
    until("the servers have ended", lambda: left_running(demo_folder) == [], seconds=60 if how == "kill -9" else 10)
    assert "Traceback" not in output.read_text()


def test_hub_dev_says_when_its_port_is_taken(demo_folder: Path, wire: WireServer) -> None:
    dev = ("dev", "--port", str(wire.port))
    done = hub(*dev, environment=demo_environment(demo_folder), folder=demo_folder)
    assert done.returncode == 1
    assert f"port {wire.port} is taken by another program" in done.stderr
    wrong = hub(*dev, environment=demo_environment(demo_folder) | {"DB_PORT": "many"}, folder=demo_folder)
    assert_refused(wrong, "DB_PORT must be a valid integer")
    assert left_running(demo_folder) == []


def test_the_passwords_of_the_stack_do_not_reach_the_embedded_servers(tmp_path: Path) -> None:
    """`make init` writes them to .env, which Dagster's commands would put on top of the environment."""
    clone = tmp_path / "clone"
    for name in ("hub", "assets", "pipelines"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, clone)
    (clone / ".env").write_text(
        "".join(f"{name}_PASSWORD={SECRET}\n" for name in ("DB", "DAGSTER_DB", "GRAFANA_DB", "PROXY_DB", "POSTGRES"))
    )
    environment = {"PYTHONPATH": str(clone), "HUB_DATA_DIR": str(tmp_path / "data")}
    loaded = hub("demo", environment=environment, folder=clone)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=3)
    launch = ("dg", "launch", "--assets", "reading_analytics,reading_rejects", "--partition", str(day))
    again = hub("run", *launch, environment=environment, folder=clone)
    assert again.returncode == 0, again.stdout + again.stderr
    assert_no_secret(loaded.stdout + again.stdout + again.stderr, SECRET)
