"""A real browser for tests: Chromium without a window, told what to do by its own protocol (DevTools)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import websockets.sync.client as websocket

from tests.integration.dagster_stack import process, until


def program() -> str | None:
    """Chromium, where there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One page. It answers a server's question for a login with `login`, as a person does in the browser's own window."""

    def __init__(self, connection: websocket.ClientConnection, login: tuple[str, str]) -> None:
        self._connection, self._login, self._number = connection, login, 0
        self.asked_for_login = 0
        self.call("Page.enable")
        self.call("Fetch.enable", handleAuthRequests=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of DevTools; what the browser tells meanwhile is seen to."""
        number = self._send(method, parameters)
        while True:
            message = json.loads(self._connection.recv(timeout=120))
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found
            self._happened(message)

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What the script comes to, in the page; promises are waited for."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"]
        return result.get("value", result.get("description"))

    def until(self, script: str) -> Any:
        """What the script comes to, once that is true."""
        found = until(script, lambda: self._settled() and self.value(script))
        assert found
        return found

    def _settled(self) -> bool:
        """See to what waits: requests are held until they are let go of."""
        deadline = time.monotonic() + 0.3
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                self._happened(json.loads(self._connection.recv(timeout=left)))
        return True

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        return self._number

    def _happened(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        if message.get("method") == "Fetch.requestPaused":
            self._send("Fetch.continueRequest", {"requestId": told["requestId"]})
        elif message.get("method") == "Fetch.authRequired":
            self.asked_for_login += 1
            name, password = self._login
            answer = {"response": "ProvideCredentials", "username": name, "password": password}
            self._send("Fetch.continueWithAuth", {"requestId": told["requestId"], "authChallengeResponse": answer})


@contextlib.contextmanager
def browsing(folder: Path, login: tuple[str, str] = ("", "")) -> Iterator[Page]:
    """A browser with one empty page, which takes any certificate: Caddy's authority is not in its store."""
    command = [
        str(program()), "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    active = folder / "DevToolsActivePort"
    with process(command, {**os.environ, "HOME": str(folder)}, folder / "chromium.log"):
        port = until("the browser listens", lambda: active.exists() and active.read_text().partition("\n")[0])
        (page,) = (one for one in httpx.get(f"http://127.0.0.1:{port}/json/list").json() if one["type"] == "page")
        with websocket.connect(page["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Page(connection, login)
