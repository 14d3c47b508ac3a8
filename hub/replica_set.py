"""The stack's own MongoDB as a replica set of one: only those have change streams, by which arrivals are seen in seconds.

`mongod --replSet` takes no reads and no writes before it has been told once who its members are; after that it knows. The
data of a server that stood alone before stays where it is.
"""

from __future__ import annotations

import time
from typing import Any

import pymongo
from pymongo import errors as mongo

from hub.errors import HubError, UnavailableError, redact
from hub.mongo import is_at
from hub.settings import Settings

_ALREADY, _NO_REPLICATION, _NOT_YET = 23, 76, 94  # AlreadyInitialized, NoReplicationEnabled, NotYetInitialized


def initiate(settings: Settings, name: str, member: str, *, patience_seconds: float = 60) -> str:
    """Make the server `member` (HOST:PORT) of MONGO_URI the one member of the replica set `name`; returns what was done, in words.

    Another server than `member` is somebody's own and is left alone; so is one that runs without `--replSet`. May be
    repeated. Raises UnavailableError when it takes no writes within `patience_seconds`, HubError when it refuses.
    """
    uri = settings.mongo_uri.get_secret_value()
    if not is_at(uri, member):
        return f"MONGO_URI names another MongoDB than {member}: it is left as it is."
    # Straight to the server: a client that looks for the members of a set would find none yet.
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        uri, directConnection=True, serverSelectionTimeoutMS=int(patience_seconds * 1000), connectTimeoutMS=10_000,
        appname="reading-hub",
    )  # fmt: skip
    try:
        with client:
            done = _begin(client, name, member)
            if done is None:
                return (
                    f"{member} runs without --replSet: it has no change streams, and arrivals are found by their ids."
                )
            _wait_for_writes(client, member, patience_seconds)
            return done
    except mongo.OperationFailure as error:
        raise HubError(f"{member} cannot become a replica set: {redact(str(error))[:300]}") from error
    except mongo.PyMongoError as error:
        raise UnavailableError(
            f"{member} cannot be reached ({redact(str(error))[:200]}). `make logs SERVICE=mongo`"
        ) from error


def _begin(client: pymongo.MongoClient[dict[str, Any]], name: str, member: str) -> str | None:
    """What was done in words; None where the server is no member of any set and cannot be."""
    try:
        client.admin.command("replSetGetStatus")
    except mongo.OperationFailure as error:
        if error.code == _NO_REPLICATION:
            return None
        if error.code != _NOT_YET:
            raise
    else:
        return f"{member} is a replica set already."
    try:
        client.admin.command("replSetInitiate", {"_id": name, "members": [{"_id": 0, "host": member}]})
    except mongo.OperationFailure as error:
        if error.code != _ALREADY:
            raise
    return f"{member} is the replica set {name!r} now, of one member."


def _wait_for_writes(client: pymongo.MongoClient[dict[str, Any]], member: str, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while not client.admin.command("hello").get("isWritablePrimary"):
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{member} is a replica set, but takes no writes after {patience_seconds:.0f} s."
                " `make logs SERVICE=mongo` says why; it must find itself under that name."
            )
        time.sleep(0.2)
