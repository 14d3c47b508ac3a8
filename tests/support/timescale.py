"""Real TimescaleDB on any machine with Node: the WebAssembly build of `tests/support/pglite`, as a server."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support import node

FOLDER = Path(__file__).parent / "pglite"


def missing() -> str | None:
    """Why the server cannot be had here, None if it can."""
    return node.missing("TimescaleDB in WebAssembly (database level 1) was not tested")


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Yield the port of a new, empty server. It takes one connection at a time, has no COPY and no background jobs."""
    node.install(FOLDER)
    process = subprocess.Popen(
        ["node", "server.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    watchdog = threading.Timer(300, process.kill)  # for a start that hangs
    watchdog.start()
    port = process.stdout.readline()
    watchdog.cancel()
    try:
        yield int(port)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
