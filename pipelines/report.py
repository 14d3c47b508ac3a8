"""The weekly report in Dagster: asset, job and schedule, as definitions of their own."""

import datetime as dt

import dagster as dg

from assets import report
from hub.settings import DefinitionSettings

REPORT_JOB = "report"  # the name of the asset would collide with its own graph


def build_report(settings: DefinitionSettings) -> dg.Definitions:
    """Everything about the weekly report; it needs the resource `hub`."""
    asset = report.build_report(settings.reading_start_date)
    job = dg.define_asset_job(
        REPORT_JOB,
        selection=dg.AssetSelection.assets(asset),
        description="Write the report of a week, or of several in one run.",
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[build_schedule(settings.report_cron)])


def build_schedule(cron: str) -> dg.ScheduleDefinition:
    """Report on the week that ended."""

    @dg.schedule(
        name="report_weekly",
        job_name=REPORT_JOB,
        cron_schedule=cron,
        execution_timezone="UTC",
        description="Writes the report of the week before (UTC), after its last day has been loaded.",
    )
    def report_weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        monday = now.date() - dt.timedelta(days=now.weekday() + 7)
        return dg.RunRequest(run_key=f"report:{now:%Y-%m-%dT%H:%M}", partition_key=monday.isoformat())

    return report_weekly
