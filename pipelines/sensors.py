"""Sensors: they look, `hub` decides."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg
from bson.objectid import ObjectId

from assets.engine import HubResource
from hub.arrivals import look as arrivals
from hub.arrivals.look import Cursor, RunState
from hub.loading.model import Mapping
from hub.mongo import collection
from hub.streams.declared import reading
from hub.timescale.connection import connect
from pipelines.jobs import READINGS_JOB

_UNDERWAY = {
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
}


def range_tags(first: dt.date, last: dt.date) -> dict[str, str]:
    """Tags that make one run of a range of days, both included."""
    return {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}


def build_arrivals(seconds: int) -> dg.SensorDefinition:
    """Load the days of readings that arrived."""

    @dg.sensor(
        name="readings_arrived",
        job_name=READINGS_JOB,
        minimum_interval_seconds=seconds,
        description="Finds readings that arrived since its cursor and asks for exactly the days they touch.",
    )
    def readings_arrived(
        context: dg.SensorEvaluationContext, hub: HubResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        settings = hub.settings()
        stream = reading(settings)
        now = dt.datetime.now(dt.UTC)
        mapping = Mapping.of(stream, now)
        overlap = dt.timedelta(minutes=settings.reading_sensor_overlap_minutes)

        def look(after: ObjectId) -> arrivals.Arrivals:
            with collection(settings, stream) as documents, connect(settings) as connection:
                return arrivals.look(documents, connection, mapping, after, overlap)

        def state_of(run_key: str) -> RunState:
            runs = context.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}), limit=1)
            if not runs:
                return RunState.FAILED
            if runs[0].status in _UNDERWAY:
                return RunState.UNDERWAY
            return RunState.SUCCEEDED if runs[0].is_success else RunState.FAILED

        decision = arrivals.decide(Cursor.from_json(context.cursor), now, state_of, look)
        context.update_cursor(decision.cursor.to_json())
        for run_key, (first, last) in decision.requests.items():
            yield dg.RunRequest(run_key=run_key, tags=range_tags(first, last))
        if not decision.requests:
            yield dg.SkipReason(decision.reason)

    return readings_arrived
