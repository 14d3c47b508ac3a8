"""Find new, changed and deleted documents by MongoDB's change stream, where the server has one."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from hub.arrivals.look import RAW
from hub.loading.convert import Unusable, decode
from hub.mongo import Documents

# Events that one look takes in; the next look goes on from there.
PAGE = 20_000
# What the embedded server keeps of them for a stream that is resumed. It never says that some are gone.
_KEPT_BY_STANDALONE = 1_000
_AWAIT_MS = 1_000
_WRITTEN = {"insert", "update", "replace"}
_ENDED = {"drop", "rename", "dropDatabase", "invalidate"}
_PIPELINE = [{"$project": {"operationType": 1, "documentKey": 1, "fullDocument._id": 1}}]


class NoChangeStreamError(Exception):
    """The server offers no change stream; the text says why."""


@dataclasses.dataclass(frozen=True)
class Changes:
    """What came through a change stream. `token` resumes it after this; `lost` says why something may have come unseen.

    `written` and `deleted` are the documents' ids; those of `written` may name one in two forms.
    """

    token: dict[str, Any] | None
    server: str | None
    written: list[Any]
    deleted: list[Any]
    lost: str = ""


def watch(
    documents: Documents,
    token: dict[str, Any] | None,
    server: str | None,
    *,
    wait: float,
    enough: threading.Event | None = None,
) -> Changes:
    """Changes since `token`, of the process `server`; where there are none, wait up to `wait` seconds for some.

    Without a token, those from now on. `enough` ends the waiting within a second. Raises NoChangeStreamError, and pymongo's errors when the server is away.
    """
    now_at = _standalone(documents)
    lost = ""
    if token and now_at != server:
        token, lost = None, "the server was started anew, and forgot the changes before"
    elif token is None:
        lost = "the change stream begins now"
    try:
        return _read(documents, token, now_at, wait, enough, lost)
    except OperationFailure as error:
        if token is None:
            raise NoChangeStreamError(" ".join(str(error).split(", full error:")[0].split())) from error
        lost = (
            f"the change stream could not be resumed ({error.details.get('codeName') if error.details else error.code})"
        )
    try:
        return _read(documents, None, now_at, wait, enough, lost)
    except OperationFailure as error:
        raise NoChangeStreamError(" ".join(str(error).split(", full error:")[0].split())) from error


def _standalone(documents: Documents) -> str | None:
    """Which process the server is, where resume tokens do not outlive it; None for replica sets and clusters."""
    admin = documents.database.client.admin
    hello = admin.command("hello")
    if "setName" in hello or hello.get("msg") == "isdbgrid":
        return None
    try:
        status = admin.command("serverStatus")
    except OperationFailure:
        return ""
    started = status["localTime"].timestamp() - float(status.get("uptimeMillis", 0)) / 1000
    return f"{status.get('pid')}:{round(started / 10)}"  # the clock drifts


def _read(
    documents: Documents,
    token: dict[str, Any] | None,
    server: str | None,
    wait: float,
    enough: threading.Event | None,
    lost: str,
) -> Changes:
    written: list[Any] = []
    deleted: list[Any] = []
    events = 0
    until = time.monotonic() + wait
    watched = documents.with_options(codec_options=RAW)
    with watched.watch(_PIPELINE, resume_after=token, max_await_time_ms=_AWAIT_MS) as stream:
        while events < PAGE:
            change = _next(stream)
            if change is None:
                # A stream that begins has nothing yet: the ledger is asked, and need not wait.
                if events or lost or time.monotonic() >= until or (enough and enough.is_set()):
                    break
                continue
            events += 1
            try:
                change = decode(bytes(change.raw))
            except Unusable as why:
                lost = lost or f"a change could not be read ({why})"
                continue
            kind = change["operationType"]
            if kind in _ENDED:
                return Changes(None, None, written, deleted, f"the collection was dropped or renamed ({kind})")
            identifier = change.get("documentKey", {}).get("_id")
            if kind == "delete":
                deleted.append(identifier)
            elif kind in _WRITTEN:
                written.append(identifier)
                # The embedded server gives an integer as text in one of them, an ObjectId as an object of its own in the
                # other; and a lookup of an object ends in an error there.
                stored = (change.get("fullDocument") or {}).get("_id")
                if not isinstance(stored, dict):
                    written.append(stored)
        resumed = stream.resume_token
    if server is not None and events >= _KEPT_BY_STANDALONE:
        lost = lost or f"{events:,} changes came at once, and the server keeps no more than {_KEPT_BY_STANDALONE:,}"
    return Changes(_plain(resumed), server, written, deleted, lost)


def _next(stream: ChangeStream[Any]) -> Any:
    began = time.monotonic()
    change = stream.try_next()
    if change is None and time.monotonic() - began < 0.2:
        threading.Event().wait(0.25)  # a server that does not wait itself
    return change


def _plain(token: Any) -> dict[str, Any] | None:
    return {**token} if isinstance(token, RawBSONDocument | dict) else None
