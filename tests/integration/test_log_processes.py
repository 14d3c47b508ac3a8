"""Every process of the stack, really started, logs one JSON object a line; the lines of a run carry its id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hub.embedded.process import free_port
from hub.settings import Settings, load_settings
from hub.timescale.schema import upgrade
from tests.conftest import ROOT, dagster_variables, databases
from tests.integration.dagster_stack import REPOSITORY, Stack, dagster_stack, process, reading, until
from tests.support.mongo_wire import WireServer

HUB = str(Path(sys.executable).with_name("hub"))
THROUGH = ("python", "-m", "pipelines.process")
DAY = "2026-03-21"

Line = dict[str, Any]


def lines(log: Path) -> list[Line]:
    """The lines of a log so far; each must be a JSON object with what Promtail and a person need."""
    found: list[Line] = []
    for text in log.read_text().splitlines():
        assert text.startswith("{"), text
        line = json.loads(text)
        assert list(line)[:4] == ["ts", "level", "logger", "msg"], text
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
        found.append(line)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def stack(postgres: dict[str, str], folder: Path) -> Iterator[Stack]:
    """Dagster's three processes, started as compose.yaml starts them."""
    with WireServer() as wire, databases(postgres) as make_database:
        settings = load_settings(
            **{name.lower(): value for name, value in postgres.items()},
            db_name=make_database(), mongo_uri=wire.uri, mongo_db_name=wire.database, mongo_collection=wire.collection,
            hub_data_dir=folder / "hub", backup_dir=folder / "backups", _env_file=None,
        )  # fmt: skip
        upgrade(settings)
        environment = dagster_variables(settings, make_database(), folder / "dagster")
        wire.documents.append(reading(DAY))
        with dagster_stack(settings, wire, environment, folder, through=THROUGH) as started:
            yield started


def launch(stack: Stack, config: dict[str, Any]) -> str:
    """Launch a run that loads the day; return its id."""
    data = stack.graphql(
        """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
             __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }""",
        params={
            "selector": {
                **REPOSITORY,
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": ["reading_analytics"]}, {"path": ["reading_rejects"]}],
            },
            "runConfigData": {"ops": {"load_readings": {"config": config}}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": DAY}]},
        },
    )
    return str(data["launchRun"]["run"]["runId"])


def of_run(folder: Path, run_id: str, last: str) -> list[Line]:
    """The lines of a run in the log of the code location, up to its last event."""

    def complete() -> list[Line]:
        found = [line for line in lines(folder / "code.log") if line.get("run_id") == run_id]
        return found if last in {line.get("event") for line in found} else []

    return until(f"run {run_id} logs {last}", complete)


def test_compose_starts_dagsters_programs_with_these_lines() -> None:
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    for name in ("dagster-code", "dagster-webserver", "dagster-daemon"):
        assert services[name]["command"][:3] == list(THROUGH)
        assert "--log-format" not in services[name]["command"]


def test_a_run_says_what_it_did_and_its_lines_carry_its_id(stack: Stack, folder: Path) -> None:
    run_id = launch(stack, {})
    stack.succeeded(run_id)
    found = of_run(folder, run_id, "RUN_SUCCESS")
    loaded = next(line for line in found if "1 readings of 1 days loaded" in line["msg"])
    assert loaded["step"] == "load_readings"
    assert loaded["job"] == "__ASSET_JOB"
    assert {line["level"] for line in found} == {"info"}
    assert [line["event"] for line in found if "event" in line] == ["RUN_START", "RUN_SUCCESS"]


def test_a_failed_run_has_its_traceback_in_one_line(stack: Stack, folder: Path) -> None:
    stack.wire.documents.clear()
    run_id = launch(stack, {"mode": "mirror", "max_delete_share": 0.0})
    assert not stack.finished(run_id).is_success
    [failure] = [line for line in of_run(folder, run_id, "RUN_FAILURE") if line.get("event") == "STEP_FAILURE"]
    assert failure["level"] == "error"
    assert failure["step"] == "load_readings"
    assert "mirror would delete 1 of the 1 rows" in failure["exc"]
    assert "Stack Trace:" in failure["exc"]


def test_webserver_daemon_and_code_location_log_lines_of_json(stack: Stack, folder: Path) -> None:
    said = {
        name: {line["logger"] for line in lines(folder / f"{name}.log")} for name in ("webserver", "daemon", "code")
    }
    assert "dagster-webserver" in said["webserver"]
    assert "dagster.daemon" in said["daemon"]
    assert {"dagster", "dagster.code_server"} <= said["code"]


def test_a_dagster_program_that_cannot_start_says_so_in_a_line_of_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.process", "dagster", "instance", "info"]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "missing")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["level"] == "critical"
    assert "DAGSTER_HOME" in last["msg"]
    assert last["exc"].startswith("Traceback")


@pytest.mark.parametrize(
    ("arguments", "said"), [([], "usage: python -m pipelines.process"), (["dagit"], "'dagit' is no installed program")]
)
def test_a_program_that_is_not_there_is_named(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "pipelines.process", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert said in done.stderr


# --- The services of hub ----------------------------------------------------------------------------------------


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, **settings.environment()}


def test_the_proxy_logs_lines_of_json(environment: dict[str, str], tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "proxy.log"
    command = [HUB, "proxy", "serve", "--port", str(port)]
    with process(command, environment, log) as running:

        def answer() -> httpx.Response | None:
            assert running.poll() is None, log.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/api/readings", headers={"X-Request-ID": "of-this-test"})
            except httpx.TransportError:
                return None

        assert until("the proxy answers", answer).status_code == 401
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    found = lines(log)
    assert {"uvicorn.error", "hub.proxy"} <= {line["logger"] for line in found}
    [request] = [line for line in found if line["msg"] == "request"]
    assert {
        "method": "GET",
        "path": "/api/readings",
        "status": 401,
        "request_id": "of-this-test",
    }.items() <= request.items()


def test_the_collector_logs_lines_of_json(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "collector.log"
    with process([HUB, "metrics", "collect", "--interval", "60s"], environment, log) as running:

        def begun() -> list[Line]:
            assert running.poll() is None, log.read_text()
            return lines(log)

        [first] = until("the collector begins", begun)
        running.send_signal(signal.SIGTERM)
        running.wait(60)
    assert first["logger"] == "hub.metrics.collect"
    assert first["msg"].startswith("sampling ")


def test_one_sample_is_on_standard_output_and_the_log_beside_it(environment: dict[str, str], tmp_path: Path) -> None:
    command = [HUB, "metrics", "collect", "--once"]
    wrong = {**environment, "DB_PORT": "1"}
    done = subprocess.run(command, env=wrong, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert {json.loads(text)["metric_type"] for text in done.stdout.splitlines()} >= {"cpu", "memory"}
    assert [json.loads(text)["level"] for text in done.stderr.splitlines()] == ["warning"]


def test_migrations_speak_to_a_person_or_to_the_log(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    environment = {**os.environ, **make_settings().environment()}

    def upgraded(**given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HUB, "db", "upgrade"], env={**environment, **given}, cwd=tmp_path, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    first = json.loads(upgraded(HUB_LOG_FORMAT="json").stdout)
    assert (first["level"], first["logger"]) == ("info", "hub.cli")
    assert first["msg"].startswith("Schema empty → ")
    assert upgraded().stdout.startswith("Nothing to do: the schema is at revision")
    failed = upgraded(HUB_LOG_FORMAT="json", DB_PORT="1")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["level"] == "critical"
    assert failed.stderr == ""
