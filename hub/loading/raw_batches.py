"""pymongo's cursor of raw batches, without the Python object that it makes of every document meanwhile.

To find the batch in a reply, pymongo 4.20 wraps each document in a RawBSONDocument, and throws them away.
Here the batch is cut out of the reply before pymongo looks at it. If a later pymongo no longer asks
`_unpack_response`, or a reply is built in another way, everything is as pymongo does it: right, and slower.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

from pymongo.cursor import RawBatchCursor

_ARRAY, _DOCUMENT = 4, 3
_FIXED = {1: 8, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8}
_PREFIXED = {2: 4, _DOCUMENT: 0, _ARRAY: 0, 5: 5}
_unsigned = struct.Struct("<I").unpack_from
_EMPTY = b"\5\0\0\0\0"


class RawBatches(RawBatchCursor[Any]):
    """A `find` whose items are batches of concatenated raw documents."""

    def _unpack_response(self, response: Any, *args: Any, **kwargs: Any) -> Any:
        whole = getattr(response, "payload_document", None)
        cut = cut_out(bytes(whole)) if whole is not None else None
        if cut is None:
            return super()._unpack_response(response, *args, **kwargs)
        name, batch, response.payload_document = cut
        replies: Any = super()._unpack_response(response, *args, **kwargs)
        if batch:
            replies[0]["cursor"][name] = [batch]
        return replies


def cut_out(reply: bytes) -> tuple[str, bytes, bytes] | None:
    """The name of the batch in a reply, its documents, and the reply with an empty batch.

    None where the reply is no batch of documents, or not understood.
    """
    try:
        cursor = _value(reply, 0, "cursor", _DOCUMENT)
        for name in ("nextBatch", "firstBatch"):
            batch = _value(reply, cursor[0], name, _ARRAY) if cursor else None
            if cursor and batch:
                small = _document(reply[cursor[0] + 4 : batch[0]] + _EMPTY + reply[batch[1] : cursor[1] - 1])
                rest = _document(reply[4 : cursor[0]] + small + reply[cursor[1] : -1])
                return name, _documents(reply, *batch), rest
    except (LookupError, ValueError, struct.error):
        pass
    return None


def _value(raw: bytes, start: int, name: str, kind: int) -> tuple[int, int] | None:
    """Where the value of this name and type begins and ends in the document at `start`."""
    position, end = start + 4, start + _int32(raw, start) - 1
    while position < end:
        found, value = raw[position], raw.index(0, position + 1, end) + 1
        stop = value + (_FIXED[found] if found in _FIXED else _int32(raw, value) + _PREFIXED[found])
        if stop > end or stop < value:
            raise ValueError(f"an element ends at {stop}, its document at {end}")
        if raw[position + 1 : value - 1] == name.encode():
            return (value, stop) if found == kind else None
        position = stop
    return None


def _documents(raw: bytes, start: int, end: int) -> bytes:
    """The documents of the array raw[start:end], concatenated. Raises ValueError if anything else is in it."""
    documents = []
    position, last = start + 4, end - 1
    for name_length in _name_lengths():
        if position >= last:
            break
        value = position + name_length + 2
        stop = value + _unsigned(raw, value)[0]
        if raw[position] != _DOCUMENT or raw[value - 1] or stop < value + 5 or stop > last:
            raise ValueError(f"the element at {position} of the batch is no document")
        documents.append(raw[value:stop])
        position = stop
    if position != last:
        raise ValueError("the batch has no end")
    return b"".join(documents)


def _name_lengths() -> Iterator[int]:
    """Digits of 0, 1, 2 and so on, the names of an array's elements."""
    for digits in itertools.count(1):
        yield from itertools.repeat(digits, 10**digits - (10 ** (digits - 1) if digits > 1 else 0))


def _document(elements: bytes) -> bytes:
    return (len(elements) + 5).to_bytes(4, "little") + elements + b"\0"


def _int32(raw: bytes, position: int) -> int:
    return int.from_bytes(raw[position : position + 4], "little", signed=True)
