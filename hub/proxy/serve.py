"""Serve the proxy API with uvicorn."""

from __future__ import annotations

import gc

import uvicorn

from hub.proxy.app import create_app
from hub.proxy.root_path import RootPath
from hub.settings import Settings

# Answered at once; what comes beyond is told 503.
_CONCURRENT = 500


def configure(settings: Settings, *, host: str, port: int) -> uvicorn.Config:
    """How uvicorn serves the app: the limits here, the logs by hub/log.py."""
    app = create_app(settings)
    return uvicorn.Config(
        RootPath(app, settings.proxy_root_path) if settings.proxy_root_path else app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONCURRENT,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(settings.proxy_timeout_seconds)),
    )


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are answered first."""
    server = uvicorn.Server(configure(settings, host=host, port=port))
    # What is here by now stays: the collector need not look at it again in the middle of a request.
    gc.freeze()
    server.run()
