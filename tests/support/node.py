"""npm packages for tests: each folder of tests/support with a package-lock.json."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path


def missing(what: str) -> str | None:
    """Why `what` was not tested, None where Node is there."""
    if not shutil.which("node") or not shutil.which("npm"):
        return f"Node is missing: {what}"
    return None


def install(folder: Path) -> None:
    """Install the npm packages of the lock file, once, also when several test processes ask at the same time."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # npm writes this file last.
        if not (folder / "node_modules" / ".package-lock.json").exists():
            subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True, capture_output=True, timeout=900)
