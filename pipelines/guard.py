"""What comes before Dagster's web server, which has no login and does what any page asks of it.

A browser sends requests of every page to 127.0.0.1, and Dagster executes mutations that come by GET, as a form, or from any
Origin and Host. Here only its own addresses count, and what changes something is a POST with JSON, which no foreign page can send.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from hub.settings import WebSettings, load_web_settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Addresses:
    """The names and addresses under which people and services reach this web server, and its path there."""

    hosts: frozenset[str]
    any_number: bool
    """Whether a bare IP address is one of them: only a name can be made to point here by somebody else."""
    prefix: str

    @classmethod
    def of(cls, settings: WebSettings) -> Addresses:
        """Those of DAGSTER_URL, DAGSTER_PUBLIC_URL and BIND_ADDR. Loopback names are always among them."""
        public = settings.dagster_public_url or ""
        urls = [urlsplit(settings.dagster_url), urlsplit(public)]
        number = _number(settings.bind_addr)
        return cls(
            frozenset(host.lower() for host in (*(url.hostname for url in urls), settings.bind_addr) if host),
            number is not None and number.is_unspecified,
            urls[1].path.rstrip("/"),
        )

    def own(self, netloc: str) -> bool:
        """Whether HOST or HOST:PORT is one of them, whatever the port: a tunnel has another."""
        try:
            parts = urlsplit(f"//{netloc}")
            host, _ = (parts.hostname or "").removesuffix("."), parts.port
        except ValueError:
            return False
        if not host or parts.username is not None or parts.path or parts.query or parts.fragment:
            return False
        if host in self.hosts or host == "localhost" or host.endswith(".localhost"):
            return True
        number = _number(host)
        return number is not None and (self.any_number or number.is_loopback)


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def refusal(addresses: Addresses, kind: str, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
    """The status and the sentence that a request is refused with; None where Dagster may have it.

    `kind` is `http` or `websocket`. Browsers send an Origin with everything but plain GETs, which change nothing here.
    """
    remedy = "If it should be, set DAGSTER_PUBLIC_URL to the address in the browser's address bar, or BIND_ADDR."
    for given in headers.getlist("host") or [""]:
        if not addresses.own(given):
            return 403, f"Refused: {given[:200]!r} is no address of this Dagster. {remedy}"
    for given in headers.getlist("origin"):
        scheme, _, netloc = given.partition("://")
        if scheme not in ("http", "https") or not addresses.own(netloc):
            return 403, f"Refused: a page of {given[:200]!r} may not ask this Dagster. {remedy}"
    if kind == "websocket":
        return None
    if method in _SAFE:
        # With this Accept Dagster shows a page to write queries on; without, it would execute the query of the address.
        if path.rstrip("/").endswith("/graphql") and "text/html" not in headers.get("accept", ""):
            return 405, "Refused: queries and mutations are sent by POST, as JSON."
        return None
    types = [given.partition(";")[0].strip().lower() for given in headers.getlist("content-type")]
    if types != ["application/json"]:
        return 415, "Refused: what is sent by POST must be JSON, with Content-Type: application/json."
    return None


class Guard:
    """An ASGI application before Dagster's: it refuses, and leads to the path of DAGSTER_PUBLIC_URL."""

    def __init__(self, app: App, addresses: Addresses) -> None:
        self._app, self._addresses = app, addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on what may pass."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        refused = refusal(self._addresses, kind, scope.get("method", ""), path, headers)
        if refused is None:
            await self._hand_on(scope, receive, send, headers)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1][:100]})
        else:
            await _text(*refused)(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        """To Dagster, which serves below its prefix alone; services and health checks ask without it."""
        prefix, path = self._addresses.prefix, scope["path"]
        if prefix and path != prefix and not path.startswith(f"{prefix}/"):
            if scope.get("method") == "GET" and "text/html" in headers.get("accept", ""):
                await RedirectResponse(_relative(prefix, scope), 307)(scope, receive, send)
                return
            scope = {**scope, "path": prefix + path, "raw_path": prefix.encode() + scope.get("raw_path", path.encode())}
        await self._app(scope, receive, send)


def _relative(prefix: str, scope: Scope) -> str:
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    return prefix + "/" + raw.decode("latin-1").lstrip("/") + (f"?{query.decode('latin-1')}" if query else "")


def _text(status: int, sentence: str) -> Response:
    extra: Iterable[tuple[str, str]] = [("Allow", "POST")] if status == 405 else []
    return PlainTextResponse(f"{sentence}\n", status, {"X-Content-Type-Options": "nosniff", **dict(extra)})


def install() -> None:
    """Put the guard before every web server that this process makes. Raises SettingsError.

    Once is enough: Dagster's storage asks for it wherever our dagster.yaml is (pipelines/storage.py), pipelines/process.py
    where it is not.
    """
    if getattr(DagsterWebserver, "guarded", False):
        return
    addresses, made = Addresses.of(load_web_settings()), DagsterWebserver.create_asgi_app

    def create_asgi_app(self: Any, **arguments: Any) -> Guard:
        self._app_path_prefix = self._app_path_prefix or addresses.prefix
        own = Addresses(addresses.hosts, addresses.any_number, self._app_path_prefix)
        return Guard(made(self, **arguments), own)

    DagsterWebserver.create_asgi_app = create_asgi_app
    DagsterWebserver.guarded = True
