"""The gateway as other machines see it: the real Caddy before the real API and the real Dagster, and a real browser."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.embedded.process import free_port
from hub.settings import load_settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_stack import instance_of, process, until
from tests.support.browser import browsing, program
from tests.support.gateway import HEADER, Gateway, echo, gateway
from tests.support.proxy import fill, make_token, serving

pytestmark = pytest.mark.skipif(not shutil.which("caddy"), reason="caddy is not installed: apt-get install caddy")
PAGES = ("/", "/grafana/", "/grafana/api/search", "/dagster/", "/dagster/graphql", "/docs", "/openapi.json", "/metrics",
         "/api/readings", "/healthz", "/grafana/../metrics", "//docs")  # fmt: skip


@dataclass(frozen=True)
class House:
    """The gateway with one user, and a token of the API behind it."""

    door: Gateway
    password: str
    token: str

    def guest(self, **headers: str) -> httpx.Client:
        return self.door.client(**headers)

    def anna(self, **headers: str) -> httpx.Client:
        return self.door.client("anna", self.password, **headers)


@pytest.fixture(scope="module")
def house(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder, port, web = tmp_path_factory.mktemp("gateway"), free_port(), free_port()
    with databases(postgres) as make_database, contextlib.ExitStack() as stack:
        settings = load_settings(
            **{name.lower(): value for name, value in postgres.items()}, mongo_uri="mongodb://nowhere",
            db_name=make_database(), _env_file=None,
        )  # fmt: skip
        upgrade(settings)
        with connect(settings) as connection:
            fill(connection, readings=300)
        environment = dagster_variables(settings, make_database(), folder / "dagster") | {
            "DAGSTER_PUBLIC_URL": f"https://localhost:{port}/dagster"
        }
        (folder / "workspace.yaml").write_text("load_from: []\n")
        with instance_of(environment) as instance:
            instance.get_runs_count()
        dagster = [
            "python", "-m", "pipelines.process", "dagster-webserver", "-h", "127.0.0.1", "-p", str(web),
            "-w", str(folder / "workspace.yaml"),
        ]  # fmt: skip
        stack.enter_context(process(dagster, environment, folder / "dagster.log"))
        api = stack.enter_context(serving(settings)).removeprefix("http://")
        grafana = stack.enter_context(echo())
        door = stack.enter_context(
            gateway(folder, port=port, grafana=grafana, dagster=f"127.0.0.1:{web}", api=api)
        )  # fmt: skip
        password = door.user("add", "anna").split()[-1]
        found = House(door, password, make_token(settings, "read"))

        def served() -> bool:
            with found.anna() as anna:
                return anna.get("/dagster/server_info").is_success

        until("Dagster answers behind the gateway", served)
        yield found


def test_nobody_comes_in_without_a_login(house: House) -> None:
    logins = [
        None,
        ("anna", ""),
        ("anna", house.password[:-1]),
        ("nobody", ""),
        ("nobody", "nobody"),
        ("", ""),
        ("Anna", house.password),
    ]
    for login in logins:
        with house.guest() as guest:
            answers = [guest.get(page, auth=httpx.BasicAuth(*login) if login else None) for page in PAGES]
        assert {answer.status_code for answer in answers} == {401}, login
        assert all("Reading Hub" in answer.headers["www-authenticate"] for answer in answers)
    with house.guest(**{HEADER: "admin", "Authorization": f"Bearer {house.token}"}) as guest:
        assert {guest.get(page).status_code for page in PAGES if not page.startswith("/api")} == {401}
        assert guest.post("/dagster/graphql", json={"query": "{ version }"}).status_code == 401


def test_grafana_is_told_who_it_is_and_sees_no_password(house: House) -> None:
    with house.anna(**{HEADER: "admin", HEADER.lower(): "admin", "X-WEBAUTH-USER": "admin"}) as anna:
        told = anna.get("/grafana/d/rh-reading?from=now-7d").json()
    names = [(name.lower(), value) for name, value in told["headers"]]
    assert [value for name, value in names if name == HEADER.lower()] == ["anna"]
    assert "authorization" not in dict(names)
    assert house.password not in str(told)
    assert told["path"] == "/d/rh-reading?from=now-7d"  # GF_SERVER_ROOT_URL has the path, Grafana serves without it
    assert dict(names)["x-forwarded-proto"] == "https"


def test_the_api_takes_its_own_tokens_and_its_docs_a_login(house: House) -> None:
    window = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z", "limit": "10"}
    with house.guest(Authorization=f"Bearer {house.token}") as program:
        page = program.get("/api/readings", params=window)
        assert page.is_success
        assert program.get(page.links["next"]["url"]).is_success
    with house.guest(Authorization="Bearer no-token-at-all") as program:
        refused = program.get("/api/readings", params=window)
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    with house.anna() as anna:
        assert "swagger" in anna.get("/docs").text
        assert anna.get("/openapi.json").is_success
        assert anna.get("/api/readings").status_code == 401  # a login is no token


def test_dagster_is_used_from_its_own_pages_alone(house: House) -> None:
    query: Any = {"json": {"query": "{ version }"}}
    with house.anna() as anna:
        assert anna.get("/dagster", follow_redirects=True).is_success
        assert anna.post("/dagster/graphql", **query).is_success
        assert anna.post("/dagster/graphql", headers={"Origin": house.door.url}, **query).is_success
        for origin in ("https://evil.example", "null", "http://localhost", "https://localhost", house.door.url + "0"):
            for page in ("/dagster/graphql", "/grafana/api/dashboards/db", "/"):
                assert anna.post(page, headers={"Origin": origin}, **query).status_code == 403, (origin, page)
        assert anna.get("/dagster/graphql", params={"query": "mutation { x }"}).status_code == 405


def test_headers_are_safe_and_there_once(house: House) -> None:
    with house.anna() as anna:
        pages = [anna.get(page) for page in ("/grafana/", "/dagster/server_info", "/docs", "/")]
    with house.guest() as guest:
        pages.append(guest.get("/docs"))
    for page in pages:
        names = [name.lower() for name, _ in page.headers.multi_items()]
        for name in ("x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy",
                     "strict-transport-security"):  # fmt: skip
            assert names.count(name) == 1, (page.url, name)
        assert (
            page.headers["strict-transport-security"] == "max-age=0"
        )  # a name of a home network serves other things too
        assert "server" not in names
    assert pages[0].headers["content-security-policy"] == "default-src 'self'"  # an application's own stays


def test_only_tls_and_only_its_own_certificate(house: House) -> None:
    plain = httpx.get(f"{house.door.plain_url}/docs")
    assert plain.status_code in (301, 308)
    assert plain.headers["location"].startswith("https://localhost")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(house.door.url)
    port = int(house.door.url.rpartition(":")[2])
    unnamed = ssl.create_default_context(cafile=str(house.door.authority))
    unnamed.check_hostname = False
    with socket.create_connection(("127.0.0.1", port)) as raw, unnamed.wrap_socket(raw) as without_name:
        assert without_name.version() in ("TLSv1.2", "TLSv1.3")  # a client that came by an address


def test_what_is_too_large_is_refused(house: House) -> None:
    with house.guest() as guest:
        assert guest.get("/docs", headers={"X-Long": "x" * 100_000}).status_code == 431
    with house.anna() as anna, contextlib.suppress(httpx.WriteError):
        assert anna.post("/dagster/graphql", content=b"x" * 11_000_000).status_code >= 400


def test_users_come_and_go(house: House) -> None:
    door = house.door
    assert "berta may come in." in door.user("add", "berta", "--password-stdin", stdin="correct horse battery\n")
    with door.client("berta", "correct horse battery") as berta:
        assert berta.get("/docs").is_success
        changed = door.user("add", "berta").split()[-1]
        assert berta.get("/docs").status_code == 401
    with door.client("berta", changed) as berta, house.anna() as anna:
        assert berta.get("/docs").is_success
        assert door.user("list").split() == ["anna", "berta"]
        door.user("remove", "berta")
        assert berta.get("/docs").status_code == 401
        assert anna.get("/docs").is_success
    assert door.user("list").split() == ["anna"]


def test_the_log_says_who_failed_and_no_password(house: House) -> None:
    encoded = base64.b64encode(f"anna:{house.password}".encode()).decode()
    with house.guest() as guest:
        guest.get("/docs?whose=mallory", auth=httpx.BasicAuth("mallory", "guess-guess-guess"))
    log = until("the log has it", lambda: text if "whose=mallory" in (text := house.door.log.read_text()) else None)
    for secret in (
        house.password,
        encoded,
        house.token,
        "guess-guess",
        base64.b64encode(b"mallory:guess-guess-guess").decode(),
    ):
        assert secret not in log
    assert '"status":401' in log


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A page of somebody else, who serves it from another origin."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>win a prize</title>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.skipif(not program(), reason="chromium is not installed")
def test_a_browser_is_asked_once_and_other_pages_get_nothing_of_it(
    house: House, tmp_path: Path, elsewhere: str
) -> None:
    """The pages' scripts run, from below their paths and under the gateway's headers."""
    door = house.door.url
    with browsing(tmp_path, ("anna", house.password)) as page:
        page.open(f"{door}/docs")
        page.until("document.body.innerText.includes('/api/readings/rollup')")
        page.open(f"{door}/dagster/runs")
        page.until("document.querySelector('a[href^=\"/dagster/\"]') && document.body.innerText.includes('Runs')")
        page.until(
            "(async () => { const socket = new WebSocket(location.origin.replace('http', 'ws') + '/dagster/graphql', 'graphql-ws');"
            " return await new Promise(done => { socket.onopen = () => done('open'); socket.onerror = () => done('') }) })()"
        )
        assert page.asked_for_login == 1
        page.open(elsewhere)
        page.until("document.title === 'win a prize'")
        before = house.door.log.read_text().count('"uri":"/dagster/graphql"')
        ask = (
            "fetch('DOOR/dagster/graphql', {method: 'POST', credentials: 'include', mode: 'no-cors', headers: {'Content-Type':"
            " 'text/plain'}, body: JSON.stringify({query: '{ version }'})}).then(answer => answer.type)"
        )
        assert page.value(ask.replace("DOOR", door)) == "opaque"  # it was sent, with the login if the browser likes
        log = until(
            "the log has it",
            lambda: text if (text := house.door.log.read_text()).count('"uri":"/dagster/graphql"') > before else None,
        )
        (last,) = [json.loads(line) for line in log.splitlines() if '"uri":"/dagster/graphql"' in line][-1:]
        assert last["status"] in (401, 403)
