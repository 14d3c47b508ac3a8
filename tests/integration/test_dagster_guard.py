"""A page of somebody else, in the browser of whoever uses Dagster, can neither launch nor delete anything."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from starlette.datastructures import Headers

from hub.embedded.process import free_port
from hub.settings import WebSettings, load_settings
from pipelines.guard import Addresses, refusal
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_stack import instance_of, process, until

EVIL = "http://evil.example"
JSON = {"Content-Type": "application/json"}
DELETE = "mutation ($id: String!) { deletePipelineRun(runId: $id) { __typename } }"
# As compose.yaml starts it, and as `dg dev` does, which is not our process: there Dagster's storage puts the guard in.
THROUGH = pytest.mark.parametrize(
    "web", [("pipelines.process", "dagster-webserver"), ("dagster_webserver",)], ids=["ours", "dg dev"], indirect=True
)


@dataclass(frozen=True)
class Web:
    """A web server with one run on record."""

    port: int
    instance: dg.DagsterInstance

    def run(self) -> str:
        """A run that could be deleted."""
        return self.instance.create_run_for_job(_job()).run_id

    def url(self, path: str = "/graphql") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def has(self, run_id: str) -> bool:
        return self.instance.get_run_by_id(run_id) is not None


def _job() -> Any:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def empty() -> None:
        nothing()

    return empty


@pytest.fixture(scope="module")
def web(
    request: pytest.FixtureRequest, postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    with databases(postgres) as make_database:
        settings = load_settings(
            **{name.lower(): value for name, value in postgres.items()}, mongo_uri="mongodb://nowhere", _env_file=None
        )
        yield from _served(
            dagster_variables(settings, make_database(), folder / "dagster"), request.param, folder, port
        )


def _served(dagster_environment: dict[str, str], module: tuple[str, ...], folder: Path, port: int) -> Iterator[Web]:
    (folder / "workspace.yaml").write_text("load_from: []\n")
    environment = dagster_environment | {
        "DAGSTER_PUBLIC_URL": "https://hub.example.net/dagster", "DAGSTER_URL": "http://dagster-webserver:3000",
    }  # fmt: skip
    command = [
        "python", "-m", *module, "-h", "127.0.0.1", "-p", str(port), "-w", str(folder / "workspace.yaml"),
    ]  # fmt: skip
    log = folder / "web.log"
    with instance_of(dagster_environment) as instance, process(command, environment, log) as running:
        instance.get_runs_count()

        def ready() -> bool:
            assert running.poll() is None, log.read_text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{port}/server_info").is_success
            return False

        until("the web server answers", ready)
        yield Web(port, instance)


@THROUGH
def test_its_own_pages_and_services_are_served(web: Web) -> None:
    for headers in (
        {}, {"Origin": f"http://127.0.0.1:{web.port}"}, {"Host": "localhost:9999", "Origin": "http://localhost:9999"},
        {"Host": "dagster-webserver:3000"}, {"Host": "[::1]:3000", "Origin": "http://[::1]:3000"},
        {"Host": "hub.example.net", "Origin": "https://hub.example.net"}, {"Origin": "https://hub.example.net"},
    ):  # fmt: skip
        run_id = web.run()
        answer = httpx.post(web.url(), json={"query": DELETE, "variables": {"id": run_id}}, headers=headers)
        assert answer.is_success, (headers, answer.text)
        assert not web.has(run_id)


@THROUGH
def test_no_other_page_deletes_a_run(web: Web) -> None:
    run_id = web.run()
    body = {"query": DELETE, "variables": {"id": run_id}}
    query = {"query": DELETE, "variables": json.dumps({"id": run_id})}
    refused = [
        # What a link, an image or a form of a foreign page does, and what fetch() may send without being asked.
        httpx.get(web.url(), params=query),
        httpx.get(web.url(), params=query, headers={"Accept": "image/*"}),
        httpx.post(web.url(), params=query),
        httpx.post(web.url(), params=query, headers={"Content-Type": "text/plain"}, content=b"{}"),
        httpx.post(web.url(), content=json.dumps(body), headers={"Content-Type": "text/plain; x=application/json"}),
        httpx.post(web.url(), data=query),
        httpx.post(web.url(), content=DELETE, headers={"Content-Type": "application/graphql"}, params=query),
        # With JSON, but of another origin; `null` is that of a sandboxed frame.
        *(httpx.post(web.url(), json=body, headers={"Origin": origin}) for origin in (
            EVIL, "null", "https://127.0.0.1.evil.example", "http://localhost@evil.example", "file://", "",
            "http://evil.example:80#localhost",
        )),
        # A name of their own that points to 127.0.0.1 (DNS rebinding): Origin and Host agree.
        httpx.post(web.url(), json=body, headers={"Origin": EVIL, "Host": "evil.example"}),
        httpx.post(web.url(), json=body, headers={"Host": "evil.example"}),
        httpx.get(web.url("/runs"), headers={"Host": "evil.example", "Accept": "text/html"}),
        httpx.post(web.url("/report_asset_materialization/a"), headers={"Origin": EVIL}, json={}),
        httpx.post(web.url("/report_asset_materialization/a"), params={"description": "x"}),
        httpx.post(web.url("/dagster/graphql"), params=query),
        httpx.get(web.url("/dagster/graphql"), params=query),
        httpx.get(web.url("/dagster/graphql/"), params=query, follow_redirects=True),
    ]  # fmt: skip
    assert [answer.status_code for answer in refused if answer.status_code not in (403, 405, 415)] == []
    assert all(answer.text.startswith("Refused: ") and answer.text.endswith(".\n") for answer in refused)
    assert web.has(run_id)


@THROUGH
def test_nor_by_a_socket_or_without_a_name(web: Web) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "graphql-ws"}  # fmt: skip
    assert httpx.get(web.url(), headers={**upgrade, "Origin": EVIL}).status_code == 403
    for host in (b"", b"Host: \r\n", b"Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", web.port), timeout=60) as plain:
            plain.sendall(b"GET /runs HTTP/1.0\r\n" + host + b"\r\n")
            assert b" 4" in plain.recv(1024).split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", web.port), timeout=60) as own:
        lines = {**upgrade, "Host": f"localhost:{web.port}", "Origin": f"http://localhost:{web.port}"}
        own.sendall(
            "".join(["GET /graphql HTTP/1.1\r\n", *(f"{n}: {v}\r\n" for n, v in lines.items()), "\r\n"]).encode()
        )
        assert b" 101 " in own.recv(1024)


@THROUGH
def test_the_pages_are_below_the_path_of_its_public_address(web: Web) -> None:
    page = {"Accept": "text/html"}
    assert httpx.get(web.url("/"), headers=page).headers["location"] == "/dagster/"
    assert httpx.get(web.url("//evil.example/"), headers=page).headers["location"] == "/dagster/evil.example/"
    assert httpx.get(web.url("/runs?a=b"), headers=page).headers["location"] == "/dagster/runs?a=b"
    found = httpx.get(web.url("/dagster/runs"), headers=page)
    assert found.is_success
    assert '"pathPrefix":"/dagster"' in found.text.replace(" ", "")
    assert httpx.get(web.url("/dagster/graphql"), headers=page).is_success  # the page to write queries on
    assert httpx.get(web.url("/server_info")).json() == httpx.get(web.url("/dagster/server_info")).json()


def told(settings: WebSettings, host: str, **headers: str) -> int:
    found = refusal(Addresses.of(settings), "http", "GET", "/runs", Headers({"host": host, **headers}))
    return found[0] if found else 200


def test_addresses_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DAGSTER_URL", "DAGSTER_PUBLIC_URL", "BIND_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert os.environ.get("BIND_ADDR") is None
    alone = WebSettings()
    assert [told(alone, host) for host in ("localhost", "127.0.0.1:1", "127.8.0.1", "[::1]", "x.localhost:9")] == [
        200
    ] * 5
    assert [told(alone, host) for host in ("192.168.1.5", "hub.lan", "[fe80::1]", "a:b", "[::1", "localhost/x")] == [
        403
    ] * 6
    assert told(WebSettings(bind_addr="192.168.1.5"), "192.168.1.5:3000") == 200
    assert told(WebSettings(bind_addr="192.168.1.5"), "192.168.1.6:3000") == 403
    everywhere = WebSettings(bind_addr="0.0.0.0")
    assert told(everywhere, "192.168.1.6:3000", origin="http://192.168.1.6:3000") == 200
    assert told(everywhere, "evil.example") == 403
    assert told(WebSettings(dagster_public_url="https://Hub.example.net:8443/d"), "hub.example.net:8443") == 200
