"""Dagster's storage as dagster.yaml has it: its connections stay open, and one that dies costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from hub.settings import Settings
from hub.timescale.connection import parameters
from tests.integration.dagster_stack import instance_of

_OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)


@contextlib.contextmanager
def connections_opened() -> Iterator[list[object]]:
    """Those that SQLAlchemy opens in the block, whichever pool asks for them."""
    opened: list[object] = []

    def note(connection: object, _: object) -> None:
        opened.append(connection)

    event.listen(Pool, "connect", note)
    try:
        yield opened
    finally:
        event.remove(Pool, "connect", note)


@pytest.mark.parametrize("web_server", [False, True])
def test_events_share_connections_and_survive_their_loss(
    settings: Settings, dagster_environment: dict[str, str], web_server: bool
) -> None:
    place = parameters(settings, database=dagster_environment["DAGSTER_DB_NAME"])
    with instance_of(dagster_environment) as instance, psycopg.connect(**place, autocommit=True) as admin:
        if web_server:
            instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)

        def store(number: int) -> None:
            instance.report_runless_asset_event(dg.AssetMaterialization("counted", metadata={"number": number}))

        with connections_opened() as opened:
            store(0)
        assert opened
        with connections_opened() as opened:
            for number in range(1, 10):
                store(number)
        assert not opened
        killed = admin.execute(f"SELECT count(pg_terminate_backend(pid, 5000)) {_OTHERS}").fetchone()
        assert killed
        assert killed[0]
        for number in range(10, 20):
            store(number)
        records = instance.fetch_materializations(dg.AssetKey("counted"), limit=100).records
        materializations = [record.asset_materialization for record in records]
        assert [found.metadata["number"].value for found in materializations if found] == list(range(19, -1, -1))
