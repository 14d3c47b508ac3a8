"""Every database role of the hub under names of its own, for tests on a server that others use too."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import sql
from pydantic import SecretStr

from hub.settings import Settings, load_settings
from hub.timescale.connection import MAINTENANCE, connect

_NUMBERS = itertools.count(1)


def given(postgres: Mapping[str, str], stem: str) -> dict[str, Any]:
    """Settings with every role and both databases named after `stem`, on the server whose superuser is in `postgres`."""
    return {
        "mongo_uri": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200",
        "db_host": postgres["DB_HOST"],
        "db_port": postgres["DB_PORT"],
        "db_name": stem,
        "db_admin_user": postgres["DB_USER"],
        "db_admin_password": postgres["DB_PASSWORD"],
        "db_owner": f"{stem}_owner",
        "db_user": f"{stem}_writer",
        "db_password": "writer's secret",
        "grafana_db_user": f"{stem}_grafana",
        "grafana_db_password": "grafana's secret",
        "proxy_db_user": f"{stem}_proxy",
        "proxy_db_password": "proxy's secret",
        "dagster_db_name": f"{stem}_dagster",
        "dagster_db_user": f"{stem}_dagster",
        "dagster_db_password": "dagster's secret",
        "_env_file": None,
    }


@contextlib.contextmanager
def role_set(postgres: Mapping[str, str], **more: Any) -> Iterator[Settings]:
    """Settings for roles and databases that nothing has made yet; whatever of them is there goes at the end.

    Nothing is made: that is what `make_roles(settings)` and `upgrade(settings)` do.
    """
    settings = load_settings(**(given(postgres, f"roles_{os.getpid()}_{next(_NUMBERS)}_t") | more))
    try:
        yield settings
    finally:
        remove(settings)


def remove(settings: Settings) -> None:
    """Drop the databases, those that a restore has kept too, and the roles."""
    with connect(settings.as_admin(), database=MAINTENANCE, autocommit=True) as connection:
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (settings.db_name,)
        ).fetchall():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for (name,) in connection.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (settings.db_name,)
        ).fetchall():
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_grafana(settings: Settings) -> Settings:
    """The same settings, logged in as the role that Grafana reads with."""
    assert settings.grafana_db_password
    return _as(settings, settings.grafana_db_user, settings.grafana_db_password)


def as_proxy(settings: Settings) -> Settings:
    """The same settings, logged in as the role that the proxy API reads with."""
    assert settings.proxy_db_user
    assert settings.proxy_db_password
    return _as(settings, settings.proxy_db_user, settings.proxy_db_password)


def as_dagster(settings: Settings) -> Settings:
    """The same settings, pointing at Dagster's database as its owner."""
    assert settings.dagster_db_user
    assert settings.dagster_db_password
    found = _as(settings, settings.dagster_db_user, settings.dagster_db_password)
    return found.model_copy(update={"db_name": settings.dagster_db_name})


def _as(settings: Settings, user: str, password: SecretStr) -> Settings:
    return settings.model_copy(update={"db_user": user, "db_password": password})
