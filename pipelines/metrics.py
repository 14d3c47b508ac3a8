"""Host metrics in Dagster: assets, checks, a job and its schedule, as definitions of their own."""

import datetime as dt

import dagster as dg

from assets import metrics
from assets.partitions import daily
from hub.settings import DefinitionSettings

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
        schedules=[build_schedule(settings.metrics_cron)],
    )


def build_schedule(cron: str) -> dg.ScheduleDefinition:
    """Refresh what was marked since; what the marks cover does not depend on the partition."""

    @dg.schedule(
        name="metrics_rollups",
        job_name=METRICS_JOB,
        cron_schedule=cron,
        execution_timezone="UTC",
        description="Refreshes the rollups of host metrics.",
    )
    def metrics_rollups(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        return dg.RunRequest(run_key=f"metrics:{now:%Y-%m-%dT%H:%M}", partition_key=f"{now:%Y-%m-%d}")

    return metrics_rollups
