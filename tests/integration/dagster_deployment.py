"""A daemon and a code location for tests, started and killed one by one, and what Dagster's own record says of them."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from hub.embedded.process import accepts_connections, free_port
from hub.settings import Settings
from hub.timescale.connection import connect, parameters
from tests.integration.dagster_stack import LOCATION, family, instance_of, process, run_command, until
from tests.support.mongo_wire import WireServer

_NUMBERS = itertools.count()


class Deployment:
    """`code` and `daemon`. They belong to the settings' databases and to the environment's instance."""

    def __init__(
        self, settings: Settings, wire: WireServer, environment: dict[str, str], instance: dg.DagsterInstance
    ) -> None:
        self.settings, self.wire, self.environment, self.instance = settings, wire, environment, instance
        self.folder = Path(environment["DAGSTER_HOME"])
        self._port = free_port()
        self._workspace = self.folder / "workspace.yaml"
        self._workspace.write_text(
            f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {self._port}, location_name: {LOCATION}}}\n"
        )
        self._running: dict[str, contextlib.ExitStack] = {}
        self._pids: dict[str, int] = {}

    def switch_off(self, sensor: str) -> None:
        """Switch a sensor off; the code location has to run."""
        run_command(self.environment, "dagster", "sensor", "stop", sensor, "-w", str(self._workspace))

    def start(self, *names: str) -> None:
        """Start some, and wait until the code location answers."""
        port = str(self._port)
        commands = {
            "code": ["dagster", "api", "grpc", "-p", port, "-m", "pipelines.definitions", "--location-name", LOCATION],
            "daemon": ["dagster-daemon", "run", "-w", str(self._workspace)],
        }
        for name in names:
            stack = self._running[name] = contextlib.ExitStack()
            log = self.folder / f"{name}-{next(_NUMBERS)}.log"
            self._pids[name] = stack.enter_context(process(commands[name], self.environment, log)).pid
            if name == "code":
                until("the code location answers", lambda: accepts_connections(self._port))

    def kill(self, *names: str) -> None:
        """Kill -9 with all that they have started, runs too."""
        for name in names:
            self._running.pop(name).close()

    def kill_alone(self, name: str) -> None:
        """Kill -9 a process, and leave be what it has started."""
        one, *others = family(self._pids[name])
        one.kill()
        one.wait()
        self._running.setdefault("orphans", contextlib.ExitStack()).callback(_kill, others)
        self._running.pop(name).close()

    def finished(self, run_id: str, *, seconds: float = 300) -> dg.DagsterRun:
        """The run, once it has ended."""

        def ended() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run and run.is_finished else None

        return until(f"run {run_id} ends", ended, seconds=seconds)

    def succeeded(self, run_id: str) -> dg.DagsterRun:
        """The run, once it has ended, which must be well."""
        run = self.finished(run_id)
        assert run.is_success, self.log_of(run_id)
        return run

    def log_of(self, run_id: str) -> str:
        """Every event of a run with all that it carries, as text."""
        return "\n".join(str(record.event_log_entry) for record in self.instance.get_records_for_run(run_id).records)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Ask Dagster's database."""
        place = parameters(self.settings, database=self.environment["DAGSTER_DB_NAME"])
        with psycopg.connect(**place, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def loads_wait(self) -> Iterator[None]:
        """For the time of the block no load comes to its end: none may write its books."""
        with connect(self.settings) as connection:
            connection.execute("LOCK TABLE reading_days IN SHARE ROW EXCLUSIVE MODE")
            yield

    def loads_waiting(self) -> bool:
        """Whether a load waits for the end of `loads_wait`."""
        with connect(self.settings) as connection:
            held = connection.execute(
                "SELECT FROM pg_locks WHERE relation = 'reading_days'::regclass AND NOT granted"
            ).fetchall()
        return bool(held)


def _kill(processes: list[Any]) -> None:
    for one in processes:
        if one.is_running():
            one.kill()


@contextlib.contextmanager
def deployment_of(settings: Settings, wire: WireServer, environment: dict[str, str]) -> Iterator[Deployment]:
    """A deployment of which nothing runs yet; what runs at the end of the block is killed. It waits less than a real one."""
    configuration = Path(environment["DAGSTER_HOME"]) / "dagster.yaml"
    text = configuration.read_text()
    for name, seconds in (("patience_seconds", 3), ("poll_interval_seconds", 1)):
        text, found = re.subn(rf"({name}): \d+", rf"\1: {seconds}", text)
        assert found == 1
    configuration.write_text(text)
    with instance_of(environment) as instance:
        instance.get_runs_count()  # makes the tables of the instance, which processes would fight over
        made = Deployment(settings, wire, environment, instance)
        try:
            yield made
        finally:
            made.kill(*list(made._running))
