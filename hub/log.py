"""Log lines of every process: one JSON object a line, readable ones on a terminal, and secrets in neither."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import threading
from types import TracebackType
from typing import Any, TextIO

from hub.errors import redact
from hub.settings import load_log_settings

# Docker cuts a line at 16 KiB, and what arrives in pieces is no JSON.
LINE_BYTES = 15_000
_LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
_QUIET = {
    "alembic": logging.WARNING,
    "httpx": logging.WARNING,  # its lines repeat ours
    "httpcore": logging.WARNING,
    "psycopg.pool": logging.ERROR,  # an attempt a second while the database is away
}


def level_name(number: int) -> str:
    """debug, info, warning, error or critical: the highest that the number reaches, as the label `level` in Loki."""
    return next((name for least, name in _LEVELS if number >= least), "debug")


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: `ts`, `level`, `logger`, `msg`, then the record's `fields`, then `exc`.

    `fields` is what the caller gave as `extra={"fields": {…}}`, `exc` the traceback. A line has at most
    LINE_BYTES bytes: the longest texts are cut, of a traceback the beginning.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": level_name(record.levelno),
            "logger": record.name,
            **self.content(record),
        }
        return _line({name: _plain(value) for name, value in fields.items() if value is not None})

    def content(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields of a line from `msg` on; what is None is left out."""
        exc = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
        return {"msg": record.getMessage(), **getattr(record, "fields", {}), "exc": exc}


class TextLines(logging.Formatter):
    """A log record for a person at a terminal: time, level, logger, text, fields, and a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{time} {level_name(record.levelno).upper():<8} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[0]:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


def as_json(stream: TextIO) -> bool:
    """Whether lines to `stream` are JSON, by HUB_LOG_FORMAT. Raises SettingsError when that is malformed."""
    chosen = load_log_settings().hub_log_format
    return chosen == "json" or (chosen == "auto" and not stream.isatty())


def configure(stream: TextIO | None = None, *, formatter: logging.Formatter | None = None) -> bool:
    """Send all that this process logs to `stream` (standard error by default); return whether as JSON.

    With JSON, warnings and uncaught exceptions, of threads too, become lines as well; `formatter` makes
    them in place of JsonLines. Raises SettingsError when HUB_LOG_FORMAT or HUB_LOG_LEVEL is malformed.
    """
    stream = stream or sys.stderr
    json_lines = as_json(stream)
    handler = logging.StreamHandler(stream)
    handler.setFormatter((formatter or JsonLines()) if json_lines else TextLines())
    handler.addFilter(_not_said_yet)
    logging.basicConfig(level=load_log_settings().hub_log_level.upper(), handlers=[handler], force=True)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    if json_lines:
        logging.captureWarnings(True)
        sys.excepthook = _uncaught
        threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)
    return json_lines


def _not_said_yet(record: logging.LogRecord) -> bool:
    """False where a logger below the root has a handler of its own, which says the record: Dagster's loggers have."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger and logger is not logging.root:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    log = logging.getLogger("hub")
    if issubclass(kind, KeyboardInterrupt):
        log.info("interrupted")
    elif not issubclass(kind, SystemExit):
        log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error or kind(), traceback))


def _plain(value: Any) -> str | int | float | bool:
    """What JSON has a plain form for; everything else as text, without secrets."""
    return value if isinstance(value, bool | int | float) else redact(str(value))


def _line(fields: dict[str, Any]) -> str:
    while len(line := _encoded(fields)) > LINE_BYTES:
        longest = max((name for name in fields if isinstance(fields[name], str)), key=lambda name: len(fields[name]))
        fields[longest] = _half(fields[longest], keep_end=longest == "exc")
    return line.decode()


def _encoded(fields: dict[str, Any]) -> bytes:
    # A lone surrogate becomes its escape, which is JSON as well.
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _half(text: str, *, keep_end: bool) -> str:
    half = len(text) // 2
    return f"[cut] {text[-half:].removeprefix('[cut] ')}" if keep_end else f"{text[:half].removesuffix(' [cut]')} [cut]"
