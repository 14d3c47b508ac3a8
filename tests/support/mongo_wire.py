"""A scriptable MongoDB wire-protocol server for tests and benchmarks (standard library and `bson` only).

It serves raw BSON byte for byte to the real `pymongo.MongoClient` (invalid UTF-8, duplicate keys and other
things an embedded server cannot hold), replays pre-joined batches faster than a client can read them, and
misbehaves on request (`Faults`).  `WireServer` serves from threads, `WireServer.in_process` from a process of
its own.  It listens on the loopback interface, holds one collection and imitates a standalone server; what it
does not support it refuses with an error rather than answer wrongly.  For comparisons dates are decoded as
`DatetimeMS` (any date fits), invalid UTF-8 is replaced, and the first of duplicate keys counts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import operator
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bson
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.dbref import DBRef

Document = bytes | Mapping[str, Any]
MAX_BATCH_BYTES = 16 * 1024 * 1024
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_REPLAY = 1 << 40  # replay cursors keep no state: their identifier is this plus the next batch's number


class CommandError(Exception):
    """Makes a command fail; may be raised by the functions in `WireServer.handlers`, too."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.reply = {"ok": 0.0, "errmsg": message, "code": code, "codeName": name}


def _unsupported(what: str) -> CommandError:
    return CommandError(2, "BadValue", f"{what}: not supported by the test server")


class _Drop(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class Faults:
    """What goes wrong, and when.  Batches are counted over the whole server from when the faults were set."""

    close_after_batches: int | None = None  # instead of sending any further batch, close the socket
    cursor_not_found_after_batches: int | None = None  # any further getMore fails with code 43
    stall_after_batches: int | None = None  # any further batch waits for `release`
    stall_commands: Collection[str] = ()  # these commands wait for `release`
    refuse_commands: Collection[str] = ()  # these commands fail with code 13, Unauthorized
    refuse_authentication: bool = False  # saslStart fails with code 18, AuthenticationFailed
    times: int | None = None  # how often the first two happen (pymongo retries a find once); None: always
    release: threading.Event = field(default_factory=threading.Event)  # set by the test to end stalls
    stalled: threading.Event = field(default_factory=threading.Event)  # set by the server when it stalls


# ------------------------------------------------------------------- BSON: raw elements, ordering, matching


class _Doc(dict[str, Any]):
    """A decoded document that keeps the first of duplicate keys, as MongoDB's matcher does."""

    def __setitem__(self, key: str, value: Any) -> None:
        self.setdefault(key, value)


_DECODE: CodecOptions[Any] = CodecOptions(
    _Doc, datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler="replace"
)
_ENCODE: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
_NUMBER, _NAN = 2, (0, 0)
# fmt: off
_ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
          "$eq": operator.eq}
_SIZES = {1: 8, 6: 0, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8, 19: 16, 127: 0, 255: 0}
_EXTRA = {2: 4, 3: 0, 4: 0, 5: 5, 12: 16, 13: 4, 14: 4, 15: 0}  # beyond the value of the length prefix
_TYPES: tuple[tuple[type, str, int, int], ...] = (  # class, $type's alias and number, sort rank
    (MinKey, "minKey", -1, 0), (type(None), "null", 10, 1), (bool, "bool", 8, 8), (Int64, "long", 18, 2),
    (int, "int", 16, 2), (float, "double", 1, 2), (Decimal128, "decimal", 19, 2),
    (Code, "javascript", 13, 12), (str, "string", 2, 3), (dict, "object", 3, 4), (DBRef, "object", 3, 4),
    (list, "array", 4, 5), (bytes, "binData", 5, 6), (ObjectId, "objectId", 7, 7), (DatetimeMS, "date", 9, 9),
    (Timestamp, "timestamp", 17, 10), (Regex, "regex", 11, 11), (MaxKey, "maxKey", 127, 13),
)
# fmt: on


