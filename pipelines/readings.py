"""The stream of readings in Dagster: assets, checks, the main job, its schedule and sensor, and that nothing is missed."""

import dagster as dg

from assets import checks, readings, rollups
from assets.partitions import daily
from hub.rollups.declared import ROLLUPS
from hub.settings import DefinitionSettings
from pipelines.completeness import build_completeness, build_ledger_job
from pipelines.jobs import build_readings_job
from pipelines.schedules import build_daily
from pipelines.sensors import build_arrivals


def build_readings(settings: DefinitionSettings) -> dg.Definitions:
    """Everything about readings; it needs the resource `hub`."""
    days = daily(settings.reading_start_date)
    load = readings.build_load(days)
    refreshes = [rollups.build_rollup(rollup, ROLLUPS, days) for rollup in ROLLUPS]
    job, ledger = build_readings_job(load, refreshes, checks.complete), build_ledger_job()
    definitions = dg.Definitions(
        assets=[readings.collection, load, *refreshes],
        asset_checks=[*checks.OF_READINGS, *(checks.build_totals_check(rollup) for rollup in ROLLUPS)],
        jobs=[job],
        schedules=[build_daily(settings.reading_cron, settings.reading_start_date)],
        sensors=[build_arrivals([job, ledger])],
    )
    return dg.Definitions.merge(definitions, build_completeness(settings, ledger))
