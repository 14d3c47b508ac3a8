"""PostgreSQL's client programs: which ones to use, what they can do, and running them without leaks."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hub.embedded.postgres import tool as wheel_tool
from hub.errors import DeniedError, HubError, UnavailableError, redact
from hub.settings import Settings

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")
# What a program says while all is well.
_CHATTER = re.compile(r"pg_(dump|restore|dumpall): (?!error|warning|detail|hint)")
_TAIL = 40
_TICK_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Tool:
    """One program. `major` is the PostgreSQL version it came with."""

    path: Path
    major: int
    version: str


class LockTimeoutError(UnavailableError):
    """A lock could not be had in time; the caller may try again."""


@functools.cache
def _examine(path: Path) -> Tool | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    except OSError:
        return None
    found = _VERSION.search(done.stdout)
    return Tool(path, int(found[1]), found[1] + found[2]) if found else None


def find(name: str, *, at_least: int, because: str) -> Tool:
    """`name` from PATH if its version will do, else the wheel's. Raises HubError naming what there is."""
    seen = []
    for path in filter(None, (shutil.which(name), _wheel(name))):
        tool = _examine(Path(path))
        if tool is not None and tool.major >= at_least:
            return tool
        if tool is not None:
            seen.append(f"{path} is {tool.version}")
    raise HubError(
        f"{name} {at_least} or newer is needed, because {because}; {' and '.join(seen) or 'there is none'}."
        f" Install postgresql-client-{at_least} or newer."
    )


def _wheel(name: str) -> str | None:
    try:
        path = wheel_tool(name)
    except HubError:
        return None
    return str(path) if path.exists() else None


@functools.cache
def codec(pg_dump: Tool) -> str:
    """The best compression that this pg_dump was built with: zstd or gzip."""
    if pg_dump.major < 16:
        return "gzip"
    # It looks at the compression before it looks for a server, so one that does not exist will do.
    with tempfile.TemporaryDirectory() as nowhere:
        command: list[str | Path] = [
            pg_dump.path,
            "--format=custom",
            "--compress=zstd",
            "--file=/dev/null",
            f"--host={nowhere}",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}
        )
    return "gzip" if "compression" in done.stderr else "zstd"


def environment(settings: Settings) -> dict[str, str]:
    """What a client program needs to connect. Holds the password, which is never put among the arguments."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {
        "LC_ALL": "C",
        "PGHOST": settings.db_host,
        "PGPORT": str(settings.db_port),
        "PGUSER": settings.db_user,
        "PGPASSWORD": settings.db_password.get_secret_value(),
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "reading-hub-backup",
        "PGTZ": "UTC",
    }


def run(
    command: Sequence[str | Path],
    settings: Settings,
    *,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run a program to its end; return the last lines it said, without its chatter.

    `on_line` sees each line as it comes, `on_tick` is called twice a second. The program dies with this
    process. Raises HubError in the hub's words when it fails.
    """
    tail: list[str] = []
    with subprocess.Popen(
        list(map(str, command)), env=environment(settings), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True, preexec_fn=_die_with_parent,
    ) as process:  # fmt: skip
        try:
            for line in _lines(process, on_tick):
                on_line(line)
                if not _CHATTER.match(line):
                    tail = [*tail[-_TAIL:], line]
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _failure(Path(command[0]).name, process.returncode, tail)
    return tail


def _lines(process: subprocess.Popen[bytes], on_tick: Callable[[], None]) -> Iterator[str]:
    """The lines of a program's stderr until it closes it."""
    assert process.stderr is not None
    rest, ticked = b"", time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            if selector.select(_TICK_SECONDS):
                data = os.read(process.stderr.fileno(), 65536)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace").rstrip() for line in lines)
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                on_tick()
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _failure(name: str, code: int, tail: list[str]) -> HubError:
    text = redact(" ".join(line.strip() for line in tail if line.strip())[-1500:]) or f"exit code {code}"
    if "server version mismatch" in text:
        return HubError(
            f"{name} is older than the server ({text}). Install the client programs of the server's version."
        )
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return HubError(
            f"{name}: no space left on the disk. Nothing partial was kept; free some space and try again. ({text})"
        )
    # --lock-wait-timeout is a statement timeout on the server.
    if any(word in text for word in ("lock timeout", "statement timeout", "deadlock detected")):
        return LockTimeoutError(f"{name} waited too long for a lock ({text}). Nothing was changed; try again.")
    if "out of shared memory" in text:
        return HubError(
            f"{name}: the server's lock table is too small ({text}). Raise max_locks_per_transaction, restart it."
        )
    if "permission denied" in text or "must be superuser" in text or "must be owner" in text:
        return DeniedError(f"{name} lacks a permission ({text}). Set DB_ADMIN_USER to a superuser.")
    if code < 0 or any(
        word in text
        for word in ("connection to server", "server closed", "terminating connection", "shutting down", "SSL SYSCALL")
    ):
        return UnavailableError(
            f"{name} lost the server ({text}). Nothing partial was kept; check that it runs and try again."
        )
    return HubError(f"{name} failed with exit code {code}: {text}")
