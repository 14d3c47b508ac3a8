"""The proxy while its database restarts, hangs or is locked, and while Dagster is away: clean answers only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from hub.embedded.postgres import EmbeddedPostgres
from hub.embedded.process import free_port
from hub.settings import Settings, load_settings
from hub.timescale.connection import connect, parameters
from hub.timescale.schema import upgrade
from tests.support.proxy import START, FakeDagster, assert_problem, client, fill, make_token, serving, until

DAYS = {"from": "2026-03-01", "to": "2026-03-02"}
ROLLUP = "/api/readings/rollup?from=2026-03-01&to=2026-03-31"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of our own, to be stopped and killed."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("outage"), settings={"fsync": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def settings(server: EmbeddedPostgres) -> Settings:
    """Settings for that server, with some readings."""
    names = {name.lower(): value for name, value in server.environment().items()}
    made = load_settings(
        **names, mongo_uri="mongodb://none", _env_file=None, proxy_rate_per_second=10_000, proxy_timeout_seconds=3,
        dagster_url="http://127.0.0.1:1",
    )  # fmt: skip
    upgrade(made)
    with connect(made, autocommit=True) as connection:
        fill(connection, readings=300)
    return made


@pytest.mark.parametrize("how", ["stop", "kill -9"])
def test_while_the_database_restarts_every_answer_is_good_or_a_clean_503(
    server: EmbeddedPostgres, settings: Settings, how: str
) -> None:
    token, stop, port = make_token(settings), threading.Event(), server.port
    answers: list[httpx.Response] = []
    patient = settings.model_copy(update={"proxy_timeout_seconds": 60.0})  # a slow machine is no restart
    with serving(patient) as url:

        def ask() -> None:
            with client(url, token) as api:
                while not stop.is_set():
                    answers.append(api.get(ROLLUP))

        with ThreadPoolExecutor(8) as workers:
            asking = [workers.submit(ask) for _ in range(8)]
            until("answers come", lambda: len(answers) >= 50)
            if how == "stop":
                server.stop()
            else:
                os.kill(server.pid, signal.SIGKILL)
                server.stop()  # waits for it
            until("it is noticed", lambda: any(answer.status_code == 503 for answer in answers))
            server.start(port)
            count = len(answers)
            until("good answers are back", lambda: [a for a in answers[count:] if a.status_code == 200][50:])
            stop.set()
            for each in asking:
                each.result()
        with client(url, token) as api:
            assert api.get(ROLLUP).status_code == 200
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert_problem(answer, 503)
            assert answer.headers["retry-after"] == "2"
    assert len({answer.text for answer in answers if answer.status_code == 200}) == 1


def test_it_starts_before_its_database(server: EmbeddedPostgres, settings: Settings) -> None:
    token, port = make_token(settings), server.port
    server.stop()
    try:
        with serving(settings) as url, client(url, token) as api:
            assert api.get("/healthz").status_code == 200
            assert_problem(api.get(ROLLUP), 503)
            assert api.get("/readyz").status_code == 503
            server.start(port)
            until("it answers", lambda: api.get(ROLLUP).status_code == 200)
            until("it is ready", lambda: api.get("/readyz").status_code == 200)
    finally:
        server.stop()
        server.start(port)


def test_a_database_that_hangs_costs_its_time_and_no_more(server: EmbeddedPostgres, settings: Settings) -> None:
    with serving(settings) as url, client(url, make_token(settings)) as api:
        assert api.get(ROLLUP).status_code == 200
        backends = _backends(settings)
        for pid in (server.pid, *backends):
            os.kill(pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(4) as workers:  # an answer that never came would end in the client's time-out
                answers = list(workers.map(lambda _: api.get(ROLLUP), range(4)))
            assert api.get("/healthz").status_code == 200
        finally:
            for pid in (server.pid, *backends):
                os.kill(pid, signal.SIGCONT)
        for answer in answers:
            assert answer.status_code in (503, 504)
            assert_problem(answer, answer.status_code)
        until("it answers again", lambda: api.get(ROLLUP).status_code == 200)


def test_a_query_that_takes_too_long_is_a_504_that_says_what_to_do(settings: Settings) -> None:
    with serving(settings) as url, client(url, make_token(settings)) as api, psycopg.connect(
        **parameters(settings)
    ) as blocker:  # fmt: skip
        blocker.execute("LOCK TABLE reading_analytics")
        problem = assert_problem(api.get("/api/readings", params={"from": START.isoformat()}), 504)
        assert "shorter window" in problem["detail"]
        assert api.get("/api/readings/summary").status_code == 200


def test_a_body_that_never_comes_is_given_up(settings: Settings) -> None:
    import socket

    with serving(settings) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=120) as slow:
            token = make_token(settings, "sync")
            head = f"POST /api/sync/readings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 504")


class TestSyncs:
    @pytest.fixture
    def dagster(self) -> Iterator[FakeDagster]:
        with FakeDagster() as running:
            yield running

    @pytest.fixture
    def api(self, settings: Settings, dagster: FakeDagster) -> Iterator[httpx.Client]:
        pointed = settings.model_copy(update={"dagster_url": dagster.url, "proxy_timeout_seconds": 10.0})
        with serving(pointed) as url, client(url, make_token(settings, "read", "sync")) as opened:
            yield opened

    def sync(self, api: httpx.Client, key: str | None = None, **days: str) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return api.post("/api/sync/readings", json=DAYS | days, headers=headers)

    def test_a_sync_is_one_run_for_the_range(self, api: httpx.Client, dagster: FakeDagster) -> None:
        answer = self.sync(api)
        assert answer.status_code == 202
        (run_id, tags), *others = dagster.runs.items()
        assert not others
        assert tags["dagster/asset_partition_range_start"] == "2026-03-01"
        assert tags["dagster/asset_partition_range_end"] == "2026-03-02"
        assert answer.json()["dagster_url"] == f"{dagster.url}/runs/{run_id}"
        state = api.get(answer.headers["location"]).json()
        assert (state["status"], state["first"], state["last"]) == ("STARTED", "2026-03-01", "2026-03-02")
        assert_problem(api.get("/api/runs/00000000-0000-4000-8000-999999999999"), 404)

    def test_the_same_key_starts_one_run(self, api: httpx.Client, dagster: FakeDagster) -> None:
        first, second = self.sync(api, "monday"), self.sync(api, "monday")
        assert first.json()["run_id"] == second.json()["run_id"]
        assert (first.json()["repeated"], second.json()["repeated"]) == (False, True)
        assert len(dagster.runs) == 1
        assert_problem(self.sync(api, "monday", to="2026-03-09"), 422)
        assert self.sync(api, "tuesday").json()["run_id"] != first.json()["run_id"]

    def test_the_same_key_twice_at_once_starts_one_run(self, api: httpx.Client, dagster: FakeDagster) -> None:
        dagster.pause.clear()
        with ThreadPoolExecutor(4) as workers:
            answers = [workers.submit(self.sync, api, "at-once") for _ in range(4)]
            assert dagster.asked.wait(120)
            dagster.pause.set()
            runs = {answer.result().json()["run_id"] for answer in answers}
        assert len(runs) == len(dagster.runs) == 1

    def test_a_key_belongs_to_its_token(self, settings: Settings, api: httpx.Client, dagster: FakeDagster) -> None:
        self.sync(api, "shared")
        with client(str(api.base_url), make_token(settings, "sync")) as other:
            self.sync(other, "shared")
        assert len(dagster.runs) == 2

    def test_a_launch_whose_answer_was_lost_is_found_again(self, api: httpx.Client, dagster: FakeDagster) -> None:
        dagster.break_answers = 1
        assert_problem(self.sync(api, "lost"), 503)
        again = self.sync(api, "lost")
        assert (again.status_code, again.json()["repeated"]) == (202, True)
        assert len(dagster.runs) == 1

    def test_a_proxy_killed_in_mid_launch_starts_no_second_run(
        self, settings: Settings, dagster: FakeDagster, tmp_path: Path
    ) -> None:
        token = make_token(settings, "sync")
        port = free_port()
        environment = {**os.environ, **settings.environment(), "DAGSTER_URL": dagster.url}
        command = [sys.executable, "-m", "hub", "proxy", "serve", "--port", str(port)]

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=(tmp_path / "log").open("ab"))
            until("the proxy listens", lambda: _listens(port))
            return process

        def post() -> httpx.Response:
            with client(f"http://127.0.0.1:{port}", token) as api:
                return self.sync(api, "killed")

        dagster.pause.clear()
        process = start()
        try:
            with ThreadPoolExecutor(1) as workers:
                asked = workers.submit(post)
                assert dagster.asked.wait(120)
                process.kill()
                with pytest.raises(httpx.HTTPError):
                    asked.result()
            dagster.pause.set()
            until("Dagster has launched it", lambda: dagster.runs)
            process.wait()
            process = start()
            assert post().status_code == 202
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()
            process.wait()
        assert len(dagster.runs) == 1

    @pytest.mark.parametrize(
        "days",
        [{"from": "2026-03-03"}, {"to": "2999-01-01"}, {"from": "1999-01-01"}, {"from": "x"}, {"more": "1"}],
        ids=str,
    )
    def test_days_that_make_no_sense_start_nothing(
        self, api: httpx.Client, dagster: FakeDagster, days: dict[str, str]
    ) -> None:
        assert_problem(self.sync(api, **days), 422)
        assert dagster.runs == {}

    def test_while_dagster_is_away_syncs_are_503_and_reads_go_on(self, settings: Settings) -> None:
        with serving(settings) as url, client(url, make_token(settings, "read", "sync")) as api:
            assert_problem(self.sync(api, "away"), 503)
            assert_problem(api.get("/api/runs/00000000-0000-4000-8000-000000000000"), 503)
            assert api.get(ROLLUP).status_code == 200
        with connect(settings) as connection:
            rows = connection.execute("SELECT count(*) FROM api_idempotency WHERE key = 'away'").fetchone()
        assert rows == (0,)

    def test_a_dagster_that_hangs_is_given_up(self, settings: Settings, dagster: FakeDagster) -> None:
        dagster.pause.clear()
        hurried = settings.model_copy(update={"dagster_url": dagster.url, "proxy_timeout_seconds": 1.0})
        with serving(hurried) as url, client(url, make_token(settings, "sync")) as api:
            answer = self.sync(api, "hangs")
            assert answer.status_code in (503, 504)
            assert_problem(answer, answer.status_code)


def _listens(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def _backends(settings: Settings) -> list[int]:
    """The server's processes that serve the proxy."""
    with connect(settings) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'reading-hub-proxy'")
        return [pid for (pid,) in rows]
