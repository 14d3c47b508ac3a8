"""Errors that a tired person understands: what went wrong, where, and what to do about it."""

from __future__ import annotations

import re

# Up to the last @, since a password may hold any of / ' " unescaped: rather too much than a part of it.
_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
_PASSWORD_PAIR = re.compile(
    r"(?P<key>(?:password|passwd|pwd)\b['\"]?\s*[=:]\s*)(?P<value>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)", re.I
)


def redact(text: str) -> str:
    """Return `text` with the credentials of every connection string in it replaced by `***`."""
    text = _CREDENTIALS.sub(r"\g<scheme>***@", text)
    return _PASSWORD_PAIR.sub(r"\g<key>***", text)


class HubError(Exception):
    """A failure with a message for a person.

    `retryable` says whether the same call can succeed later with nothing changed by hand: a server that
    restarts, a connection that broke. A wrong password or a missing schema is not retryable.
    """

    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class SettingsError(HubError):
    """A setting is missing or malformed. The command line exits with code 2."""


class UnavailableError(HubError):
    """A server cannot be reached, or left in the middle of the work."""

    retryable = True


class DeniedError(HubError):
    """A server refused the credentials or the permission."""


class SchemaError(HubError):
    """The database lacks what this version of the hub needs."""


class RefusedError(HubError):
    """The hub will not do it, because it would lose data; the message says how to insist."""
