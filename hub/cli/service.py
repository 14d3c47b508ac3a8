"""What the long-running commands share: settings without a source, and an end on SIGTERM or Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from hub.embedded.session import configured
from hub.settings import Settings, load_settings


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
