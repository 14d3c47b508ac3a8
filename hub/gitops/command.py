"""Runs other programs: argv only, a time limit on each, the whole process group killed when it passes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import CommandFailed

_DROPPED_PREFIXES = (
    "GIT_",
    "COMPOSE_",
)  # somebody's shell must not point the agent at another tree or project
_KEPT = ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH")
# Compose tells the way of each container on standard error, before and between what is wrong.
_PROGRESS = re.compile(r"(?:Container|Network|Volume|Image) \S+\s+[A-Z][a-z]+")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for children: ours without GIT_* and COMPOSE_*, messages in English, no prompts."""
    env = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_DROPPED_PREFIXES)}
    env.update({"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""})
    env["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes -oControlMaster=no -oControlPath=none"
    env["GIT_OPTIONAL_LOCKS"] = "0"
    env.update(extra or {})
    return env


class Finished:
    """What a program left behind."""

    def __init__(self, argv: Sequence[str], code: int, out: bytes, err: bytes) -> None:
        self.argv = list(argv)
        self.code = code
        self.out = out
        self.err = err

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 survive a round trip through file names."""
        return os.fsdecode(self.out)

    def complaint(self) -> str:
        """The last lines of standard error (or of standard output), short enough for one log line."""
        text = os.fsdecode(self.err).strip() or os.fsdecode(self.out).strip()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if not _PROGRESS.fullmatch(line)]
        return " | ".join((telling or lines)[-4:])[-700:]


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
) -> Finished:
    """Run `argv`; `keep_open` are descriptors that the child inherits (the lock, see state.Lock).

    Raises CommandFailed with `kind` if the program is missing, exceeds `timeout` seconds, or (with `check`)
    exits with anything but 0.
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
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _kill_group(process)
        raise CommandFailed(kind, f"{shown} ran longer than {timeout:g} s and was killed") from error
    except BaseException:
        _kill_group(process)
        raise
    done = Finished(argv, process.returncode, out, err)
    if check and done.code != 0:
        raise CommandFailed(kind, f"{shown} exited with {done.code}: {done.complaint() or 'no message'}")
    return done


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and all that it started: they hold the pipes that are read to the end."""
    with contextlib.suppress(ProcessLookupError):  # it ended on its own between the time-out and here
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
