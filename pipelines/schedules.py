"""Schedules: cron-like, in UTC, on from the start. What was missed is made up for in one run.

After a time in which no daemon ran, Dagster evaluates the newest of the ticks that it missed, at once. Its run covers
all that was to be done since the newest run of the schedule that succeeded; so does the next tick after a run that
failed. A run that died with its machine or its code location is asked for again by Dagster's retries.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from pipelines.jobs import READINGS_JOB

DAILY = "readings_daily"
_DAY = dt.timedelta(days=1)
_WEEK = dt.timedelta(weeks=1)
_FIRST, _LAST, _ONE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"
# Whole, not from the step that failed: what a killed run has left half-done is done again.
_ASK_AGAIN = {"dagster/max_retries": "2", "dagster/retry_strategy": "ALL_STEPS"}
_WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]


@dataclasses.dataclass(frozen=True)
class Partitions:
    """Which partitions a schedule is about: `first` exists, `last` is the newest that a tick at some time asks for."""

    first: dt.date
    last: Callable[[dt.date], dt.date]
    step: dt.timedelta = _DAY
    growing: bool = False
    """The newest is not over yet when it is asked for, so that it is asked for again after its end."""

    def wanted(self, tick: dt.date, done: dt.date | None) -> tuple[dt.date, dt.date] | None:
        """First and last partition for a tick of that day, `done` being the last of the newest run that succeeded."""
        last = self.last(tick)
        if last < self.first:
            return None
        begin = last if done is None else done + (dt.timedelta() if self.growing else self.step)
        return max(self.first, min(begin, last)), last


def yesterday(first: dt.date) -> Partitions:
    """Days, each asked for once it is over."""
    return Partitions(first, lambda tick: tick - _DAY)


def today(first: dt.date) -> Partitions:
    """Days, the running one too."""
    return Partitions(first, lambda tick: tick, growing=True)


def last_week(first: dt.date) -> Partitions:
    """Weeks, named by their Mondays, each asked for once it is over."""
    return Partitions(monday(first), lambda tick: monday(tick) - _WEEK, _WEEK)


def monday(day: dt.date) -> dt.date:
    """That of the day's week."""
    return day - dt.timedelta(days=day.weekday())


def partition_tags(first: dt.date, last: dt.date) -> dict[str, str]:
    """Tags that make one run of the partitions from `first` to `last`."""
    return {_ONE: str(first)} if first == last else {_FIRST: str(first), _LAST: str(last)}


def catching_up(
    name: str,
    job: str,
    cron: str,
    description: str | None,
    partitions: Partitions | None = None,
    config: Mapping[str, object] | None = None,
) -> dg.ScheduleDefinition:
    """A schedule that asks for all that its job has not done; without `partitions`, for the job itself."""

    @dg.schedule(
        name=name,
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        tags: dict[str, str] = {}
        if partitions:
            done = newest(context.instance, name)
            wanted = partitions.wanted(now.date(), done and done.last)
            if wanted is None:
                return dg.SkipReason(f"the first partition is {partitions.first}, which is not over")
            tags = partition_tags(*wanted)
        waiting = dg.RunsFilter(job_name=job, statuses=_WAITING, tags={"dagster/schedule_name": name, **tags})
        if context.instance.get_runs_count(waiting):
            return dg.SkipReason("a run that does the same is waiting for its turn")
        return dg.RunRequest(run_key=f"{name}:{now:%Y-%m-%dT%H:%M}", tags={**_ASK_AGAIN, **tags}, run_config=config)

    return schedule


@dataclasses.dataclass(frozen=True)
class Done:
    """A run over partitions, both included; times are seconds since 1970."""

    run_id: str
    first: dt.date
    last: dt.date
    began: float
    ended: float


def newest(
    instance: dg.DagsterInstance,
    schedule: str,
    statuses: Sequence[dg.DagsterRunStatus] = (dg.DagsterRunStatus.SUCCESS,),
) -> Done | None:
    """The schedule's newest run that succeeded, or that has one of these statuses."""
    filters = dg.RunsFilter(statuses=list(statuses), tags={"dagster/schedule_name": schedule})
    for record in instance.get_run_records(filters, limit=1):
        run = record.dagster_run
        if days := partitions_of(run):
            return Done(run.run_id, *days, record.start_time or 0.0, record.end_time or 0.0)
    return None


def partitions_of(run: dg.DagsterRun) -> tuple[dt.date, dt.date] | None:
    """First and last partition of a run, None for one of no partition."""
    first, last = (run.tags.get(tag, run.tags.get(_ONE)) for tag in (_FIRST, _LAST))
    return (dt.date.fromisoformat(first), dt.date.fromisoformat(last)) if first and last else None


def build_daily(cron: str, first: dt.date) -> dg.ScheduleDefinition:
    """Load yesterday, and the days before it that were missed."""
    return catching_up(
        DAILY,
        READINGS_JOB,
        cron,
        "Loads the readings of yesterday (UTC), and of all days since the last that it loaded.",
        yesterday(first),
    )
