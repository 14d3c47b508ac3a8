"""The weekly report in Dagster: asset, job and schedule, as definitions of their own."""

import datetime as dt

import dagster as dg

from assets import report
from hub.settings import DefinitionSettings
from pipelines.schedules import DAILY, Done, catching_up, last_week, monday, newest, partition_tags

REPORT_JOB = "report"  # the name of the asset would collide with its own graph
REPORT_SCHEDULE = "report_weekly"
_AGAIN_SECONDS = 30
_BEGUN = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS)


def build_report(settings: DefinitionSettings) -> dg.Definitions:
    """Everything about the weekly report; it needs the resource `hub`."""
    asset = report.build_report(settings.reading_start_date)
    job = dg.define_asset_job(
        REPORT_JOB,
        selection=dg.AssetSelection.assets(asset),
        description="Write the report of a week, or of several in one run.",
    )
    weekly = catching_up(
        REPORT_SCHEDULE,
        REPORT_JOB,
        settings.report_cron,
        "Writes the report of the week before (UTC), after its last day has been loaded, and of weeks that it missed.",
        last_week(settings.reading_start_date),
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[weekly], sensors=[_build_again(job)])


def _build_again(job: object) -> dg.SensorDefinition:
    """After a time off, the load of the missed days and the report of their weeks begin at the same moment."""

    @dg.sensor(
        name="report_again",
        job=job,
        minimum_interval_seconds=_AGAIN_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Has reports written again when {DAILY} loaded days of their weeks after they had been begun.",
    )
    def report_again(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        loaded = newest(context.instance, DAILY)
        written = newest(context.instance, REPORT_SCHEDULE, _BEGUN)
        weeks = too_early(loaded, written) if loaded and written else None
        if weeks is None:
            return dg.SkipReason("no report has been too early")
        return dg.RunRequest(run_key=f"{REPORT_JOB}:{loaded.run_id}", tags=partition_tags(*weeks))

    return report_again


def too_early(loaded: Done, written: Done) -> tuple[dt.date, dt.date] | None:
    """First and last week, by their Mondays, that were reported before the newest load of their days had ended."""
    first, last = monday(loaded.first), min(monday(loaded.last), written.last)
    return (first, last) if first <= last and written.began < loaded.ended else None
