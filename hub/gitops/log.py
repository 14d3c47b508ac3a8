"""logfmt lines for the journal, with every known secret taken out before a line leaves the process."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TextIO

_URL_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]+@")
_ASSIGNMENT = re.compile(
    r"(?i)\b(?P<key>[A-Z0-9_]*(?:PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|API_?KEY)[A-Z0-9_]*)"
    r"(?P<eq>\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;]+)"
)
_SECRET_KEY = re.compile(r"(?i)PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|KEY|URI|URL")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
LONGEST = 2000  # characters of a text that others wrote
_LARGEST_ENV = 1024 * 1024  # characters of an env file
_SHORTEST_SECRET = 4  # a shorter value would blank out ordinary words


class Redactor:
    """Replaces URL credentials, `…PASSWORD=…` assignments and the secret values of env files by `***`."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def learn_env_file(self, path: Path) -> None:
        """Remember the values of secret-looking keys in a dotenv file. A missing file teaches nothing."""
        try:
            if not path.is_file():  # its absence is reported by the step that needs it
                return
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(_LARGEST_ENV)
        except OSError:
            return
        found = set(self._values)
        for line in text.splitlines():
            key, eq, value = line.strip().partition("=")
            value = value.strip().strip("'\"")
            if eq and not key.startswith("#") and _SECRET_KEY.search(key) and len(value) >= _SHORTEST_SECRET:
                found.add(value)
        self._values = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without secrets. Do this first: a shortened or escaped secret would not be known for one."""
        for value in self._values:
            text = text.replace(value, "***")
        text = _URL_USERINFO.sub(lambda m: m.group("scheme") + "***@", text)
        return _ASSIGNMENT.sub(lambda m: m.group("key") + m.group("eq") + "***", text)


def plain(text: str, longest: int = LONGEST) -> str:
    """What others wrote, fit to be shown: on one line, nothing that steers a terminal or is invisible, not endless.

    Characters that cannot be printed, bytes that are no UTF-8 (surrogates, as os.fsdecode leaves them) and backslashes
    become escapes, so that two different texts never look the same; spaces other than the plain one too.
    """
    cut = text[:longest]
    shown = "".join(c if c.isprintable() and c != "\\" else _escape(c) for c in cut)
    return shown if len(text) <= longest else f"{shown} … ({len(text)} characters)"


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _SHORT.get(char) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(value: object) -> str:
    """One logfmt value: bare when it is plain, otherwise quoted and escaped, always on one line."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) <= LONGEST and _PLAIN.fullmatch(text):
        return text
    return '"' + plain(text).replace('"', '\\"') + '"'


def utc(epoch: float | None = None) -> str:
    """ISO 8601 in UTC with whole seconds, e.g. 2026-01-31T04:05:06Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() if epoch is None else epoch))


class Log:
    """Writes logfmt lines: information to `out`, warnings and errors to `err`."""

    def __init__(self, name: str, redact: Redactor, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.name = name
        self.redact = redact
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err

    def _write(self, stream: TextIO, level: str, msg: str, fields: dict[str, object]) -> None:
        parts = [f"ts={utc()}", f"level={level}", "agent=gitops", f"name={quote(self.name)}"]
        parts += [f"{key}={quote(self.redact(str(value)))}" for key, value in fields.items() if value is not None]
        parts.append(f"msg={quote(self.redact(msg))}")
        stream.write(" ".join(parts) + "\n")
        stream.flush()

    def info(self, msg: str, **fields: object) -> None:
        """A step or an ordinary fact."""
        self._write(self._out, "info", msg, fields)

    def warning(self, msg: str, **fields: object) -> None:
        """Something a person may want to know; the run goes on."""
        self._write(self._err, "warn", msg, fields)

    def error(self, msg: str, **fields: object) -> None:
        """The reason for which a run ended badly."""
        self._write(self._err, "error", msg, fields)
