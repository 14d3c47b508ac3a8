"""Everything that Dagster knows of, built by one function."""

import gc
from collections.abc import Mapping

import dagster as dg

from assets import checks, readings, rollups
from assets.partitions import daily
from hub.rollups.declared import ROLLUPS
from hub.settings import load_definition_settings, load_log_settings
from pipelines.alerts import build_alerts
from pipelines.backups import build_backups
from pipelines.jobs import build_ledger_job, build_readings_job
from pipelines.metrics import build_metrics
from pipelines.process import prepare
from pipelines.report import build_report
from pipelines.resources import resources
from pipelines.schedules import build_daily
from pipelines.sensors import build_arrivals


def build_defs(overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """The definitions; `overrides` replaces resources by name, so that a test needs to patch nothing."""
    settings = load_definition_settings()
    days = daily(settings.reading_start_date)
    load = readings.build_load(days)
    refreshes = [rollups.build_rollup(rollup, ROLLUPS, days) for rollup in ROLLUPS]
    job = build_readings_job(load, refreshes, checks.complete)
    ledger = build_ledger_job(checks.complete)
    definitions = dg.Definitions(
        assets=[readings.collection, load, *refreshes],
        asset_checks=[
            checks.nothing_lost,
            checks.fresh,
            checks.few_rejects,
            checks.complete,
            *(checks.build_totals_check(rollup) for rollup in ROLLUPS),
        ],
        jobs=[job, ledger],
        schedules=[build_daily(settings.reading_cron)],
        sensors=[build_arrivals([job, ledger])],
        resources={**resources(settings), **(overrides or {})},
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(
        definitions, build_metrics(settings), build_report(settings), build_backups(settings), build_alerts()
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
