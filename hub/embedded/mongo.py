"""A small MongoDB wire-protocol server from PyPI (nx-27017, on SQLite) for the first look and the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from hub.embedded import process


class EmbeddedMongo:
    """One nx-27017 server that keeps its documents in `folder`, listening on loopback only.

    It is not MongoDB: it stores documents as JSON (no Decimal128), has no authentication and answers
    only part of the query language. `hub.loading.source` copes with that by scanning.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "mongo.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int | None = None) -> None:
        """Start the server and wait until it answers. Raises HubError."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.port = process.free_port(port)
        command = [
            sys.executable, "-m", "nx_27017.nx_27017", "--data-dir", str(self.folder / "data"),
            "--host", "127.0.0.1", "--port", str(self.port),
            "--log-file", str(self.log), "--pid-file", str(self.folder / "mongo.pid"),
        ]  # fmt: skip
        self._process = process.spawn(command, log=self.folder / "mongo.out", stop_signal=signal.SIGTERM)
        process.wait_until(
            lambda: process.accepts_connections(self.port),
            self._process,
            what="the embedded MongoDB server",
            log=self.folder / "mongo.out",
        )

    def stop(self) -> None:
        """Stop the server."""
        if self._process is not None:
            process.stop(self._process, signal.SIGTERM)
            self._process = None

    def environment(self) -> dict[str, str]:
        """The settings that point the hub at this server."""
        return {"MONGO_URI": f"mongodb://127.0.0.1:{self.port}"}
