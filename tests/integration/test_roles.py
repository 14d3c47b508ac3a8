"""Database roles: who may do what is what the table of grants says, on a server with the whole set of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.settings import Settings
from hub.timescale.connection import Connection, connect
from hub.timescale.roles import make_roles
from hub.timescale.schema import upgrade
from tests.support.roles import as_grafana, role_set


@pytest.fixture(scope="module")
def made(postgres: dict[str, str]) -> Iterator[Settings]:
    with role_set(postgres) as settings:
        make_roles(settings)
        upgrade(settings)
        yield settings


@pytest.fixture
def grafana(made: Settings) -> Iterator[Connection]:
    with connect(as_grafana(made), autocommit=True) as connection:
        yield connection


def test_first(made: Settings, grafana: Connection) -> None:
    print(make_roles(made))
    print(upgrade(made))
    grafana.execute("SELECT count(*) FROM reading_daily")
    grafana.execute("SELECT count(*) FROM reading_rejects")
