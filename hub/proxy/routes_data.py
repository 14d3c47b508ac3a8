"""Routes that read: readings, their rollups and summary, and host metrics."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from hub.metrics.rollups import SYSTEM_METRICS_5M, SYSTEM_METRICS_HOURLY
from hub.proxy import answers, cursors, readings
from hub.proxy.access import needs
from hub.proxy.database import Database
from hub.proxy.listings import Listing, Page, fetch, page_of
from hub.proxy.parameters import Cursor, EventType, From, Limit, Name, Source, To, given, media_type, only_known, window
from hub.proxy.problems import documented
from hub.proxy.render import JSON, answer
from hub.proxy.tokens import Token

_DAY = dt.timedelta(days=1)
_JSON_OR_CSV: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page, as JSON or CSV.", "content": {"text/csv": {"schema": {"type": "string"}}}},
    **documented(401, 403, 406, 422, 429, 503, 504),
}
METRICS = {
    "raw": Listing(
        "system_metrics",
        ("time", "host", "metric_type"),
        ("time", "host", "metric_type", "os", "payload"),
        frozenset({"payload"}),
    ),
    **{
        name: Listing(
            rollup.name,
            ("bucket", "host"),
            rollup.columns,
            frozenset(measure.name for measure in rollup.measures if measure.type == "jsonb"),
        )
        for name, rollup in (("5m", SYSTEM_METRICS_5M), ("hour", SYSTEM_METRICS_HOURLY))
    },
}

router = APIRouter(prefix="/api", dependencies=[Depends(only_known)])
Reader = Annotated[Token, Depends(needs("read"))]
MediaType = Annotated[str, Depends(media_type)]


@router.get("/readings", response_model=answers.Readings, responses=_JSON_OR_CSV)
async def list_readings(
    request: Request,
    token: Reader,
    media: MediaType,
    start: From = None,
    to: To = None,
    source: Source = None,
    event_type: EventType = None,
    limit: Limit = 1_000,
    cursor: Cursor = None,
) -> Response:
    """Raw readings in the order of time; the last 24 hours unless `from` says otherwise."""
    filters = given(source=source, event_type=event_type)
    question = {"of": "readings", "from": start, "to": to, **filters}
    after = cursors.decode(cursor, question) if cursor else None
    database: Database = request.app.state.database
    async with database.read() as connection:
        rows = await readings.page(connection, window(start, to, _DAY), filters, after, limit + 1)
    page = page_of(readings.READINGS, rows, limit)
    return answer(request, media, readings.READINGS, page.rows, cursor_after(page, question))


@router.get("/readings/rollup", response_model=answers.RollupRows, responses=_JSON_OR_CSV)
async def list_rollup(
    request: Request,
    token: Reader,
    media: MediaType,
    bucket: Annotated[Literal["hour", "day"], Query(description="Length of a bucket.")] = "day",
    start: From = None,
    to: To = None,
    source: Source = None,
    event_type: EventType = None,
    limit: Limit = 5_000,
    cursor: Cursor = None,
) -> Response:
    """Buckets that begin in the window, by source and event type; the last 30 days unless `from` says otherwise."""
    return await _listed(
        request, media, readings.ROLLUPS[bucket], (start, to, 30 * _DAY),
        given(source=source, event_type=event_type), limit, cursor,
    )  # fmt: skip


@router.get("/readings/summary", response_model=answers.Summary, responses=documented(401, 403, 422, 429, 503, 504))
async def summarize(request: Request, token: Reader, start: From = None, to: To = None) -> Response:
    """Totals of the buckets that begin in the window, by source and by event type; of everything by default.

    They are made of days where both bounds are midnights UTC or absent, and of hours otherwise.
    """
    if start and to:
        window(start, to, _DAY)
    database: Database = request.app.state.database
    async with database.read() as connection:
        told = await readings.summary(connection, (start, to))
    return Response(msgspec.json.encode(told), media_type=JSON)


@router.get("/system-metrics", response_model=answers.Metrics, responses=_JSON_OR_CSV)
async def list_metrics(
    request: Request,
    token: Reader,
    media: MediaType,
    bucket: Annotated[Literal["raw", "5m", "hour"], Query(description="Samples, or a rollup of them.")] = "raw",
    start: From = None,
    to: To = None,
    host: Annotated[Name | None, Query(description="Only this host.")] = None,
    metric_type: Annotated[Name | None, Query(description="Only this kind; rollups have all in one row.")] = None,
    limit: Limit = 1_000,
    cursor: Cursor = None,
) -> Response:
    """Host metrics in the order of time; the last hour, or day of a rollup, unless `from` says otherwise."""
    filters = given(host=host, metric_type=metric_type if bucket == "raw" else None)
    default = _DAY / 24 if bucket == "raw" else _DAY
    return await _listed(request, media, METRICS[bucket], (start, to, default), filters, limit, cursor)


def cursor_after(page: Page, question: Mapping[str, Any]) -> str | None:
    """The cursor of the next page, None on the last one."""
    return cursors.encode(page.last, question) if page.last else None


async def _listed(
    request: Request,
    media: str,
    listing: Listing,
    asked: tuple[dt.datetime | None, dt.datetime | None, dt.timedelta],
    filters: Mapping[str, str],
    limit: int,
    cursor: str | None,
) -> Response:
    question = {"of": listing.relation, "from": asked[0], "to": asked[1], **filters}
    after = cursors.decode(cursor, question) if cursor else None
    database: Database = request.app.state.database
    async with database.read() as connection:
        rows = await fetch(connection, listing, window(*asked), filters, after, limit + 1)
    page = page_of(listing, rows, limit)
    return answer(request, media, listing, page.rows, cursor_after(page, question))
