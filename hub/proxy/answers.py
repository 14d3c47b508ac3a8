"""What the routes answer, as OpenAPI describes it. The answers themselves are encoded without these."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel


class Reading(BaseModel):
    event_timestamp: dt.datetime
    mongo_id: str
    source: str
    event_type: str
    value: float | None
    payload: Any
    meta: Any
    ingested_at: dt.datetime


class Readings(BaseModel):
    data: list[Reading]
    next: str | None


class RollupRow(BaseModel):
    bucket: dt.datetime
    source: str
    event_type: str
    events: int
    value_count: int
    value_sum: float | None
    value_min: float | None
    value_max: float | None
    first_at: dt.datetime
    last_at: dt.datetime


class RollupRows(BaseModel):
    data: list[RollupRow]
    next: str | None


class Totals(BaseModel):
    events: int
    value_count: int
    value_sum: float | None
    value_min: float | None
    value_max: float | None
    value_avg: float | None
    first_at: dt.datetime | None
    last_at: dt.datetime | None


class Summary(BaseModel):
    totals: Totals
    by_source: dict[str, Totals]
    by_event_type: dict[str, Totals]


class Metrics(BaseModel):
    """Raw samples have `time`, `host`, `os`, `metric_type`, `payload`; buckets the columns of the rollup."""

    data: list[dict[str, Any]]
    next: str | None


class SyncStarted(BaseModel):
    run_id: str
    first: dt.date
    last: dt.date
    repeated: bool
    status_url: str
    dagster_url: str


class RunState(BaseModel):
    run_id: str
    job: str
    status: str
    first: dt.date | None
    last: dt.date | None
    created_at: dt.datetime | None
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    dagster_url: str


class Dependency(BaseModel):
    ok: bool
    ms: float
    needed_for: str


class Readiness(BaseModel):
    status: Literal["ready", "degraded", "unready"]
    dependencies: dict[str, Dependency]
