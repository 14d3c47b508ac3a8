"""How a run can end other than well: each error carries its result word, its exit code and a stable kind."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_REFUSED = 3
EXIT_POSTPONED = 75  # EX_TEMPFAIL of sysexits.h; the unit lists it in SuccessExitStatus


class GitopsError(Exception):
    """A run that ended badly: `kind` is a stable word for programs, the message is for people."""

    result = "failed"
    code = EXIT_FAILED

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ConfigError(GitopsError):
    """The configuration or the allowlist cannot be used; nothing was looked at beyond it."""

    result = "misconfigured"
    code = EXIT_CONFIG


class Refused(GitopsError):
    """The agent will not act on what it found; a person has to look. Nothing was changed."""

    result = "refused"
    code = EXIT_REFUSED


class Postponed(GitopsError):
    """Not now: offline, runs still going, another agent at work. The next run tries again."""

    result = "postponed"
    code = EXIT_POSTPONED


class DeployFailed(GitopsError):
    """A commit could not be brought up healthy."""

    result = "failed"
    code = EXIT_FAILED


class CommandFailed(GitopsError):
    """A program that the agent ran exited with an error or ran out of time."""

    result = "failed"
    code = EXIT_FAILED
