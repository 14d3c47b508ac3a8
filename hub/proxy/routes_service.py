"""Routes about the proxy itself: what it is, whether it lives, whether it is ready, and its numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from hub.errors import HubError
from hub.proxy import answers
from hub.proxy.problems import Problem

router = APIRouter()

_PATIENCE_SECONDS = 3.0
# Anybody may ask; the servers behind are asked this often at most.
_REMEMBERED_SECONDS = 1.0


@router.get("/")
async def about() -> dict[str, Any]:
    """What this is."""
    return {
        "name": "Reading Hub proxy API",
        "docs": "/docs",
        "openapi": "/openapi.json",
        "health": ["/healthz", "/readyz", "/metrics"],
        "api": [
            "GET /api/readings", "GET /api/readings/rollup", "GET /api/readings/summary", "GET /api/system-metrics",
            "POST /api/sync/readings", "GET /api/runs/{run_id}",
        ],
    }  # fmt: skip


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=answers.Readiness, responses={503: {"model": answers.Readiness}})
async def readyz(request: Request) -> Response:
    """Each dependency by name. 503 without the database; without Dagster everything but syncs works."""
    state = request.app.state
    at, told = state.readiness
    if told is None or time.monotonic() - at > _REMEMBERED_SECONDS:
        told = await _ask(state)
        state.readiness = (time.monotonic(), told)
    return JSONResponse(told.model_dump(), 503 if told.status == "unready" else 200)


@router.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    state = request.app.state
    state.database.count(state.numbers)
    return Response(state.numbers.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _ask(state: Any) -> answers.Readiness:
    async def database() -> None:
        async with state.database.read() as connection:
            await connection.execute("SELECT FROM api_tokens LIMIT 1")

    postgresql, dagster = await asyncio.gather(
        _check(database, "everything"), _check(state.dagster.version, "/api/sync/readings and /api/runs")
    )
    status = "unready" if not postgresql.ok else "ready" if dagster.ok else "degraded"
    return answers.Readiness.model_validate(
        {"status": status, "dependencies": {"postgresql": postgresql, "dagster": dagster}}
    )


async def _check(ask: Callable[[], Awaitable[object]], needed_for: str) -> answers.Dependency:
    began = time.perf_counter()
    task = asyncio.ensure_future(ask())
    done, _ = await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
    ok = bool(done) and task.exception() is None
    if not done:
        task.cancel()  # not awaited: a server that hangs would keep it
    elif (error := task.exception()) and not isinstance(error, Problem | HubError):
        raise error
    return answers.Dependency(ok=ok, ms=round(1000 * (time.perf_counter() - began), 1), needed_for=needed_for)
