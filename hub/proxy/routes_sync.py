"""Routes that make Dagster work, and tell how far it is."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hub.proxy import answers, sync
from hub.proxy.access import needs
from hub.proxy.dagster import Dagster
from hub.proxy.parameters import only_known
from hub.proxy.problems import Problem, documented
from hub.proxy.tokens import Token

router = APIRouter(prefix="/api", dependencies=[Depends(only_known)])


class Days(BaseModel):
    """The UTC days to load, both included."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    first: dt.date = Field(alias="from", examples=["2026-01-01"])
    last: dt.date = Field(alias="to", examples=["2026-01-31"])


@router.post(
    "/sync/readings",
    status_code=202,
    response_model=answers.SyncStarted,
    responses=documented(400, 401, 403, 409, 413, 422, 429, 502, 503, 504),
)
async def sync_readings(
    request: Request,
    response: Response,
    days: Days,
    token: Annotated[Token, Depends(needs("sync"))],
    idempotency_key: Annotated[
        str | None,
        Header(pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="The same request with the same key starts one run."),
    ] = None,
) -> answers.SyncStarted:
    """Load days of readings from MongoDB, as one Dagster run."""
    earliest, today = request.app.state.settings.reading_start_date, dt.datetime.now(dt.UTC).date()
    if not earliest <= days.first <= days.last <= today:
        raise Problem(422, f"from, to: must be days in order, from {earliest} to {today}")
    dagster: Dagster = request.app.state.dagster
    started = await sync.start(request.app.state.database, dagster, token, days.first, days.last, idempotency_key)
    if not started.repeated:
        request.app.state.numbers.launched.inc()
    status_url = f"{request.scope.get('root_path', '')}/api/runs/{started.run_id}"
    response.headers["Location"] = status_url
    return answers.SyncStarted(
        run_id=started.run_id,
        first=days.first,
        last=days.last,
        repeated=started.repeated,
        status_url=status_url,
        dagster_url=dagster.link(started.run_id),
    )


@router.get(
    "/runs/{run_id}",
    response_model=answers.RunState,
    responses=documented(401, 403, 404, 422, 429, 502, 503, 504),
)
async def run_state(
    request: Request, run_id: UUID, token: Annotated[Token, Depends(needs("read"))]
) -> answers.RunState:
    """How far a run is. It has ended when `ended_at` is there; `status` SUCCESS is what one hopes for."""
    dagster: Dagster = request.app.state.dagster
    run = await dagster.run(str(run_id))
    if run is None:
        raise Problem(404, f"There is no run {run_id}.")
    fields = dataclasses.asdict(run)
    return answers.RunState.model_validate({"run_id": fields.pop("id"), **fields, "dagster_url": dagster.link(run.id)})
