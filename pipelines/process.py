"""Dagster's own programs with the hub's log lines: `python -m pipelines.process dagster-daemon run …`.

Dagster's `--log-format json` has no tracebacks, names its keys differently, and does not reach the processes of runs,
which write plain text over many lines. Here every line of a program, and of the runs that it starts, is as hub/log.py
says. On a terminal Dagster's own coloured lines stay.
"""

import importlib.metadata
import logging
import os
import sys
from typing import Any, TextIO

import coloredlogs
import dagster as dg
from uvicorn.config import LOGGING_CONFIG

from hub.errors import SettingsError
from hub.log import JsonLines, configure
from hub.settings import dagster_environment

# Dagster logs its events at level debug; these two are what a person looks for.
_TOLD = {dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS}


class DagsterLines(JsonLines):
    """JSON lines of Dagster's records too: the run's id, job, step and event as fields, the message without them."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()  # in place of a formatter of coloredlogs, whose arguments are of no use here

    def content(self, record: logging.LogRecord) -> dict[str, Any]:
        """As JsonLines does it, and what Dagster knows of the record."""
        own = super().content(record)
        known = getattr(record, "dagster_meta", None)
        if known is None:
            return own
        event = known["dagster_event"]
        error = getattr(event.event_specific_data, "error", None) if event else None
        return {
            "msg": known["orig_message"],
            "run_id": known["run_id"],
            "job": known["job_name"],
            "step": known["step_key"],
            "event": event.event_type.name if event else None,
            "exc": error.to_string() if error else own["exc"],
        }


def use_hub_lines(stream: TextIO) -> None:
    """Make what Dagster logs in this process JSON lines to `stream`.

    Dagster takes the formatter of its processes and the handler of its runs from coloredlogs, by name.
    """

    def install(level: int = logging.INFO, logger: logging.Logger | None = None, **_: object) -> None:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(DagsterLines())
        handler.addFilter(_worth_a_line)
        target = logger or logging.getLogger()
        target.addHandler(handler)
        target.setLevel(level)

    coloredlogs.install = install
    coloredlogs.ColoredFormatter = DagsterLines


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Whether the record of a run reaches HUB_LOG_LEVEL, which is the root's; begin and end of a run are told as info."""
    known = getattr(record, "dagster_meta", None)
    if known and known["dagster_event"] and known["dagster_event"].event_type in _TOLD:
        record.levelno = logging.INFO
    return record.levelno >= logging.root.level


def prepare() -> None:
    """Set up the log of this process: a Dagster program, or a run that one of them started."""
    # A copy of standard output: Dagster puts that of a run into files and repeats it with `tail`, which it stops too
    # early: 2 of 20 short runs lost their last lines.
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.environ.update(dagster_environment())
    try:
        json_lines = configure(stream, formatter=DagsterLines())
    except SettingsError as error:
        sys.exit(f"{error}")
    if json_lines:
        use_hub_lines(stream)
        _leave_uvicorn_to_us()


def main() -> None:
    """Run the installed program that the first argument names, with the other arguments."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m pipelines.process PROGRAM [ARGUMENT …]")
    del sys.argv[0]
    found = importlib.metadata.entry_points(group="console_scripts", name=sys.argv[0])
    if not found:
        sys.exit(f"{sys.argv[0]!r} is no installed program: dagster, dagster-webserver and dagster-daemon are")
    if sys.argv[0] == "dagster-webserver":
        _guard()
    sys.exit(next(iter(found)).load()())


def _guard() -> None:
    from pipelines.guard import install  # only here: it loads the web server

    try:
        install()
    except SettingsError as error:
        sys.exit(f"{error}")


def _leave_uvicorn_to_us() -> None:
    """Let uvicorn's records go up to the root logger: it would print them, tracebacks too, in a form of its own."""
    LOGGING_CONFIG.clear()
    LOGGING_CONFIG.update(version=1, disable_existing_loggers=False)


# Also in the processes of runs: Python's `spawn` imports the main module of their parent under the second name.
if __name__ in ("__main__", "__mp_main__"):
    prepare()
if __name__ == "__main__":
    main()
