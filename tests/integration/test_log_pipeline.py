"""The real Promtail and the real Loki, where they are on PATH: sample lines get their level and their run's id."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hub.embedded.process import free_port
from hub.log import JsonLines
from tests.conftest import ROOT
from tests.integration.dagster_stack import process, until
from tests.unit.test_log import record

PROMTAIL_FILE = ROOT / "compose" / "promtail" / "promtail.yaml"
LOKI_FILE = ROOT / "compose" / "loki" / "loki.yaml"
RUN = "4cfa1528-0657-4d4e-8555-5f4ba3d049a3"

needs_promtail = pytest.mark.skipif(not shutil.which("promtail"), reason="promtail is not on PATH")
needs_loki = pytest.mark.skipif(not shutil.which("loki"), reason="loki is not on PATH")

OURS = JsonLines().format(record("level=error is only said", run_id=RUN))
SAMPLES = [
    (OURS, "info"),
    ('{"event": "Dagster\'s own JSON", "logger": "dagster.daemon", "level": "warning"}', "warning"),
    ('{"level":"error","logger":"sqlstore","msg":"Grafana","t":"2026-11-24T19:16:33Z"}', "error"),
    ('{"t":{"$date":"2026-11-24T19:16:33Z"},"s":"W","c":"CONTROL","msg":"MongoDB"}', "warning"),
    ('{"t":{"$date":"2026-11-24T19:16:33Z"},"s":"D2","c":"CONTROL","msg":"MongoDB"}', "debug"),
    ('level=error ts=2026-11-24T19:27:28Z caller=x.go:1 msg="Loki" err="empty ring"', "error"),
    ('ts=2026-11-24T19:27:28Z level=warn agent=gitops name=prod msg="a \\"quoted\\" level=info"', "warning"),
    (f"2026-11-24 19:16:36 +0000 - dagster - ERROR - readings - {RUN} - 28064 - RUN_FAILURE - it failed", "error"),
    ("just words about level=error", "unknown"),
    ('Traceback (most recent call last):\n  File "x.py", line 1, in <module>', "error"),
    ('{"level":"loud","msg":"no such level"}', "unknown"),
]
POSTGRES = [
    ("2026-11-24 19:08:01.123 UTC [11] LOG:  starting PostgreSQL 18.6", "info"),
    ('2026-11-24 19:08:02.123 UTC [12] ERROR:  relation "x" does not exist\n2026-11-24 19:08:02.123 UTC [12] '
     "STATEMENT:  select *\n\tfrom x\n\twhere level=debug", "error"),
    ("2026-11-24 19:08:03.123 UTC [13] FATAL:  the database system is starting up", "critical"),
    ("2026-11-24 19:08:04.123 UTC [14] DEBUG1:  words", "debug"),
]  # fmt: skip


@needs_promtail
def test_promtail_accepts_its_file() -> None:
    subprocess.run(["promtail", "-check-syntax", f"-config.file={PROMTAIL_FILE}"], check=True, capture_output=True)


@needs_loki
def test_loki_accepts_its_file() -> None:
    subprocess.run(["loki", "-verify-config", f"-config.file={LOKI_FILE}"], check=True, capture_output=True)


@contextlib.contextmanager
def loki(folder: Path) -> Iterator[str]:
    """The URL of a Loki with the stack's file, its data in the folder and its ports on loopback."""
    port, grpc = free_port(), free_port()
    model = yaml.safe_load(LOKI_FILE.read_text().replace("/loki", str(folder)))
    model["server"] |= {"http_listen_address": "127.0.0.1", "http_listen_port": port, "grpc_listen_port": grpc}
    (folder / "loki.yaml").write_text(yaml.safe_dump(model))
    url = f"http://127.0.0.1:{port}"
    with process(
        [str(shutil.which("loki")), f"-config.file={folder / 'loki.yaml'}"], {}, folder / "loki.log"
    ) as running:

        def takes_lines() -> bool:
            assert running.poll() is None, (folder / "loki.log").read_text()
            with contextlib.suppress(httpx.TransportError):
                services = httpx.get(f"{url}/services").text
                return all(f"{name} => Running" in services for name in ("ingester", "distributor", "querier"))
            return False

        until("Loki takes lines", takes_lines)
        yield url


def ship(folder: Path, url: str, service: str, lines: list[str]) -> None:
    """Send the lines as those of a service through Promtail with the stack's stages."""
    model = yaml.safe_load(PROMTAIL_FILE.read_text())
    stages = [
        {"static_labels": {"job": "reading-hub", "service": service}},
        *model["scrape_configs"][0]["pipeline_stages"],
    ]
    model["scrape_configs"] = [{"job_name": "samples", "pipeline_stages": stages}]
    model["clients"][0]["url"] = f"{url}/loki/api/v1/push"
    model["server"] = {"disable": True}
    model["positions"]["filename"] = str(folder / "positions.yaml")
    (folder / "promtail.yaml").write_text(yaml.safe_dump(model))
    text = "".join(f"{line}\n" for line in lines)
    command = ["promtail", f"-config.file={folder / 'promtail.yaml'}", "-stdin"]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True, timeout=120)


def ask(url: str, query: str) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{url}/loki/api/v1/query_range", params={"query": query, "since": "1h", "limit": "1000"}, timeout=60
    )
    found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
    return found


@needs_loki
@needs_promtail
def test_lines_are_found_again_with_their_level_and_their_runs_id(tmp_path: Path) -> None:
    with loki(tmp_path) as url:
        ship(tmp_path, url, "x", [line for line, _ in SAMPLES])
        ship(tmp_path, url, "timescaledb", [line for line, _ in POSTGRES])

        def levels(service: str) -> set[tuple[str, str]]:
            streams = ask(url, f'{{job="reading-hub", service="{service}"}}')
            return {(line, stream["stream"]["level"]) for stream in streams for _, line in stream["values"]}

        assert until("the lines are there", lambda: levels("x")) == set(SAMPLES)
        assert until("PostgreSQL's lines are there", lambda: levels("timescaledb")) == set(POSTGRES)
        labels = httpx.get(f"{url}/loki/api/v1/labels", timeout=60).json()["data"]
        assert labels == ["job", "level", "service"], "run_id is no label, and Loki adds none of its own"
        of_run = {
            line for stream in ask(url, f'{{job="reading-hub"}} | run_id="{RUN}"') for _, line in stream["values"]
        }
        assert of_run == {line for line, _ in SAMPLES if RUN in line}
        [said] = ask(url, '{level="info"} | json | logger="hub.x" | line_format "{{.msg}}"')
        assert said["values"][0][1] == json.loads(OURS)["msg"]
