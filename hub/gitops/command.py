"""Runs other programs: argv only, with limits of time and of output; the whole process group is killed beyond them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import CommandFailed

_DROPPED_PREFIXES = (
    "GIT_",
    "COMPOSE_",
)  # somebody's shell must not point the agent at another tree or project
_KEPT = ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH")
# Compose tells the way of each container on standard error, before and between what is wrong.
LARGEST = 64 * 1024 * 1024  # bytes of standard output that are kept; git lists 400,000 paths in that
_COMPLAINT = 256 * 1024  # bytes of standard error that are kept, the last ones
_LINGER = 2.0  # seconds; a grandchild that left the group may hold the pipes for ever
_PROGRESS = re.compile(r"(?:Container|Network|Volume|Image) \S+\s+[A-Z][a-z]+")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for children: ours without GIT_* and COMPOSE_*, messages in English, no prompts."""
    env = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_DROPPED_PREFIXES)}
    env.update({"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""})
    env["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes -oControlMaster=no -oControlPath=none"
    env["GIT_OPTIONAL_LOCKS"] = "0"
    env["GIT_NO_REPLACE_OBJECTS"] = "1"  # an object is what its name says, whatever refs/replace holds
    # Compose would fetch `include: https://…` and `oci://…` itself; what is deployed lies in the commit.
    env.update({"COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false", "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false"})
    env.update(extra or {})
    return env


class Finished:
    """What a program left behind."""

    def __init__(self, argv: Sequence[str], code: int, out: bytes, err: bytes, *, cut: bool = False) -> None:
        self.argv = list(argv)
        self.cut = cut  # it printed more than was wanted, and was killed
        self.code = code
        self.out = out
        self.err = err

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 survive a round trip through file names."""
        return os.fsdecode(self.out)

    def json(self) -> Any:
        """Standard output as JSON. Raises ValueError, whatever is wrong with it."""
        try:
            return json.loads(self.out)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def complaint(self) -> str:
        """The last lines of standard error (or of standard output), on one line.

        Not shortened: half of a password would not be known for one by whoever redacts. log.plain does that afterwards.
        """
        text = os.fsdecode(self.err).strip() or os.fsdecode(self.out).strip()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if not _PROGRESS.fullmatch(line)]
        return " | ".join((telling or lines)[-4:])


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    check: bool = True,
    kind: str = "command",
    label: str = "",
    keep_open: Sequence[int] = (),
    largest: int = LARGEST,
) -> Finished:
    """Run `argv`; `keep_open` are descriptors that the child inherits (the lock, see state.Lock).

    Raises CommandFailed with `kind` if the program is missing, exceeds `timeout` seconds, prints more than `largest`
    bytes, or (with `check`) exits with anything but 0.
    """
    shown = label or " ".join(argv[:3])
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=clean_environment(env),
            start_new_session=True,
            pass_fds=tuple(keep_open),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise CommandFailed(kind, f"cannot run {argv[0]}: {error.strerror}; install it or correct PATH") from error
    except ValueError as error:  # a null byte in an argument
        raise CommandFailed(kind, f"cannot run {argv[0]}: {error}") from error
    try:
        out, err = _talk(process, stdin, time.monotonic() + timeout, largest)
    except _TooLate as error:
        raise CommandFailed(kind, f"{shown} ran longer than {timeout:g} s and was killed") from error
    except _TooMuch as error:
        if check:
            raise CommandFailed(kind, f"{shown} printed more than {largest} bytes and was killed") from error
        return Finished(argv, -signal.SIGKILL, b"", b"printed too much", cut=True)
    finally:
        _end(process)
    done = Finished(argv, process.returncode, out, err)
    if check and done.code != 0:
        raise CommandFailed(kind, f"{shown} exited with {done.code}: {done.complaint() or 'no message'}")
    return done


class _TooLate(Exception):
    """The time is up."""


class _TooMuch(Exception):
    """More was printed than is kept."""


def _talk(process: subprocess.Popen[bytes], stdin: bytes, deadline: float, largest: int) -> tuple[bytes, bytes]:
    """Feed the child and read it until both pipes are closed and it has ended, or a limit is passed."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    out, err, rest = bytearray(), bytearray(), memoryview(stdin)
    ended: float | None = None
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ, out)
        ready.register(process.stderr, selectors.EVENT_READ, err)
        if stdin:
            os.set_blocking(process.stdin.fileno(), False)
            ready.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while ready.get_map():
            now = time.monotonic()
            if now >= deadline:
                raise _TooLate
            if process.poll() is not None:
                ended = ended or now
                if now - ended > _LINGER:
                    break
            for key, _ in ready.select(min(deadline - now, 0.5)):
                if key.fileobj is process.stdin:
                    rest = _feed(process, rest)
                    if not rest:
                        ready.unregister(process.stdin)
                        process.stdin.close()
                    continue
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    ready.unregister(key.fileobj)
                key.data.extend(chunk)
                if len(out) > largest:
                    raise _TooMuch
                if len(err) > 2 * _COMPLAINT:
                    del err[:-_COMPLAINT]
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise _TooLate from error
    return bytes(out), bytes(err)


def _feed(process: subprocess.Popen[bytes], rest: memoryview) -> memoryview:
    assert process.stdin is not None
    try:
        return rest[os.write(process.stdin.fileno(), rest[:65536]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:  # it does not want more
        return rest[len(rest) :]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and all that it started, unless it has ended by itself; nobody reads the pipes any more."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended between the two
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
