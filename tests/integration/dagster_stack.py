"""Dagster for tests: one code location, webserver and daemon for a module, and what an instance recorded."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import dagster as dg
import httpx
import psutil
from bson.objectid import ObjectId

from hub.embedded.process import free_port
from hub.rollups.declared import ROLLUPS
from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.mongo_wire import WireServer

ROOT = Path(__file__).resolve().parents[2]
LOCATION = "reading_hub"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
READING_ASSETS = ("reading_analytics", "reading_rejects", *(rollup.name for rollup in ROLLUPS))

T = TypeVar("T")


def until(what: str, found: Callable[[], T | None], *, seconds: float = 300) -> T:
    """Ask `found` until it answers with something true, and return that; after `seconds` the test fails."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        threading.Event().wait(0.3)
    return answer


def reading(day: str, value: float = 1.0, **fields: Any) -> dict[str, Any]:
    """A document of noon of that UTC day."""
    noon = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(12), dt.UTC)
    return {"_id": ObjectId(), "timestamp": noon, "source": "kobo", "payload": {"value": value}, **fields}


def dead_letter(day: str) -> dict[str, Any]:
    """A document of that day that cannot become a row: jsonb holds no U+0000."""
    return reading(day, payload={"text": "before\0after"})


def rows_by_day(settings: Settings) -> dict[str, int]:
    """Rows of `reading_analytics` by UTC day."""
    return _by_day(settings, "reading_analytics", "event_timestamp", "count(*)")


def rolled_by_day(settings: Settings, rollup: str = "reading_daily") -> dict[str, int]:
    """Events of a rollup by UTC day."""
    return _by_day(settings, rollup, "bucket", "sum(events)::bigint")


def _by_day(settings: Settings, table: str, column: str, what: str) -> dict[str, int]:
    with connect(settings) as connection:
        found = connection.execute(f"SELECT ({column} AT TIME ZONE 'UTC')::date::text, {what} FROM {table} GROUP BY 1")
        return dict(found.fetchall())


@contextlib.contextmanager
def instance_of(environment: dict[str, str]) -> Iterator[dg.DagsterInstance]:
    """Dagster's own record of what happened, as its processes with this environment see it."""
    with (
        mock.patch.dict(os.environ, environment),
        dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance,
    ):
        yield instance


def materialized(instance: dg.DagsterInstance, asset: str) -> dict[str, int | None]:
    """Row count metadata of the latest materialization of each partition of an asset."""
    key = dg.AssetKey(asset)
    found: dict[str, int | None] = {}
    for day in instance.get_materialized_partitions(key):
        latest = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1)
        materialization = latest.records[0].asset_materialization
        assert materialization is not None
        count = materialization.metadata.get("dagster/partition_row_count")
        found[day] = None if count is None else int(count.value)
    return found


def findable(*secrets: str) -> list[str]:
    """Those that can be looked for: `postgres`, of a server that TEST_DATABASE_URL names, is in every text."""
    return [secret for secret in secrets if len(secret) > 10]


def everything_stored(settings: Settings, environment: dict[str, str]) -> list[str]:
    """Every row of every table of Dagster's own database, as text."""
    rows: list[str] = []
    with connect(settings, database=environment["DAGSTER_DB_NAME"]) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            rows += [row for (row,) in connection.execute(f'SELECT t::text FROM "{table}" t')]
    return rows


def run_command(environment: dict[str, str], *command: str, seconds: float = 600) -> str:
    """Run one of Dagster's own commands as a user would, in the project's folder; return all it printed."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, timeout=seconds,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextlib.contextmanager
def process(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; it and all that it started are gone at the end of the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield running
    finally:
        for found in family(running.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.kill()
        running.wait()


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


@dataclass(frozen=True)
class Stack:
    """Webserver, daemon and code location, with the database and the source that they work for."""

    settings: Settings
    wire: WireServer
    environment: dict[str, str]
    instance: dg.DagsterInstance
    port: int

    def graphql(self, query: str, **variables: Any) -> Any:
        """The `data` of an answer; anything that the UI would show as an error fails the test."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/graphql",
            json={"query": query, "variables": variables},
            timeout=300,
        ).json()
        assert not answer.get("errors"), answer
        for field, value in answer["data"].items():
            problem = value.get("message") if isinstance(value, dict) else None
            assert problem is None, f"{field}: {problem}"
        return answer["data"]

    def finished(self, run_id: str) -> dg.DagsterRun:
        """The run, once it has ended."""

        def ended() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run and run.is_finished else None

        return until(f"run {run_id} ends", ended)

    def succeeded(self, run_id: str) -> dg.DagsterRun:
        """The run, once it has ended, which must be well."""
        run = self.finished(run_id)
        assert run.is_success, self.log_of(run_id)
        return run

    def log_of(self, run_id: str) -> str:
        """Every event of a run with all that it carries, as text."""
        return "\n".join(str(record.event_log_entry) for record in self.instance.get_records_for_run(run_id).records)

    def runs(self, **tags: str) -> list[dg.DagsterRun]:
        """The runs with these tags (`__` stands for `/`), the newest first."""
        wanted = {name.replace("__", "/"): value for name, value in tags.items()}
        return list(self.instance.get_runs(dg.RunsFilter(tags=wanted)))


def switch_off(stack: Stack, sensor: str) -> None:
    """Switch a sensor off, as in the UI."""
    found = stack.graphql(
        """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
             ... on Sensor { id } ... on Error { message } } }""",
        selector={**REPOSITORY, "sensorName": sensor},
    )
    stack.graphql(
        "mutation ($id: String!) { stopSensor(id: $id) { __typename ... on Error { message } } }",
        id=found["sensorOrError"]["id"],
    )


@contextlib.contextmanager
def dagster_stack(
    settings: Settings, wire: WireServer, environment: dict[str, str], folder: Path, *, through: Sequence[str] = ()
) -> Iterator[Stack]:
    """Start a code location, a webserver and a daemon, which share it, and wait until the UI lists its assets.

    What they print is in NAME.log of the folder; `through` is a command that runs each of them.
    """
    for program in ("dagster", "dagster-webserver", "dagster-daemon"):
        assert shutil.which(program, path=environment["PATH"]), f"{program} is not installed"
    port = free_port()
    # As in compose.yaml; its path must be a short one.
    code = f"{tempfile.mkdtemp()}/code.sock"
    workspace = folder / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - grpc_server: {{socket: {code}, location_name: {LOCATION}}}\n")
    commands = {
        "code": [
            "dagster", "api", "grpc", "--socket", code, "-m", "pipelines.definitions", "--location-name", LOCATION,
        ],
        "webserver": ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-w", str(workspace)],
        "daemon": ["dagster-daemon", "run", "-w", str(workspace)],
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, Path(code).parent)
        # First, since it makes the tables of the instance, which three processes at once would fight over.
        instance = stack.enter_context(instance_of(environment))
        instance.get_runs_count()
        started = Stack(settings, wire, environment, instance, port)
        processes = {
            name: stack.enter_context(process([*through, *command], environment, folder / f"{name}.log"))
            for name, command in commands.items()
        }

        def ready() -> bool:
            for name, running in processes.items():
                assert running.poll() is None, (folder / f"{name}.log").read_text()
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                return len(started.graphql("{ assetNodes { id } }")["assetNodes"]) > 0
            return False

        until("the webserver lists the assets", ready)
        yield started
