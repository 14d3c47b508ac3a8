"""Serve the proxy API with uvicorn, with logs as lines of JSON."""

from __future__ import annotations

import gc
import logging
import sys

import uvicorn

from hub.proxy.app import create_app
from hub.proxy.guard import JsonLines
from hub.settings import Settings

# Answered at once; what comes beyond is told 503.
_CONCURRENT = 500


def configure(settings: Settings, *, host: str, port: int) -> uvicorn.Config:
    """How uvicorn serves the app: the limits here, the logs by `log_as_json`."""
    return uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONCURRENT,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(settings.proxy_timeout_seconds)),
    )


def log_as_json() -> None:
    """Everything that is logged in this process goes to standard output as lines of JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines repeat ours
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # an attempt a second while the database is away


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are answered first."""
    log_as_json()
    server = uvicorn.Server(configure(settings, host=host, port=port))
    # What is here by now stays: the collector need not look at it again in the middle of a request.
    gc.freeze()
    server.run()