def raw_elements(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each top-level element, duplicates included; ValueError if malformed."""
    pos = 4
    try:
        while kind := raw[pos]:
            value = raw.index(0, pos + 1) + 1
            if kind in _SIZES:
                end = value + _SIZES[kind]
            elif kind == 11:
                end = raw.index(0, raw.index(0, value) + 1) + 1
            else:
                end = value + int.from_bytes(raw[value : value + 4], "little") + _EXTRA[kind]
            yield raw[pos + 1 : value - 1].decode("utf-8", "replace"), raw[pos:end]
            pos = end
    except LookupError as error:
        raise ValueError("malformed document") from error


def _document(elements: bytes) -> bytes:
    return struct.pack("<i", len(elements) + 5) + elements + b"\0"


def _raw(document: Document) -> bytes:
    return document if isinstance(document, bytes) else bson.encode(document, codec_options=_ENCODE)


def _raw_field(raw: bytes, name: str) -> bytes:
    """The first element of that name; empty where it is missing or the document is malformed."""
    with contextlib.suppress(ValueError):
        return next((element for key, element in raw_elements(raw) if key == name), b"")
    return b""


def _type(value: Any) -> tuple[str, int, int]:
    return next((entry[1:] for entry in _TYPES if isinstance(value, entry[0])), ("unknown", 0, 99))


def sort_key(value: Any) -> tuple[int, Any]:
    """A key that orders decoded values as MongoDB does: by type bracket first, NaN below all numbers."""
    rank = _type(value)[2]
    if rank == _NUMBER:
        number = value.to_decimal() if isinstance(value, Decimal128) else value
        return rank, _NAN if math.isnan(number) else (1, number)
    if rank in (3, 7, 8, 9, 10):  # string, ObjectId, bool, date, timestamp
        return rank, value
    return rank, bson.encode({"": value})  # good enough for equality of documents, arrays, binaries ...


def _compare(op: str, value: Any, operand: Any) -> bool:
    left, right = sort_key(value), sort_key(operand)
    if left[0] != right[0] or (left[0] == _NUMBER and (left[1] == _NAN) != (right[1] == _NAN)):
        return False
    return bool(_ORDER[op](left, right))


def _values(document: Any, path: str) -> list[Any]:
    """What a condition on a (dotted) path looks at, array elements included; empty where it is missing."""
    name, _, rest = path.partition(".")
    if not isinstance(document, dict) or name not in document:
        return []
    value = document[name]
    return _values(value, rest) if rest else [value, *value] if isinstance(value, list) else [value]


def _condition(values: list[Any], op: str, operand: Any, options: str = "") -> bool:
    if op in ("$ne", "$nin"):
        return not _condition(values, {"$ne": "$eq", "$nin": "$in"}[op], operand)
    if op == "$not":
        return not _field_matches(values, operand)
    if op == "$exists":
        return bool(values) == bool(operand)
    if op == "$in":
        return any(_condition(values, "$eq", item) for item in operand)
    if op == "$type":
        wanted = set(operand) if isinstance(operand, list) else {operand}
        return any(wanted & {*_type(v)[:2], "number" if _type(v)[2] == _NUMBER else ""} for v in values)
    if op == "$regex" or isinstance(operand, Regex):
        flags = re.RegexFlag(sum(re.RegexFlag[letter.upper()] for letter in set(options)))
        pattern = operand.try_compile() if isinstance(operand, Regex) else re.compile(operand, flags)
        return any(isinstance(value, str) and pattern.search(value) is not None for value in values)
    if op in _ORDER:
        return any(_compare(op, value, operand) for value in values or [None] * (operand is None))
    raise _unsupported(f"operator {op}")


def _field_matches(values: list[Any], wanted: Any) -> bool:
    if not isinstance(wanted, dict) or not any(key.startswith("$") for key in wanted):
        return _condition(values, "$eq", wanted)
    wanted = dict(wanted)
    options = wanted.pop("$options", "")
    return all(_condition(values, op, operand, options) for op, operand in wanted.items())


def matches(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Tell whether a decoded document matches a filter: the default matcher, a subset of MongoDB's."""
    for key, wanted in query.items():
        if key in ("$and", "$or", "$nor"):
            found = (all if key == "$and" else any)(matches(document, part) for part in wanted)
            if found == (key == "$nor"):
                return False
        elif key.startswith("$"):
            raise _unsupported(f"operator {key}")
        elif not _field_matches(_values(document, key), wanted):
            return False
    return True


def _plain(names: Iterable[str]) -> None:
    if any("." in name or name.startswith("$") for name in names):
        raise _unsupported("anything but top-level fields")


def _project(raw: bytes, projection: Mapping[str, Any]) -> bytes:
    """Keep or drop top-level fields, the elements' bytes unchanged; a malformed document is sent whole."""
    _plain(projection)
    if any(isinstance(value, dict | list | str) for value in projection.values()):
        raise _unsupported("projected expressions")
    flags = [bool(value) for name, value in projection.items() if name != "_id"]
    keep = {"_id": True} | {name: bool(value) for name, value in projection.items()}
    default = not (flags[0] if flags else projection["_id"])
    with contextlib.suppress(ValueError):
        return _document(b"".join(element for name, element in raw_elements(raw) if keep.get(name, default)))
    return raw


def _updated(raw: bytes, update: Any) -> bytes:
    """Apply $set and $unset of top-level fields, or a replacement; other fields' bytes stay as they are."""
    if isinstance(update, list) or any(key[0] == "$" and key not in ("$set", "$unset") for key in update):
        raise _unsupported("update operator")
    if not any(key in update for key in ("$set", "$unset")):
        rest = {name: value for name, value in update.items() if name != "_id"}
        return _document(_raw_field(raw, "_id") + bson.encode(rest)[4:-1])
    fields = dict(raw_elements(raw))
    for op, changes in update.items():
        _plain(changes)
        for name, value in changes.items():
            fields[name] = bson.encode({name: value})[4:-1] if op == "$set" else b""
    return _document(b"".join(fields.values()))


# ------------------------------------------------------------------- messages

_ARRAY_KEYS: list[bytes] = []


def _cursor_body(documents: Sequence[bytes], key: str, cursor_id: int, namespace: str) -> bytes:
    """The BSON of `{cursor: {<key>: [...], id, ns}, ok: 1}` around unchanged documents."""
    _ARRAY_KEYS.extend(b"\x03%d\0" % number for number in range(len(_ARRAY_KEYS), len(documents)))
    array = _document(b"".join(itertools.chain.from_iterable(zip(_ARRAY_KEYS, documents, strict=False))))
    rest = bson.encode({"id": Int64(cursor_id), "ns": namespace})[4:-1]
    cursor = _document(b"\x04" + key.encode() + b"\0" + array + rest)
    return _document(b"\x03cursor\0" + cursor + b"\x01ok\0" + struct.pack("<d", 1.0))


def _batch_end(documents: Sequence[bytes], start: int, count: int) -> int:
    """Where the batch that begins at `start` ends: `count` documents or 16 MB, but at least one document."""
    size, end = 0, start
    while end < len(documents) and end - start < count:
        size += len(documents[end])
        if size > MAX_BATCH_BYTES and end > start:
            break
        end += 1
    return end


def split_documents(data: bytes) -> list[bytes]:
    """Split concatenated BSON documents at their length prefixes."""
    documents, pos = [], 0
    while pos < len(data):
        end = pos + int.from_bytes(data[pos : pos + 4], "little")
        if not pos + 5 <= end <= len(data):
            raise ValueError(f"no BSON document at offset {pos}")
        documents.append(data[pos:end])
        pos = end
    return documents


def _read(sock: socket.socket, size: int) -> bytes:
    data, got = bytearray(size), 0
    while got < size:
        count = sock.recv_into(memoryview(data)[got:])
        if not count:
            raise _Drop
        got += count
    return bytes(data)


def _receive(sock: socket.socket) -> tuple[int, bool, bool, dict[str, Any]]:
    """Read one message; return its identifier, is it an OP_QUERY, does it want no reply, the command.

    The kind-1 sections (documents, updates, deletes) are put into the command as lists of raw documents.
    """
    length, identifier, _, op = struct.unpack("<iiii", _read(sock, 16))
    if op not in (_OP_MSG, _OP_QUERY) or not 21 <= length <= 64_000_000:
        raise _Drop
    data = _read(sock, length - 16)
    if op == _OP_QUERY:
        return identifier, True, False, bson.decode(data[data.index(0, 4) + 9 :], codec_options=_DECODE)
    flags, command, sections, pos = int.from_bytes(data[:4], "little"), _Doc(), {}, 4
    while pos < len(data) - 4 * (flags & 1):  # bit 0: the message ends in a checksum
        end = pos + 1 + int.from_bytes(data[pos + 1 : pos + 5], "little")
        if data[pos]:
            name, _, documents = data[pos + 5 : end].partition(b"\0")
            sections[name.decode()] = split_documents(documents)
        else:
            command = bson.decode(data[pos + 1 : end], codec_options=_DECODE)
        pos = end
    command.update(sections)
    return identifier, False, bool(flags & 2), command


def _send(sock: socket.socket, response_to: int, legacy: bool, body: bytes) -> None:
    prefix, op = (struct.pack("<iqii", 8, 0, 0, 1), _OP_REPLY) if legacy else (b"\0\0\0\0\0", _OP_MSG)
    sock.sendall(struct.pack("<iiii", 16 + len(prefix) + len(body), 0, response_to, op) + prefix)
    sock.sendall(body)  # apart: a big batch is not to be copied


# ------------------------------------------------------------------- the server

# fmt: off
_FIXED_REPLIES: dict[str, dict[str, Any]] = {
    "ping": {}, "endsessions": {},
    "buildinfo": {"version": "7.0.0", "versionArray": [7, 0, 0, 0], "bits": 64, "maxBsonObjectSize": 1 << 24},
    "hello": {"helloOk": True, "ismaster": True, "isWritablePrimary": True, "readOnly": False,
              "maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 48000000, "maxWriteBatchSize": 100000,
              "logicalSessionTimeoutMinutes": 30, "minWireVersion": 0, "maxWireVersion": 21},
    "connectionstatus": {"authInfo": {"authenticatedUsers": [], "authenticatedUserRoles": []}},
}
# fmt: on
_FIXED_REPLIES["ismaster"] = _FIXED_REPLIES["hello"]


def _resume_token(position: int) -> dict[str, str]:
    return {"_data": f"{position:016x}"}


def _is_date_range(query: Any) -> bool:
    """Whether the filter is a range of dates on one field."""
    conditions = list((query or {}).values())
    return (
        len(conditions) == 1
        and isinstance(conditions[0], Mapping)
        and isinstance(conditions[0].get("$gte"), DatetimeMS)
    )


class WireServer:
    """The server, in threads of this process.

    `matcher(document, filter)` replaces the default matcher; `handlers` maps command names to functions from
    the decoded command to the reply; `on_batch(n)` is called before the n-th batch (from 1, over the whole
    server) is sent.  A batch is the answer to a find or getMore; one-batch probes (`find_one`) do not count.
    With `replay` a find without a limit ignores its arguments and gets pre-joined batches of `replay_batch`
    documents, and writes are refused. With `replay="dates"` that holds for a range of dates only, and any
    other find gets nothing, as on a server whose times are all dates.
    With `change_streams` it imitates a replica set: writes that come by the wire are events, and streams resume after
    a token until `forget_changes`. `drop` drops the collection, which ends its streams.
    Authentication is refused, as by a server without users, except by the mechanism PLAIN (any password).
    """

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        database: str = "reading",
        collection: str = "events",
        faults: Faults | None = None,
        indexes: Iterable[Mapping[str, Any]] = (),
        matcher: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = matches,
        handlers: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] | None = None,
        on_batch: Callable[[int], None] | None = None,
        replay: bool | str = False,
        replay_batch: int = 5000,
        change_streams: bool = False,
    ) -> None:
        self.change_streams = change_streams
        self.events: list[dict[str, Any]] = []  # of the change stream, the first of them forgotten
        self._forgotten = 0
        self._watching: dict[int, int] = {}  # cursors of change streams, by the number of events that they have seen
        self._changed = threading.Condition()
        self.documents: list[Document] = [_raw(document) for document in documents]
        self.database, self.collection = database, collection
        self.indexes = [{"v": 2, "key": {"_id": 1}, "name": "_id_"}, *map(dict, indexes)]
        self.matcher, self.handlers, self.on_batch = matcher, dict(handlers or {}), on_batch
        self.commands: list[str] = []  # the names of the commands received, in order
        self.requests: list[Mapping[str, Any]] = []  # the commands themselves
        self.errors: list[Exception] = []  # unexpected exceptions, also of `on_batch` and `handlers`
        self.batches_sent = 0
        self.faults = faults or Faults()
        self._cursors: dict[int, tuple[Sequence[bytes], int]] = {}
        self._cursor_ids = itertools.count(1)
        self._lock, self._closing = threading.RLock(), threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._replay = self._joined(replay_batch) if replay else []
        self._replay_dates_only = replay == "dates"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.uri = f"mongodb://127.0.0.1:{self.port}/{database}?directConnection=true"
        self._acceptor = threading.Thread(target=self._accept, name="mongo-wire", daemon=True)

    @property
    def faults(self) -> Faults:
        """What goes wrong; assigning begins to count batches anew."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults, self._fault_base = faults, self.batches_sent

    @staticmethod
    def in_process(documents: str | os.PathLike[str] | Iterable[Document], **options: Any) -> WireProcess:
        """Serve from a process of its own: a file of concatenated BSON, or documents (passed by such a file).

        The options are database, collection, indexes, replay, replay_batch and faults that do not stall.
        """
        return WireProcess(documents, options)

    def __enter__(self) -> WireServer:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, close all connections and end the threads, within a second."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        deadline = time.monotonic() + 0.9
        for thread in [self._acceptor, *self.drop_connections()]:
            if thread.ident and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def drop_connections(self) -> list[threading.Thread]:
        """Close every open connection, as a restart would; return their threads."""
        with self._lock:
            for sock in self._connections:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            return list(self._connections.values())

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), name="mongo-wire", daemon=True)
            with self._lock:
                self._connections[sock] = thread
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._closing.is_set():
                identifier, legacy, silent, command = _receive(sock)
                reply = self._answer(next(iter(command)), command)
                if not silent:
                    _send(sock, identifier, legacy, _raw(reply))
        except (_Drop, OSError):
            pass
        except Exception as error:  # a message that cannot be read
            self.errors.append(error)
        finally:
            with self._lock:
                self._connections.pop(sock, None)
                sock.close()

    def _answer(self, name: str, command: dict[str, Any]) -> Document:
        self.requests.append(command)
        self.commands.append(name)
        faults = self.faults
        try:
            if name in faults.stall_commands:
                self._stall(faults)
            if name in faults.refuse_commands:
                raise CommandError(13, "Unauthorized", f"not authorized on {command.get('$db')}: {name}")
            handler = self.handlers.get(name) or getattr(self, "_do_" + name.lower(), None)
            reply = handler(command) if handler else _FIXED_REPLIES.get(name.lower())
            if self.change_streams and name.lower() in ("hello", "ismaster"):
                reply = {**_FIXED_REPLIES["hello"], "setName": "wire"}
            if reply is None:
                raise CommandError(59, "CommandNotFound", f"no such command: '{name}'")
            return reply if isinstance(reply, bytes) else {**reply, "ok": 1.0}
        except CommandError as error:
            return error.reply
        except _Drop:
            raise
        except Exception as error:
            self.errors.append(error)
            return CommandError(8, "UnknownError", f"test server: {error!r}").reply

    def _stall(self, faults: Faults) -> None:
        faults.stalled.set()
        while not faults.release.wait(0.05):
            if self._closing.is_set():
                raise _Drop

    def _before_batch(self, more: bool) -> None:
        """Call the hook, then let happen what is to happen instead of this batch; else count it."""
        if self.on_batch:
            self.on_batch(self.batches_sent + 1)
        faults = self.faults

        def due(after: int | None) -> bool:
            return after is not None and self.batches_sent - self._fault_base >= after

        if due(faults.stall_after_batches):
            self._stall(faults)
        with self._lock:
            close, lose = due(faults.close_after_batches), more and due(faults.cursor_not_found_after_batches)
            if (close or lose) and faults.times != 0:
                faults.times = faults.times and faults.times - 1
                raise _Drop if close else CommandError(43, "CursorNotFound", "cursor id not found")
            self.batches_sent += 1

    # --------------------------------------------------------------- reading

    def _joined(self, size: int) -> list[bytes]:
        raws, bodies, start = self._matching(None), list[bytes](), 0
        while start < len(raws) or not bodies:
            end = _batch_end(raws, start, size)
            following = _REPLAY + len(bodies) + 1 if end < len(raws) else 0
            key = "nextBatch" if bodies else "firstBatch"
            bodies.append(_cursor_body(raws[start:end], key, following, f"{self.database}.{self.collection}"))
            start = end
        return bodies

    def _matching(self, query: Mapping[str, Any] | None, raws: Iterable[bytes] | None = None) -> list[bytes]:
        raws = map(_raw, list(self.documents)) if raws is None else raws
        return [raw for raw in raws if not query or self._match(raw, query)]

    def _match(self, raw: bytes, query: Mapping[str, Any]) -> bool:
        try:
            document = bson.decode(raw, codec_options=_DECODE)
        except Exception:  # malformed: always matches, so that a test can serve it
            return True
        return bool(self.matcher(document, query))

    def _sorted(self, raws: list[bytes], order: Mapping[str, Any]) -> list[bytes]:
        if not order:
            return raws
        _plain(order)
        if len(order) > 1:
            raise _unsupported("sort by several fields")
        ((name, direction),) = order.items()

        def key(raw: bytes) -> tuple[int, Any]:
            return sort_key(bson.decode(_document(_raw_field(raw, name)), codec_options=_DECODE).get(name))

        return sorted(raws, key=key, reverse=direction < 0)

    def _here(self, command: Mapping[str, Any]) -> bool:
        return command.get("$db") == self.database and next(iter(command.values())) == self.collection

    def _batch(self, key: str, raws: Sequence[bytes], start: int, count: int, cursor_id: int) -> bytes:
        end = _batch_end(raws, start, count)
        with self._lock:
            self._cursors.pop(cursor_id, None)
            if end < len(raws):
                self._cursors[cursor_id] = raws, end
        namespace = f"{self.database}.{self.collection}"
        return _cursor_body(raws[start:end], key, cursor_id if end < len(raws) else 0, namespace)

    def _do_find(self, command: Mapping[str, Any]) -> bytes:
        if found := {"tailable", "min", "max", "collation", "returnKey", "showRecordId"} & set(command):
            raise _unsupported(f"find with {found}")
        single, limit = bool(command.get("singleBatch")), command.get("limit") or 0
        if not single:
            self._before_batch(more=False)
        if self._replay and not limit and self._here(command):
            if self._replay_dates_only and not _is_date_range(command.get("filter")):
                return self._batch("firstBatch", [], 0, 0, 0)
            return self._replay[0]
        raws = self._matching(command.get("filter")) if self._here(command) else []
        raws = self._sorted(raws, command.get("sort") or {})[command.get("skip") or 0 :]
        raws = raws[:limit] if limit else raws
        if projection := command.get("projection"):
            raws = [_project(raw, projection) for raw in raws]
        count = command.get("batchSize", 101)
        raws = raws[: _batch_end(raws, 0, count)] if single else raws
        return self._batch("firstBatch", raws, 0, count, next(self._cursor_ids))

    def _do_getmore(self, command: Mapping[str, Any]) -> bytes:
        cursor_id = command["getMore"]
        if cursor_id in self._watching:
            return self._more_changes(cursor_id, command)
        self._before_batch(more=True)
        if 0 < cursor_id - _REPLAY < len(self._replay):
            return self._replay[int(cursor_id) - _REPLAY]
        if cursor_id not in self._cursors:
            raise CommandError(43, "CursorNotFound", f"cursor id {cursor_id} not found")
        raws, start = self._cursors[cursor_id]
        return self._batch("nextBatch", raws, start, command.get("batchSize") or 1 << 31, cursor_id)

    # --------------------------------------------------------------- change streams

    def _happened(self, kind: str, raw: bytes | None) -> None:
        event: dict[str, Any] = {"operationType": kind, "ns": {"db": self.database, "coll": self.collection}}
        if raw is not None:
            identifier = bson.decode(_document(_raw_field(raw, "_id")), codec_options=_DECODE)
            event |= {"documentKey": identifier, "fullDocument": identifier}
        with self._changed:
            self.events.append({"_id": _resume_token(self._forgotten + len(self.events) + 1), **event})
            self._changed.notify_all()

    def forget_changes(self, unseen: int = 0) -> None:
        """What an oplog does in time: tokens from before are of no use any more; `unseen` events came and went meanwhile."""
        with self._changed:
            self._forgotten += len(self.events) + unseen
            self.events.clear()
            self._watching.clear()

    def drop(self) -> None:
        """Drop the collection."""
        with self._lock:
            self.documents.clear()
        self._happened("drop", None)
        self._happened("invalidate", None)

    def _watch(self, command: Mapping[str, Any], options: Mapping[str, Any]) -> bytes:
        if not self.change_streams:
            raise CommandError(40573, "Location40573", "The $changeStream stage is only supported on replica sets")
        seen = self._forgotten + len(self.events)
        if token := options.get("resumeAfter"):
            seen = int(token["_data"].rstrip("+"), 16)
            if seen < self._forgotten:
                raise CommandError(286, "ChangeStreamHistoryLost", "the resume point may no longer be in the oplog.")
            if any(event["operationType"] == "invalidate" and event["_id"] == token for event in self.events):
                raise CommandError(260, "InvalidResumeToken", "the resume token is from an invalidate event")
        cursor_id = next(self._cursor_ids)
        self._watching[cursor_id] = seen
        return self._changes_body("firstBatch", cursor_id, command.get("cursor", {}).get("batchSize") or 101)

    def _more_changes(self, cursor_id: int, command: Mapping[str, Any]) -> bytes:
        def ready() -> bool:
            return self._closing.is_set() or self._forgotten + len(self.events) > self._watching.get(cursor_id, -1)

        with self._changed:
            self._changed.wait_for(ready, min(command.get("maxTimeMS", 1000), 1000) / 1000)
        if cursor_id not in self._watching:
            raise CommandError(286, "ChangeStreamHistoryLost", "the resume point may no longer be in the oplog.")
        return self._changes_body("nextBatch", cursor_id, command.get("batchSize") or 101)

    def _changes_body(self, key: str, cursor_id: int, count: int) -> bytes:
        with self._changed:
            seen = self._watching[cursor_id]
            events = self.events[seen - self._forgotten :][:count]
            self._watching[cursor_id] = seen + len(events)
            ended = any(event["operationType"] == "invalidate" for event in events)
            if ended:
                del self._watching[cursor_id]
        cursor = {
            "id": Int64(0 if ended else cursor_id), "ns": f"{self.database}.{self.collection}", key: events,
            "postBatchResumeToken": {"_data": _resume_token(seen + len(events))["_data"] + "+"},  # no event's own
        }  # fmt: skip
        return bson.encode({"cursor": cursor, "ok": 1.0}, codec_options=_ENCODE)

    def _do_killcursors(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        for number in command["cursors"]:
            self._watching.pop(number, None)
        killed = [number for number in command["cursors"] if self._cursors.pop(number, None)]
        return {"cursorsKilled": killed, "cursorsNotFound": [], "cursorsAlive": [], "cursorsUnknown": []}

    def _do_count(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"n": len(self._matching(command.get("query"))) if self._here(command) else 0}

    def _do_aggregate(self, command: Mapping[str, Any]) -> bytes:
        if command["pipeline"] and "$changeStream" in command["pipeline"][0]:
            return self._watch(command, command["pipeline"][0]["$changeStream"])
        raws = self._matching(None) if self._here(command) else []
        for stage in command["pipeline"]:
            ((op, value),) = stage.items()
            if op == "$match":
                raws = self._matching(value, raws)
            elif op in ("$skip", "$limit"):
                raws = raws[value:] if op == "$skip" else raws[:value]
            elif stage == {"$group": {"_id": 1, "n": {"$sum": 1}}}:
                raws = [_raw({"_id": 1, "n": len(raws)})] if raws else []
            else:
                raise _unsupported(f"pipeline stage {stage}")
        return self._batch("firstBatch", raws, 0, 1 << 31, next(self._cursor_ids))

    def _listed(self, command: Mapping[str, Any], items: Iterable[Mapping[str, Any]], name: str) -> bytes:
        raws = self._matching(command.get("filter"), map(_raw, items))
        return _cursor_body(raws, "firstBatch", 0, f"{command.get('$db')}.{name}")

    def _do_listcollections(self, command: Mapping[str, Any]) -> bytes:
        one = {"name": self.collection, "type": "collection", "options": {}, "info": {"readOnly": False}}
        return self._listed(command, [one] * (command["$db"] == self.database), "$cmd.listCollections")

    def _do_listindexes(self, command: Mapping[str, Any]) -> bytes:
        if not self._here(command):
            raise CommandError(26, "NamespaceNotFound", "ns does not exist")
        return self._listed(command, self.indexes, self.collection)

    def _do_createindexes(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        self._changes({**command, "none": ()}, "none")
        before = len(self.indexes)
        names = {index["name"] for index in self.indexes}
        self.indexes += [{"v": 2, **index} for index in command["indexes"] if index["name"] not in names]
        return {"numIndexesBefore": before, "numIndexesAfter": len(self.indexes)}

    def _do_listdatabases(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        one = _raw({"name": self.database, "sizeOnDisk": sum(map(len, self._matching(None))), "empty": False})
        found = [bson.decode(raw) for raw in self._matching(command.get("filter"), [one])]
        return {"databases": found, "totalSize": sum(item["sizeOnDisk"] for item in found)}

    def _do_saslstart(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.faults.refuse_authentication or command["mechanism"] != "PLAIN":
            raise CommandError(18, "AuthenticationFailed", "Authentication failed.")
        return {"conversationId": 1, "done": True, "payload": b""}

    _do_saslcontinue = _do_saslstart  # never reached in good order: every conversation ends at its start

    # --------------------------------------------------------------- writing

    def _changes(self, command: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        if self._replay or not self._here(command):
            raise _unsupported("writing to another collection or to a replay")
        return [bson.decode(_raw(item), codec_options=_DECODE) for item in command[key]]

    def _places(self, change: Mapping[str, Any], every: bool) -> list[int]:
        places = [i for i, document in enumerate(self.documents) if self._match(_raw(document), change["q"])]
        return places if every else places[:1]

    def _do_insert(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        self._changes({**command, "none": ()}, "none")
        with self._lock:
            present = {_raw_field(_raw(document), "_id") for document in self.documents}
            for index, raw in enumerate(map(_raw, command["documents"])):
                if (identifier := _raw_field(raw, "_id")) in present:
                    error = {"index": index, "code": 11000, "errmsg": "E11000 duplicate key error: _id"}
                    return {"n": index, "writeErrors": [error]}  # as if always ordered
                present.add(identifier)
                self.documents.append(raw)
                self._happened("insert", raw)
        return {"n": len(command["documents"])}

    def _do_update(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        matched, modified, upserted = 0, 0, []
        with self._lock:
            for index, change in enumerate(self._changes(command, "updates")):
                places = self._places(change, change.get("multi", False))
                for place in places:
                    old = _raw(self.documents[place])
                    self.documents[place] = new = _updated(old, change["u"])
                    self._happened("update" if any(key[0] == "$" for key in change["u"]) else "replace", new)
                    matched, modified = matched + 1, modified + (old != new)
                if not places and change.get("upsert"):
                    start = {k: v for k, v in change["q"].items() if k[0] != "$" and not isinstance(v, dict)}
                    start = {"_id": change["u"].get("_id", start.get("_id", ObjectId()))} | start
                    self.documents.append(_updated(_raw(start), change["u"]))
                    self._happened("insert", _raw(self.documents[-1]))
                    upserted.append({"index": index, "_id": start["_id"]})
        reply = {"n": matched + len(upserted), "nModified": modified}
        return reply | ({"upserted": upserted} if upserted else {})

    def _do_delete(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        deleted = 0
        with self._lock:
            for change in self._changes(command, "deletes"):
                for place in reversed(self._places(change, not change["limit"])):
                    self._happened("delete", _raw(self.documents[place]))
                    del self.documents[place]
                    deleted += 1
        return {"n": deleted}


# ------------------------------------------------------------------- a process of its own


class WireProcess:
    """A `WireServer` in a process that ends with `close()` or with this process, however that ends."""

    def __init__(self, documents: str | os.PathLike[str] | Iterable[Document], options: Mapping[str, Any]) -> None:
        faults: Faults = options.get("faults") or Faults()
        if faults.stall_after_batches is not None or faults.stall_commands:
            raise ValueError("a server in a process of its own cannot stall: nothing could release it")
        plain = {name: value for name, value in vars(faults).items() if name not in ("release", "stalled")}
        plain["refuse_commands"] = list(faults.refuse_commands)
        server = {**options, "faults": plain, "indexes": list(options.get("indexes", ()))}
        with tempfile.NamedTemporaryFile(prefix="mongo-wire-", suffix=".bson") as copy:
            if isinstance(documents, str | os.PathLike):
                path = os.fspath(documents)
            else:
                path = copy.name
                copy.writelines(map(_raw, documents))
                copy.flush()
            config = json.dumps({"path": path, "parent": os.getpid(), "options": server})
            command = [sys.executable, "-P", str(Path(__file__).resolve())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.pid, self._stdin, self._stdout = self._process.pid, self._process.stdin, self._process.stdout
            assert self._stdin is not None
            assert self._stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self._stdin.write(config.encode() + b"\n")
                self._stdin.flush()
            self.uri = self._stdout.readline().decode().strip()  # comes once everything is read and joined
        if not self.uri:
            self.close()
            raise RuntimeError("the wire server's process did not start; its error output tells why")

    def __enter__(self) -> WireProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process: it exits when its standard input ends."""
        for stream in filter(None, (self._stdin, self._stdout)):
            stream.close()
        try:
            self._process.wait(0.9)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _main() -> None:
    """Serve until standard input ends (the parent closed it or died) or the parent is another process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = json.loads(sys.stdin.buffer.readline())
    options = {**config["options"], "faults": Faults(**config["options"]["faults"])}
    with WireServer(split_documents(Path(config["path"]).read_bytes()), **options) as server:
        print(server.uri, flush=True)
        while os.getppid() == config["parent"]:
            if select.select([0], [], [], 0.5)[0] and not os.read(0, 1):
                break
        os._exit(0)


if __name__ == "__main__":
    _main()
