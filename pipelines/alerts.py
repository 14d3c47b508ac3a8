"""Tell a person: a failed run once until its job recovers, and readings that have gone stale."""

import datetime as dt

import dagster as dg

from assets.checks import STALE_AFTER, STALE_HOURS
from assets.engine import HubResource
from hub.loading.checks import newest_reading
from hub.notify import tell
from hub.timescale.connection import connect

_STALE_SECONDS = 900
_RUNNING = dg.DefaultSensorStatus.RUNNING


def build_alerts() -> dg.Definitions:
    """The sensors that notify. They are on from the start, and say nothing while NOTIFY_URLS is empty."""
    return dg.Definitions(sensors=[run_failed, run_succeeded, readings_stale])


def topic_of(run: dg.DagsterRun) -> str:
    """What a run is about: its job, or the assets of a run that was launched without one."""
    if not run.job_name.startswith("__"):
        return f"job {run.job_name}"
    keys = sorted(key.to_user_string() for key in run.asset_selection or ())
    return f"run of {', '.join(keys) or 'assets'}"


@dg.run_failure_sensor(default_status=_RUNNING, description="Tells NOTIFY_URLS once that a job fails.")
def run_failed(context: dg.RunFailureSensorContext, hub: HubResource) -> None:
    run = context.dagster_run
    steps = context.get_step_failure_events()
    causes = [event.step_failure_data.error_display_string for event in steps if event.event_specific_data]
    problem = next(
        (line for cause in causes for line in cause.splitlines() if line.strip()), context.failure_event.message
    )
    tell(hub.settings(), topic_of(run), f"{problem}\nrun {run.run_id}")


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=_RUNNING,
    description="Tells NOTIFY_URLS that a job which failed works again.",
)
def run_succeeded(context: dg.RunStatusSensorContext, hub: HubResource) -> None:
    tell(hub.settings(), topic_of(context.dagster_run), None)


@dg.sensor(
    target=None,
    minimum_interval_seconds=_STALE_SECONDS,
    default_status=_RUNNING,
    description=f"Tells NOTIFY_URLS when the newest reading is older than {STALE_HOURS} hours, and when it no longer is.",
)
def readings_stale(hub: HubResource) -> dg.SkipReason:
    settings = hub.settings()
    with connect(settings) as connection:
        newest = newest_reading(connection)
    if newest is None:
        return dg.SkipReason("no reading has been loaded yet")
    stale = dt.datetime.now(dt.UTC) - newest > STALE_AFTER
    tell(settings, "readings", f"the newest reading is of {newest:%Y-%m-%d %H:%M} UTC" if stale else None)
    return dg.SkipReason(f"the newest reading is of {newest:%Y-%m-%d %H:%M} UTC")
