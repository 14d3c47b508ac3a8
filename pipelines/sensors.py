"""Sensors: they look, `hub` decides."""

import datetime as dt
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from assets.engine import HubResource
from hub.arrivals import ledger
from hub.arrivals.cursor import Cursor
from hub.arrivals.decide import Arrivals, Decision, RunState, decide
from hub.arrivals.find import find
from hub.mongo import collection
from hub.settings import Settings
from hub.streams.declared import streams
from hub.streams.model import Stream
from hub.timescale.connection import connect
from pipelines.jobs import LEDGER_JOB, READINGS_JOB

# A look waits for changes: what comes meanwhile is seen at once. Dagster gives it 60 seconds.
_LONGEST_WAIT = 25
_EVERY_SECONDS = 5
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


def build_arrivals(jobs: Sequence[object]) -> dg.SensorDefinition:
    """Load the days of documents that came or changed."""

    @dg.sensor(
        name="readings_arrived",
        jobs=jobs,
        minimum_interval_seconds=_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Finds new and changed documents, by MongoDB's change stream where there is one, and asks for exactly the"
            " days they touch; also for the days that the ledger or a sweep found wanting."
        ),
    )
    def readings_arrived(
        context: dg.SensorEvaluationContext, hub: HubResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        settings = hub.settings()
        cursors = _cursors(context.cursor)
        enough = threading.Event()

        def one(stream: Stream) -> Decision:
            decision = _decide(settings, stream, cursors.get(stream.name, Cursor()), context.instance, enough)
            if decision.requests or decision.ledger:
                enough.set()
            return decision

        every = streams(settings)
        with ThreadPoolExecutor(len(every)) as pool:
            decisions = dict(zip((stream.name for stream in every), pool.map(one, every), strict=True))
        context.update_cursor(json.dumps({name: decision.cursor.to_json() for name, decision in decisions.items()}))
        for name, decision in decisions.items():
            if decision.note:
                context.log.info(f"{name}: {decision.note}")
            if decision.ledger:
                yield dg.RunRequest(run_key=decision.ledger, job_name=LEDGER_JOB)
            for run_key, (first, last) in decision.requests.items():
                yield dg.RunRequest(run_key=run_key, job_name=READINGS_JOB, tags=range_tags(first, last))
        if not any(decision.requests or decision.ledger for decision in decisions.values()):
            yield dg.SkipReason("; ".join(f"{name}: {decision.reason}" for name, decision in decisions.items()))

    return readings_arrived


def _cursors(text: str | None) -> dict[str, Cursor]:
    """The cursor of each stream. The first version kept one, of the only stream that there was."""
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    if "done" in data:
        return {"reading": Cursor.from_json(text)}
    return {name: Cursor.from_json(one) for name, one in data.items()}


def _decide(
    settings: Settings, stream: Stream, cursor: Cursor, instance: dg.DagsterInstance, enough: threading.Event
) -> Decision:
    now = dt.datetime.now(dt.UTC)

    def look(cursor: Cursor) -> Arrivals:
        overlap = dt.timedelta(minutes=settings.reading_sensor_overlap_minutes)
        wait = min(_LONGEST_WAIT, settings.reading_sensor_seconds)
        with collection(settings, stream) as documents, connect(settings, autocommit=True) as connection:
            return find(documents, connection, stream, cursor, overlap=overlap, wait=wait, now=now, enough=enough)

    def state_of(run_key: str) -> RunState:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}), limit=1)
        if not runs:
            return RunState.FAILED
        if runs[0].status in _UNDERWAY:
            return RunState.UNDERWAY
        return RunState.SUCCEEDED if runs[0].is_success else RunState.FAILED

    pause = dt.timedelta(seconds=settings.reading_sensor_seconds)
    decision = decide(stream.name, cursor, now, pause, state_of, look)
    if decision.requests or decision.failed:
        with connect(settings) as connection:
            for first, last in decision.requests.values():
                ledger.mark_asked(connection, stream, first, last, now)
            for first, last in decision.failed:
                ledger.mark_asked(connection, stream, first, last, None)
    return decision
