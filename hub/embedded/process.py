"""Start and stop server processes so that none outlives the process that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hub.errors import HubError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def free_port(preferred: int | None = None) -> int:
    """Return a TCP port that is free on loopback: `preferred` if it is, any otherwise.

    Not one of the kernel's own choice: between this answer and the server's start, or while a server is down to
    come back on its port, the kernel would give such a port to anybody's outgoing connection.
    """
    chosen = random.sample(range(20_000, 30_000), 50)  # below the 32768 where Linux begins with ports of its choice
    for port in ([preferred] if preferred else []) + chosen:
        with contextlib.suppress(OSError):
            return _bind(port)
    return _bind(0)


def _bind(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])


def spawn(
    command: Sequence[str], *, log: Path, stop_signal: signal.Signals, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a server, in `folder`, in a session of its own, so that a terminal's Ctrl-C does not reach it before us.

    If this process dies without stopping it (kill -9), the kernel sends it `stop_signal`.
    """

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(stop_signal))

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            preexec_fn=die_with_parent,  # only a system call; no lock can be held across it
        )


def stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals, *, seconds: float = 20) -> None:
    """Ask the process to stop; kill it when it has not after `seconds`."""
    if process.poll() is None:
        process.send_signal(stop_signal)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], *, what: str, log: Path) -> None:
    """Poll `ready` until it is true. Raises HubError with the log's end if the process ends or 60 s pass."""
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log.exists() else ""
            raise HubError(f"{what} did not start. Its log {log} ends:\n{tail}")
        time.sleep(0.05)


def accepts_connections(port: int) -> bool:
    """Whether something listens on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def is_root() -> bool:
    return os.geteuid() == 0
