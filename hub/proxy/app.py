"""The app: routes, errors and middleware put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from hub.proxy import problems, routes_data, routes_service, routes_sync
from hub.proxy.access import Access
from hub.proxy.dagster import Dagster
from hub.proxy.database import Database
from hub.proxy.guard import Guard
from hub.proxy.numbers import Numbers
from hub.settings import Settings

_VERSION = "1.0"
_DESCRIPTION = (Path(__file__).parent / "description.md").read_text(encoding="utf-8")


def create_app(settings: Settings) -> FastAPI:
    """The proxy API over these settings. Connections open when it starts, not before."""
    database, dagster, numbers = Database(settings), Dagster(settings), Numbers()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await database.open()
        try:
            yield
        finally:
            await dagster.close()
            await database.close()

    app = FastAPIOffline(  # its /docs needs nothing from the internet
        title="Reading Hub proxy API",
        version=_VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.dagster = dagster
    app.state.numbers = numbers
    app.state.access = Access(database, rate=settings.proxy_rate_per_second)
    app.state.readiness = (0.0, None)
    for routes in (routes_service, routes_data, routes_sync):
        app.include_router(routes.router)
    problems.install(app)
    if settings.proxy_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.proxy_cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Link", "Location", "Retry-After", "X-Request-ID"],
        )
    app.add_middleware(Guard, numbers=numbers, timeout_seconds=settings.proxy_timeout_seconds)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own, with errors as they are answered here."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["ProblemModel"] = problems.ProblemModel.model_json_schema()
        app.openapi_schema = schema
    return app.openapi_schema
