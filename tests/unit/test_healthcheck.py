"""The health checks of the containers: well or not, by the exit code, with the reason."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from hub.healthcheck import problem


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def check(target: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "hub.healthcheck", target],
        capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stderr


def test_http_is_well_below_400(server: http.server.ThreadingHTTPServer) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    assert check(f"{address}/well", http_proxy="http://127.0.0.1:9") == (0, "")
    code, said = check(f"{address}/ill")
    assert (code, "503" in said) == (1, True)


def test_tcp_is_well_while_it_listens(server: http.server.ThreadingHTTPServer) -> None:
    target = f"tcp://127.0.0.1:{server.server_port}"
    assert check(target) == (0, "")
    server.shutdown()
    server.server_close()
    assert check(target)[0] == 1


def test_a_file_is_well_while_it_is_written(tmp_path: Path) -> None:
    target = f"file://{tmp_path}/spool.sqlite*?seconds=200"
    assert "no such file" in str(problem(target))
    for name, age in (("spool.sqlite", 500), ("spool.sqlite-wal", 100)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    assert problem(target) is None
    os.utime(tmp_path / "spool.sqlite-wal", (time.time() - 300, time.time() - 300))
    assert "200 s are allowed" in str(problem(target))


def test_the_daemon_is_well_by_its_heartbeats(postgres: dict[str, str], make_database) -> None:  # type: ignore[no-untyped-def]
    name = make_database()
    environment = {
        "DB_HOST": postgres["DB_HOST"], "DB_PORT": postgres["DB_PORT"], "DAGSTER_DB_NAME": name,
        "DAGSTER_DB_USER": postgres["DB_USER"], "DAGSTER_DB_PASSWORD": postgres["DB_PASSWORD"],
    }  # fmt: skip
    target = "dagster-daemon:?seconds=300"
    code, said = check(target, **environment)
    assert (code, "cannot be read" in said) == (1, True)
    with psycopg.connect(
        host=postgres["DB_HOST"], port=int(postgres["DB_PORT"]), user=postgres["DB_USER"],
        password=postgres["DB_PASSWORD"], dbname=name, autocommit=True,
    ) as connection:  # fmt: skip
        connection.execute("CREATE TABLE daemon_heartbeats (daemon_type text, timestamp timestamp)")
        assert "no heartbeat yet" in check(target, **environment)[1]
        connection.execute(
            "INSERT INTO daemon_heartbeats VALUES ('SENSOR', (now() AT TIME ZONE 'UTC') - INTERVAL '400 s')"
        )
        assert "300 s are allowed" in check(target, **environment)[1]
        connection.execute("INSERT INTO daemon_heartbeats VALUES ('SCHEDULER', now() AT TIME ZONE 'UTC')")
        assert check(target, **environment) == (0, "")
    wrong = check(target, **{**environment, "DAGSTER_DB_PASSWORD": "hunter2"})
    assert wrong[0] == 1
    assert "hunter2" not in wrong[1]


@pytest.mark.parametrize("target", ["", "ftp://host/x", "tcp://host", "file:///x", "http://"])
def test_a_target_of_no_known_form_is_refused(target: str) -> None:
    assert check(target)[0] == 2
