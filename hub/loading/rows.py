"""Rows as PostgreSQL's binary COPY format."""

from __future__ import annotations

import struct

from hub.loading.model import Row

COLUMNS = ("mongo_id", "event_timestamp", "source", "event_type", "value", "payload", "meta")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

# PostgreSQL counts time from 2000-01-01.
POSTGRES_EPOCH_US = 946_684_800_000_000

FIELD_COUNT = struct.pack("!h", len(COLUMNS))
NULL = b"\xff\xff\xff\xff"
length = struct.Struct("!i").pack
jsonb_length = struct.Struct("!iB").pack  # the length counts jsonb's version byte, which is 1
timestamp = struct.Struct("!iq").pack
double = struct.Struct("!id").pack
# The same fields, several at once: column count, an ObjectId's hexadecimal and the time; a number and jsonb's length.
row_start = struct.Struct("!hi24siq").pack
number_and_jsonb_length = struct.Struct("!idiB").pack


def text(value: str) -> bytes:
    """A text field."""
    data = value.encode()
    return length(len(data)) + data


def jsonb(value: bytes | None) -> bytes:
    """A jsonb field from JSON text."""
    return NULL if value is None else jsonb_length(len(value) + 1, 1) + value


def pack(row: Row) -> bytes:
    """One row of `COLUMNS`."""
    return b"".join(
        (
            FIELD_COUNT,
            text(row.mongo_id),
            timestamp(8, row.time - POSTGRES_EPOCH_US),
            text(row.source),
            text(row.event_type),
            NULL if row.value is None else double(8, row.value),
            jsonb(row.payload),
            jsonb(row.meta),
        )
    )
