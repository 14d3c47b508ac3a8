"""Host metrics in Dagster: assets, checks, a job and its schedule, as definitions of their own."""

import dagster as dg

from assets import metrics
from assets.partitions import daily
from hub.settings import DefinitionSettings
from pipelines.schedules import catching_up, today

METRICS_JOB = "metrics"


def build_metrics(settings: DefinitionSettings) -> dg.Definitions:
    """Everything about host metrics; it needs the resource `hub`."""
    rollups = metrics.build_rollups(daily(settings.metrics_start_date))
    checks = metrics.build_checks()
    job = dg.define_asset_job(
        METRICS_JOB,
        selection=dg.AssetSelection.assets(*rollups) | dg.AssetSelection.checks(*checks),
        description="Refresh the rollups of host metrics, check them and the collectors.",
    )
    return dg.Definitions(
        assets=[metrics.system_metrics, *rollups],
        asset_checks=checks,
        jobs=[job],
        schedules=[
            catching_up(
                "metrics_rollups",
                METRICS_JOB,
                settings.metrics_cron,
                "Refreshes the rollups of host metrics.",
                today(settings.metrics_start_date),
            )
        ],
    )
