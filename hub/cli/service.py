"""What the commands of the stack's services share: settings without a source, a log, an end on SIGTERM or Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

import typer

from hub.embedded.session import configured
from hub.errors import HubError, SettingsError
from hub.log import configure
from hub.settings import Settings, load_log_settings, load_settings


@contextlib.contextmanager
def service_settings() -> Iterator[Settings]:
    """Settings for a command that needs the database alone, so that MONGO_URI may be missing.

    Where no database is configured, the embedded servers of `hub dev` are shared or started.
    """
    given = configured()
    if "DB_HOST" in given:
        yield load_settings(**({} if "MONGO_URI" in given else {"mongo_uri": "mongodb://not-configured"}))
        return
    from hub.cli.session import session

    with session() as current:
        yield current.settings


@contextlib.contextmanager
def logged(stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """The log of a command that runs as a service, to `stream` (standard output), and a way to say what it did.

    With HUB_LOG_FORMAT=json what it says and the sentence that it fails with are lines of the log.
    """
    configure(stream or sys.stdout)
    if load_log_settings().hub_log_format != "json":
        from hub.cli.session import console

        yield functools.partial(console.print, soft_wrap=True)
        return
    log = logging.getLogger("hub.cli")
    try:
        yield log.info
    except HubError as error:
        log.critical("%s", error)
        raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from None


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set while the block lasts."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
