"""A sync through the proxy becomes a run of a real Dagster, which loads the days from the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hub.settings import load_settings
from hub.timescale.schema import upgrade
from tests.conftest import dagster_variables, databases
from tests.integration.dagster_stack import Stack, dagster_stack, reading, rows_by_day
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
