"""What surrounds every request: an id, a time limit, a size limit, a log line, numbers, and safe headers."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.proxy.numbers import Numbers
from hub.proxy.problems import Problem, response

log = logging.getLogger("hub.proxy")

BODY_LIMIT = 64 * 1024
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,64}$")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """The outermost middleware. What goes wrong inside becomes a problem that tells nothing but its id."""

    def __init__(self, app: ASGIApp, *, numbers: Numbers, timeout_seconds: float) -> None:
        self.app = app
        self.numbers = numbers
        self.timeout_seconds = timeout_seconds
        # Requests past their time: they end by themselves, without an answer, once their server speaks again.
        self._abandoned: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(send, request_id)
        with self.numbers.in_flight.track_inprogress():
            await self._answer(scope, receive, exchange)
        seconds = time.perf_counter() - exchange.began
        route = getattr(scope.get("route"), "path", "none")
        self.numbers.observe(scope["method"], route, exchange.status, seconds)
        log.info("request", extra={"fields": _fields(scope, exchange, seconds)})

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        request_id = exchange.request_id
        task = asyncio.ensure_future(self.app(scope, _limited(scope, receive), exchange))
        try:
            done, _ = await asyncio.wait({task}, timeout=self.timeout_seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            # Not awaited: a database that hangs would not let go of it before it speaks again.
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
            task.cancel()
            exchange.closed = exchange.status != 0
            problem = Problem(504, f"This took longer than {self.timeout_seconds:g} s. Ask for less, or try again.")
            await exchange.end(scope, receive, problem)
        elif error := task.exception():
            if isinstance(error, Problem):
                await exchange.end(scope, receive, error)
                return
            log.error("failed", exc_info=error, extra={"fields": {"request_id": request_id}})
            await exchange.end(scope, receive, Problem(500, "The proxy failed. Its log has the details under this id."))

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.info("abandoned", extra={"fields": {"error": str(error)}})


class _Exchange:
    """The sending side of one request: adds headers, and sends nothing after its end."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.began = time.perf_counter()
        self.status = 0
        self.size = 0
        self.closed = False

    async def __call__(self, message: Message) -> None:
        if self.closed:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            headers["X-Request-ID"] = self.request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive, problem: Problem) -> None:
        """Answer with the problem, unless an answer has begun."""
        if not self.status:
            await response(problem, self.request_id)(scope, receive, self)
            self.closed = True


def _limited(scope: Scope, receive: Receive) -> Receive:
    """`receive` that refuses a body of more than BODY_LIMIT bytes, whether or not it says so beforehand."""
    # FastAPI lets this kind of error through from within the reading of a body.
    too_large = HTTPException(413, f"A body may have {BODY_LIMIT:,} bytes.")
    announced = Headers(scope=scope).get("content-length", "0")
    received = 0

    async def limited() -> Message:
        nonlocal received
        if announced.isdigit() and int(announced) > BODY_LIMIT:
            raise too_large
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_LIMIT:
            raise too_large
        return message

    return limited


def _fields(scope: Scope, exchange: _Exchange, seconds: float) -> dict[str, Any]:
    state = scope["state"]
    client = scope.get("client")
    return {
        "request_id": exchange.request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": exchange.status,
        "bytes": exchange.size,
        "ms": round(1000 * seconds, 1),
        "client": client[0] if client else None,
        "token": state.get("token"),
    }
