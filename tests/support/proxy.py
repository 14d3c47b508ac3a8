"""The proxy API for tests: served over real HTTP, with readings to tell of, and a stand-in for Dagster."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import httpx
import uvicorn

from hub.proxy import tokens
from hub.proxy.serve import configure
from hub.rollups.declared import ROLLUPS
from hub.rollups.refresh import refresh_all
from hub.settings import Settings
from hub.timescale.connection import Connection, connect

T = TypeVar("T")
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def until(what: str, found: Callable[[], T | None], *, seconds: float = 180) -> T:
    """Ask `found` until it answers with something true, and return that. Fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        threading.Event().wait(0.02)
    return answer


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The proxy over these settings, on a port of its own; its URL."""
    server = uvicorn.Server(configure(settings, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until("the proxy listens", lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def make_token(settings: Settings, *scopes: str, days: int | None = None) -> str:
    """A token of these scopes."""
    with connect(settings) as connection:
        return tokens.create(connection, "test", set(scopes or ("read",)), days=days)


@contextlib.contextmanager
def client(url: str, token: str | None = None) -> Iterator[httpx.Client]:
    """An HTTP client with the token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=120) as opened:
        yield opened


def fill(connection: Connection, *, readings: int, minutes: int = 10) -> None:
    """Readings from START on, three at each time, by two sources and two types, rolled up."""
    connection.execute(
        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload, meta)"
        " SELECT 'id-' || number, %s + number / 3 * %s * interval '1 minute',"
        "  CASE number %% 2 WHEN 0 THEN 'kobo' ELSE 'komga' END, CASE number %% 5 WHEN 0 THEN 'finish' ELSE 'page' END,"
        "  CASE number %% 7 WHEN 0 THEN NULL ELSE number %% 11 END,"
        "  jsonb_build_object('number', number, 'title', 'Käse \"&\", ' || chr(10)), NULL"
        " FROM generate_series(0, %s - 1) AS number",
        (START, minutes, readings),
    )
    connection.execute(
        "INSERT INTO rollup_dirty (rollup, bucket)"
        " SELECT DISTINCT 'reading_hourly', date_trunc('hour', event_timestamp) FROM reading_analytics"
    )
    refresh_all(connection, ROLLUPS)


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer is a problem+json of this status, with the id of its header; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


class FakeDagster:
    """Answers the GraphQL that the proxy asks, and keeps the runs that were launched.

    `break_answers` of the next launches are cut off after the run has been launched; while `pause` is
    not set, launches wait for it.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, str]] = {}
        self.break_answers = 0
        self.pause = threading.Event()
        self.pause.set()
        self.asked = threading.Event()
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                data = fake._answer(asked["query"], asked["variables"])
                if data is None:
                    self.connection.close()
                    return
                body = json.dumps({"data": data}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        if "launchRun" in query:
            tags = {tag["key"]: tag["value"] for tag in variables["parameters"]["executionMetadata"]["tags"]}
            self.asked.set()
            self.pause.wait(120)
            with self._lock:
                run_id = f"00000000-0000-4000-8000-{len(self.runs):012}"
                self.runs[run_id] = tags
                if self.break_answers:
                    self.break_answers -= 1
                    return None
            return {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": run_id}}}
        if "runsOrError" in query:
            wanted = variables["filter"]["tags"][0]
            found = [run for run, tags in self.runs.items() if tags.get(wanted["key"]) == wanted["value"]]
            return {"runsOrError": {"__typename": "Runs", "results": [{"runId": run} for run in found]}}
        if "runOrError" in query:
            return {"runOrError": self._run(variables["id"])}
        return {"version": "stand-in"}

    def _run(self, run_id: str) -> dict[str, Any]:
        if run_id not in self.runs:
            return {"__typename": "RunNotFoundError"}
        tags = [{"key": key, "value": value} for key, value in self.runs[run_id].items()]
        times = {"creationTime": 1.0, "startTime": 2.0, "endTime": None}
        return {"__typename": "Run", "runId": run_id, "jobName": "readings", "status": "STARTED", "tags": tags, **times}

    def __enter__(self) -> FakeDagster:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause.set()
        self._server.shutdown()
        self._server.server_close()
