"""Schedules: cron-like, in UTC, switched on in the UI."""

import datetime as dt

import dagster as dg

from pipelines.jobs import READINGS_JOB


def build_daily(cron: str) -> dg.ScheduleDefinition:
    """Load yesterday."""

    @dg.schedule(
        name="readings_daily",
        job_name=READINGS_JOB,
        cron_schedule=cron,
        execution_timezone="UTC",
        description="Loads the readings of yesterday (UTC).",
    )
    def readings_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        day = (now.date() - dt.timedelta(days=1)).isoformat()
        return dg.RunRequest(run_key=f"daily:{now:%Y-%m-%dT%H:%M}", partition_key=day)

    return readings_daily
