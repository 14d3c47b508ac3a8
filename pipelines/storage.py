"""Dagster's own storage, with connections that stay open.

dagster-postgres opens two connections for each event that it stores: most of the time of a year's backfill, which
plans 1,460 materializations. Only its web server keeps one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config


class PooledPostgresStorage(DagsterPostgresStorage):
    """`storage.custom` of dagster.yaml; configured as `storage.postgres` is."""

    def __init__(self, postgres_url: str, **arguments: Any) -> None:
        super().__init__(postgres_url, **arguments)
        # The same options as theirs, but for the pool. It asks a connection for a sign of life before it is used, so
        # that a restart of the server costs no run more than it did.
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine.dispose()
            storage._engine = create_pg_engine(
                postgres_url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True
            )

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PooledPostgresStorage:
        return cls(
            pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )
