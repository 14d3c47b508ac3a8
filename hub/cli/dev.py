"""Dagster's UI and daemon on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from hub.cli.session import DAGSTER_FOLDER, PROJECT, console
from hub.embedded.process import accepts_connections, spawn
from hub.errors import HubError


def run_dev(port: int) -> None:
    """Run the webserver and the daemon; returns when either ends or on Ctrl-C, with nothing left running."""
    logs = Path(os.environ["DAGSTER_HOME"]).parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    workspace = ["-w", str(PROJECT / "workspace.yaml")]
    commands = {
        "webserver": ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), *workspace],
        "daemon": ["dagster-daemon", "run", *workspace],
    }
    with contextlib.ExitStack() as stack:
        os.environ["PYTHONWARNINGS"] = "ignore"
        processes = {name: _start(command, logs / f"{name}.log", stack) for name, command in commands.items()}
        console.print("Starting the Dagster UI …")
        _wait_for_ui(port, processes)
        console.print(f"[bold]Dagster UI: http://127.0.0.1:{port}[/bold]   (logs in {logs}; Ctrl-C stops everything)")
        with contextlib.suppress(KeyboardInterrupt):
            while all(process.poll() is None for process in processes.values()):
                time.sleep(0.5)
        for name, process in processes.items():
            if process.poll() is not None:
                raise HubError(
                    f"the Dagster {name} ended by itself (exit code {process.returncode}); see {logs}/{name}.log"
                )
        console.print("Stopping …")


def refuse_taken(port: int) -> None:
    """Raise HubError when another program listens on the port: better before the demo than after it."""
    if accepts_connections(port):
        raise HubError(f"port {port} is taken by another program: stop that one, or use `hub dev --port {port + 1}`")


def _start(command: Sequence[str], log: Path, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    log.unlink(missing_ok=True)
    process = spawn(command, log=log, stop_signal=signal.SIGINT, folder=DAGSTER_FOLDER)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process and the code servers that it started."""
    process.send_signal(signal.SIGINT)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
    finally:  # of a second Ctrl-C too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever of its group is left
        process.wait()


def _wait_for_ui(port: int, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and all(process.poll() is None for process in processes.values()):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2):
            return
        time.sleep(0.3)
