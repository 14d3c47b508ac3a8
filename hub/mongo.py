"""Connections to the source, and its errors in words that say what to do."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from typing import Any

import pymongo
from pymongo import errors as mongo
from pymongo.collection import Collection
from pymongo.uri_parser import parse_uri

from hub.errors import DeniedError, HubError, SettingsError, UnavailableError
from hub.settings import Settings
from hub.streams.model import Stream

Documents = Collection[dict[str, Any]]

_AUTHENTICATION = {18, 8000}
_UNAUTHORIZED = {13}


def where(settings: Settings, stream: Stream) -> str:
    """The server and collection in words, without credentials."""
    try:
        nodes = parse_uri(settings.mongo_uri.get_secret_value(), validate=False)["nodelist"]
        hosts = ",".join(f"{host}:{port}" for host, port in nodes)
    except (mongo.PyMongoError, ValueError):
        hosts = "the server of MONGO_URI"
    return f"MongoDB collection {stream.database}.{stream.collection} on {hosts}"


def is_at(uri: str, member: str | None) -> bool:
    """Whether a URI names the server `member` (HOST:PORT) and no other."""
    try:
        return [f"{host}:{port}" for host, port in parse_uri(uri, validate=False)["nodelist"]] == [member]
    except (mongo.PyMongoError, ValueError):
        return False


@contextlib.contextmanager
def collection(settings: Settings, stream: Stream, *, patience_seconds: float = 10) -> Iterator[Documents]:
    """Open the collection of a stream; connections close at the end of the block.

    Raises UnavailableError, DeniedError or HubError in place of what pymongo raises inside the block.
    """
    with translated(settings, stream):
        uri = settings.mongo_uri.get_secret_value()
        ours: dict[str, Any] = {
            "appname": "reading-hub",
            "serverSelectionTimeoutMS": int(patience_seconds * 1000),
            "connectTimeoutMS": 10_000,
            "socketTimeoutMS": 120_000,
        }
        given = uri.rpartition("?")[2].lower()  # pymongo would let ours win over the user's own
        options = {name: value for name, value in ours.items() if f"{name.lower()}=" not in given}
        try:
            client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri, **options)
        except (mongo.PyMongoError, ValueError, OSError) as error:
            raise _unusable(error) from None
        with client:
            yield client[stream.database][stream.collection]


def _unusable(error: Exception) -> HubError:
    """The error for a connection string that no client can be made of. Its own text may repeat the password."""
    remedy = "Correct it in .env or the environment."
    if type(error.__cause__).__module__.startswith("dns."):  # mongodb+srv:// looks its servers up
        return UnavailableError("MONGO_URI names a host that DNS does not find now. Try again, or correct it.")
    if isinstance(error, OSError):
        return SettingsError(f"MONGO_URI names a file that cannot be read ({error.filename}). {remedy}")
    encode = "percent-encode what is special in the user and the password"
    return SettingsError(f"MONGO_URI is malformed: no valid MongoDB connection string ({encode}). {remedy}")


def missing(documents: Documents) -> str | None:
    """Why the collection of a stream that yields no documents is not there; None where it is, or none is at all.

    A database with no collections is one to which nothing has been written yet. Raises pymongo's errors.
    """
    try:
        names = documents.database.list_collection_names(filter={"name": {"$not": re.compile("^system[.]")}})
    except mongo.OperationFailure as error:
        if error.code in _AUTHENTICATION:
            raise
        return None  # it may not be asked for
    if not names or documents.name in names:
        return None
    near = difflib.get_close_matches(documents.name, names, 1, 0.5)
    seen = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(sorted(names)[:8])}."
    return f"the database {documents.database.name!r} has no collection {documents.name!r}. {seen}"


@contextlib.contextmanager
def translated(settings: Settings, stream: Stream) -> Iterator[None]:
    """Turn pymongo's errors inside the block into errors of the hub, saying what to do."""
    try:
        yield
    except mongo.PyMongoError as error:
        raise explain(error, settings, stream) from error


def explain(error: mongo.PyMongoError, settings: Settings, stream: Stream) -> HubError:
    """The hub's error for one of pymongo."""
    place, text = where(settings, stream), " ".join(str(error).split(", full error:")[0].split())
    if isinstance(error, mongo.OperationFailure):
        if error.code in _AUTHENTICATION:
            return DeniedError(f"{place} refused the user or the password. Correct MONGO_URI.")
        if error.code in _UNAUTHORIZED:
            return DeniedError(f"{place}: the user lacks a permission ({text}). Grant it the role `read`.")
        if isinstance(error, mongo.CursorNotFound):
            return UnavailableError(
                f"{place} expired the cursor in the middle of reading. Nothing was changed; try again."
            )
        if isinstance(error, mongo.ExecutionTimeout):
            return UnavailableError(f"{place} took too long ({text}). Nothing was changed; try again.")
        return HubError(f"{place} refused the query ({text}).")
    if isinstance(error, mongo.ConnectionFailure):
        return UnavailableError(
            f"{place} cannot be reached or went away ({text.split(', Timeout:')[0]})."
            " Nothing was changed; check that it runs and that MONGO_URI names it."
        )
    return HubError(f"{place}: {type(error).__name__}: {text}")
