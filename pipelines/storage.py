"""Dagster's own storage, with connections that stay open, and are looked at before they are used.

dagster-postgres opens two connections for each event that it stores: most of the time of a year's backfill, which
plans 1,460 materializations. Only its web server keeps some, and answers an error for each after a restart of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine, pg_url_from_config

from hub.instance.alive import HELD
from pipelines.alive import SignOfLife

_ENDS = {dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}


class _Pooled:
    """Goes before one of dagster-postgres's storages."""

    postgres_url: str

    def __init__(self, postgres_url: str) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False)  # type: ignore[call-arg]
        self._open(max_overflow=-1)

    def _open(self, **options: Any) -> None:
        self._engine = create_pg_engine(
            self.postgres_url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True, **options
        )

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        from pipelines.guard import install  # the web server is not there yet, and no other process needs it

        install()
        arguments = {"options": f"-c statement_timeout={statement_timeout}"}  # milliseconds
        self._open(max_overflow=max_overflow, pool_recycle=pool_recycle, connect_args=arguments)


class _Runs(_Pooled, PostgresRunStorage):
    pass


class Events(_Pooled, PostgresEventLogStorage):
    """The process that says that a run starts is the one that executes it, whoever launched it: there it shows its life."""

    def __init__(self, postgres_url: str) -> None:
        super().__init__(postgres_url)
        self._signs: dict[str, SignOfLife] = {}

    def store_event(self, event: dg.EventLogEntry) -> None:
        kind = event.dagster_event_type
        if kind is dg.DagsterEventType.RUN_START:
            self._signs[event.run_id] = SignOfLife(self.postgres_url, event.run_id)
        super().store_event(event)
        if kind in _ENDS and event.run_id in self._signs:
            self._signs.pop(event.run_id).end()

    def shows_life(self, run_id: str) -> bool:
        """Whether a process executes this run just now."""
        with self._connect() as connection:
            return bool(connection.exec_driver_sql(HELD, {"run": run_id}).scalar())


class _Schedules(_Pooled, PostgresScheduleStorage):
    pass


class PooledPostgresStorage(DagsterPostgresStorage):
    """`storage.custom` of dagster.yaml; configured as `storage.postgres` is, but for `auth_provider`."""

    def __init__(self, postgres_url: str, **arguments: Any) -> None:
        super().__init__(postgres_url, **arguments)  # makes the tables
        self._run_storage = _Runs(postgres_url)
        self._event_log_storage = Events(postgres_url)
        self._schedule_storage = _Schedules(postgres_url)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PooledPostgresStorage:
        return cls(
            pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )
