"""The path below which a reverse proxy shows the API: PROXY_ROOT_PATH."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Serves with that path before every address and without it.

    So it makes no difference whether the reverse proxy takes it away, and health checks stay as they are; what the API writes
    down for clients, the Link header and what /docs loads, has it.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, with the root path where ASGI has it: in the path, and by itself."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path != self.root_path and not path.startswith(f"{self.root_path}/"):
                path = self.root_path + path
            scope = {**scope, "path": path, "root_path": self.root_path}
        await self.app(scope, receive, send)
