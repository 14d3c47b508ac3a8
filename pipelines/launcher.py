"""Dagster's default launcher, which can tell whether the process of a run still lives.

Without that, a run that died with the machine or with the code server alone stays STARTED, and holds its slot in the
queue until max_runtime_seconds. Dagster's monitoring asks every poll_interval_seconds and marks a dead run as failed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

from pipelines.storage import Events


class WatchedRunLauncher(DefaultRunLauncher):
    """`run_launcher` of dagster.yaml; needs the storage of pipelines/storage.py, in which runs leave their sign of life."""

    def __init__(self, patience_seconds: int, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._patience = patience_seconds
        self._silent: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        return {
            "patience_seconds": dg.Field(
                int,
                default_value=40,
                description="How long a run may be without a sign of life: it takes it again after a restart of the database.",
            )
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> WatchedRunLauncher:
        return cls(config_value["patience_seconds"], inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return isinstance(self._instance.event_log_storage, Events)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process that executes a STARTED run lives."""
        storage = self._instance.event_log_storage
        assert isinstance(storage, Events)
        if storage.shows_life(run.run_id):
            self._silent.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        silent = time.monotonic() - self._silent.setdefault(run.run_id, time.monotonic())
        if silent < self._patience:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._silent[run.run_id]
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND,
            "the process of this run is gone: it, its container or its machine was stopped or killed",
        )
