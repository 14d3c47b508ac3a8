"""Everything that Dagster knows of, built by one function."""

import gc
from collections.abc import Mapping

import dagster as dg

from hub.settings import load_definition_settings, load_log_settings
from pipelines.alerts import build_alerts
from pipelines.backups import build_backups
from pipelines.metrics import build_metrics
from pipelines.process import prepare
from pipelines.readings import build_readings
from pipelines.report import build_report
from pipelines.resources import resources


def build_defs(overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """The definitions; `overrides` replaces resources by name, so that a test needs to patch nothing."""
    settings = load_definition_settings()
    return dg.Definitions.merge(
        dg.Definitions(resources={**resources(settings), **(overrides or {})}, executor=dg.in_process_executor),
        *(build(settings) for build in (build_readings, build_metrics, build_report, build_backups)),
        build_alerts(),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Dagster's entry point; nothing is read before Dagster asks for it."""
    if load_log_settings().hub_log_format == "json":
        prepare()  # for a run in a process that nobody started through pipelines/process.py: a pod of Kubernetes
    definitions = build_defs()
    # What is loaded by now stays until the process ends. Looked through for garbage again and again, and most of all
    # at the end, it costs a short run a fifth of its time.
    gc.freeze()
    return definitions
