"""Cursors of keyset pagination: the key of the last row that was sent, opaque to the caller."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hub.proxy.problems import Problem


def encode(key: Sequence[Any], question: Mapping[str, Any]) -> str:
    """A cursor that goes on after `key` and belongs to this question."""
    parts = [part.isoformat() if isinstance(part, dt.datetime) else part for part in key]
    text = json.dumps([_digest(question), *parts], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode(cursor: str, question: Mapping[str, Any]) -> tuple[dt.datetime, *tuple[str, ...]]:
    """The key in `cursor`: a time, then texts. Raises Problem 422 for any other text or another question."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        digest, time, *rest = json.loads(text)
        at = dt.datetime.fromisoformat(time)
        if at.tzinfo is None or not all(isinstance(part, str) and "\0" not in part for part in rest):
            raise ValueError
        at.astimezone(dt.UTC)
        "".join(rest).encode()
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError):
        raise Problem(422, "cursor: take it as `next` of an answer gave it") from None
    if digest != _digest(question):
        raise Problem(422, "cursor: it belongs to another question; repeat the parameters that it came from")
    return (at, *rest)


def _digest(question: Mapping[str, Any]) -> str:
    text = json.dumps(question, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
