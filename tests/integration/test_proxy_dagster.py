"""A sync through the proxy becomes a run of a real Dagster, which loads the days from the source."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from hub.errors import HubError
from hub.settings import Settings, load_settings
from hub.smoke import SOURCE, Addresses
from hub.smoke import run as smoke
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_stack import Stack, dagster_stack, reading, rows_by_day, switch_off
from tests.support import grafana
from tests.support.mongo_wire import WireServer
from tests.support.proxy import assert_problem, client, make_token, serving, until


@pytest.fixture(scope="module")
def stack(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with WireServer() as wire, databases(postgres) as make:
        servers = {name.lower(): value for name, value in postgres.items()}
        settings = load_settings(
            **servers, db_name=make(), mongo_uri=wire.uri, mongo_db_name=wire.database,
            mongo_collection=wire.collection, hub_data_dir=folder / "hub", _env_file=None,
        )  # fmt: skip
        upgrade(settings)
        environment = dagster_variables(settings, make(), folder / "dagster")
        with dagster_stack(settings, wire, environment, folder) as started:
            yield started


def test_a_sync_loads_the_days_as_one_run(stack: Stack) -> None:
    switch_off(stack, "readings_arrived")  # it would ask for the same days
    stack.wire.documents += [reading("2026-03-01"), reading("2026-03-03"), reading("2026-03-09")]
    settings = stack.settings.model_copy(update={"dagster_url": f"http://127.0.0.1:{stack.port}"})
    with serving(settings) as url, client(url, make_token(settings, "read", "sync")) as api:
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
        asked: dict[str, Any] = {
            "json": {"from": "2026-03-01", "to": "2026-03-03"},
            "headers": {"Idempotency-Key": "a-sync"},
        }
        answer = api.post("/api/sync/readings", **asked)
        assert answer.status_code == 202, answer.text
        run_id = answer.json()["run_id"]

        def ended() -> dict[str, Any] | None:
            state: dict[str, Any] = api.get(f"/api/runs/{run_id}").json()
            return state if state["ended_at"] else None

        state = until("the run ends", ended)
        assert (state["status"], state["job"]) == ("SUCCESS", "readings")
        assert (state["first"], state["last"]) == ("2026-03-01", "2026-03-03")
        assert rows_by_day(stack.settings) == {"2026-03-01": 1, "2026-03-03": 1}
        assert httpx.get(answer.json()["dagster_url"]).status_code == 200
        assert api.get("/api/readings/summary").json()["totals"]["events"] == 2

        assert api.post("/api/sync/readings", **asked).json()["run_id"] == run_id
        assert len(stack.instance.get_runs()) == 1
        assert_problem(api.get("/api/runs/00000000-0000-4000-8000-000000000000"), 404)


@contextlib.contextmanager
def shown(settings: Settings) -> Iterator[str]:
    """A stand-in for Grafana and Loki: real dashboards, whose queries run in the database; lines that come late."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/dashboards/uid/"):
                self.tell({"dashboard": grafana.dashboards()[self.path.rsplit("/", 1)[1]]})
            else:
                asked.append(self.path)
                lines = [["1", "a line"]] * 3 if len(asked) > 2 else []
                self.tell({"data": {"result": [{"values": lines}] if lines else []}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            times = [dt.datetime.fromtimestamp(int(body[end]) / 1000, dt.UTC) for end in ("from", "to")]
            rows = []
            with connect(settings) as connection:
                for query in body["queries"]:
                    text = grafana.expand(query["rawSql"], grafana.Range(*times, "1h"), timescale=False)
                    rows += connection.execute(text).fetchall()
            self.tell({"rows": [[str(value) for value in row] for row in rows]})

        def tell(self, answer: Any) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_smoke_test_follows_a_reading_and_takes_it_away(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"dagster_url": f"http://127.0.0.1:{stack.port}"})
    said: list[str] = []
    with serving(settings) as proxy, shown(settings) as others:
        smoke(settings, "secret", said.append, Addresses(proxy, others, others))
    assert [line.split()[0] for line in said] == ["MongoDB", "Dagster", "the", "Grafana", "Loki"]
    assert_nothing_left(stack)


def test_the_smoke_test_names_what_does_not_work(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"dagster_url": f"http://127.0.0.1:{stack.port}"})
    with serving(settings) as proxy, shown(settings) as others:
        with pytest.raises(HubError, match="waited in vain until the run ends"):
            smoke(settings, "secret", lambda _: None, Addresses(proxy, others, others), patience_seconds=0)
        with pytest.raises(HubError, match="does not answer"):
            smoke(settings, "secret", lambda _: None, Addresses(proxy, "http://127.0.0.1:9", others))
    assert_nothing_left(stack)


def assert_nothing_left(stack: Stack) -> None:
    with connect(stack.settings) as connection:
        for table in ("reading_analytics", "reading_hourly", "reading_daily"):
            found = connection.execute(f"SELECT count(*) FROM {table} WHERE source = %s", (SOURCE,)).fetchone()
            assert found == (0,), table
        assert connection.execute(
            "SELECT count(*) FROM api_tokens WHERE name = %s AND revoked_at IS NULL", (SOURCE,)
        ).fetchone() == (0,)
    assert not [one for one in stack.wire.documents if one.get("source") == SOURCE]
