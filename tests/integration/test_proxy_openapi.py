"""Every route keeps what the OpenAPI description promises, whatever is asked: schemathesis asks."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import CHECKS

from hub.proxy.app import create_app
from hub.settings import load_settings
from hub.timescale.connection import connect
from hub.timescale.schema import upgrade
from tests.conftest import databases
from tests.support.proxy import FakeDagster, fill, make_token, serving

# What it describes does not depend on any server.
schema = schemathesis.openapi.from_dict(
    create_app(load_settings(mongo_uri="mongodb://none", db_host="none", db_password="none", _env_file=None)).openapi()
)


@pytest.fixture(scope="module")
def server(postgres: dict[str, str]) -> Iterator[tuple[str, str]]:
    """URL and token of a proxy with some readings, and a stand-in for Dagster."""
    with databases(postgres) as make, FakeDagster() as dagster:
        servers = {name.lower(): value for name, value in postgres.items()}
        settings = load_settings(
            **servers, db_name=make(), mongo_uri="mongodb://none", _env_file=None, proxy_rate_per_second=100_000,
            dagster_url=dagster.url,
        )  # fmt: skip
        upgrade(settings)
        with connect(settings, autocommit=True) as connection:
            fill(connection, readings=60)
        with serving(settings) as url:
            yield url, make_token(settings, "read", "sync")


@schema.parametrize()
@hypothesis_settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
def test_answers_are_as_described(case: schemathesis.Case, server: tuple[str, str]) -> None:
    url, token = server
    # A window that is the wrong way round, and days that are not there, are refused: no schema can say that.
    assert len(CHECKS.get_all()) > 10
    case.call_and_validate(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        excluded_checks=[CHECKS.get_one("positive_data_acceptance")],
    )


def test_the_description_is_served(server: tuple[str, str]) -> None:
    told = httpx.get(f"{server[0]}/openapi.json").json()
    assert set(told["paths"]) == {
        "/", "/healthz", "/readyz", "/metrics", "/api/readings", "/api/readings/rollup", "/api/readings/summary",
        "/api/system-metrics", "/api/sync/readings", "/api/runs/{run_id}",
    }  # fmt: skip
