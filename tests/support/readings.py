"""Raw BSON by hand, and what a database of readings holds: for the tests of the loader."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.objectid import ObjectId

from hub.loading.load import _LOAD_LOCK
from hub.loading.report import LoadReport
from hub.settings import Settings, load_settings
from hub.timescale.connection import Connection, connect
from hub.timescale.schema import upgrade

DAY = dt.date(2026, 3, 5)
NEXT = DAY + dt.timedelta(days=1)
NOON = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)
ID = ObjectId("69a96e400000000000000001")

_NUMBERS = itertools.count(1)
_STANDARD: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


def encode(document: Mapping[str, Any]) -> bytes:
    """BSON with UUIDs as MongoDB's drivers write them today."""
    return bson.encode(document, codec_options=_STANDARD)


def reading(identifier: Any = ID, time: Any = NOON, **fields: Any) -> bytes:
    """A usual document, with other or additional fields."""
    usual = {"_id": identifier, "timestamp": time, "source": "kobo", "event_type": "page", "payload": {"value": 2.5}}
    return encode(usual | fields)


def without(*names: str, **fields: Any) -> bytes:
    """A usual document without some of its fields."""
    document = bson.decode(reading(**fields), _STANDARD)
    return encode({name: value for name, value in document.items() if name not in names})


def element(kind: int, name: bytes, value: bytes) -> bytes:
    """One BSON element, as wrong as one likes."""
    return bytes([kind]) + name + b"\0" + value


def document(*elements: bytes) -> bytes:
    """A BSON document of elements, repeated ones too."""
    body = b"".join(elements) + b"\0"
    return struct.pack("<i", len(body) + 4) + body


def text(value: bytes) -> bytes:
    """The value of a BSON string, valid UTF-8 or not."""
    return struct.pack("<i", len(value) + 1) + value + b"\0"


def extended(raw: bytes, *elements: bytes) -> bytes:
    """A document with elements added at its end."""
    return document(raw[4:-1], *elements)


def ids(count: int, time: dt.datetime = NOON) -> list[ObjectId]:
    """Different ObjectIds made at `time`, in order."""
    stamp = ObjectId.from_datetime(time).binary[:4]
    return [ObjectId(stamp + number.to_bytes(8, "big")) for number in range(1, count + 1)]


def readings(count: int, time: dt.datetime = NOON, **fields: Any) -> list[bytes]:
    """Documents a second apart."""
    return [
        reading(identifier, time + dt.timedelta(seconds=number), **fields)
        for number, identifier in enumerate(ids(count, time))
    ]


def everything(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, with the transaction that wrote each, once no load is under way any more."""
    with connect(settings) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOAD_LOCK,))
        return {
            table: sorted(connection.execute(f"SELECT xmin::text, * FROM {table}").fetchall(), key=repr)  # type: ignore[arg-type]
            for table in _tables(connection)
        }


def _tables(connection: Connection) -> list[str]:
    found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [table for (table,) in found]


def rows(connection: Connection) -> list[tuple[Any, ...]]:
    """The readings without the time of their load, by id."""
    return connection.execute(
        "SELECT mongo_id, event_timestamp, source, event_type, value, payload, meta"
        " FROM reading_analytics ORDER BY mongo_id, event_timestamp"
    ).fetchall()


def rejects(connection: Connection) -> list[tuple[Any, ...]]:
    """The dead letters: id, reason, day, raw BSON, by id."""
    return connection.execute(
        "SELECT mongo_id, reason, event_day, raw FROM reading_rejects ORDER BY mongo_id"
    ).fetchall()


def dirty(connection: Connection) -> set[dt.datetime]:
    """The hours that the next refresh recomputes."""
    found = connection.execute("SELECT bucket FROM rollup_dirty WHERE rollup = 'reading_hourly'")
    return {bucket for (bucket,) in found}


def balanced(report: LoadReport) -> bool:
    """Whether every document that was read is accounted for."""
    days = all(day.read == day.loaded + day.rejected for day in report.days)
    read = sum(day.read for day in report.days)
    return days and report.documents == read + report.undated + report.elsewhere + report.repeated


def empty(connection: Connection) -> None:
    """Remove what loads have written, so that tests can share a database."""
    for table in set(_tables(connection)) - {"alembic_version", "rollup_state"}:
        connection.execute(f"DELETE FROM {table}")  # type: ignore[arg-type]


@contextlib.contextmanager
def database(postgres: Mapping[str, str], **given: Any) -> Iterator[Settings]:
    """Settings for an upgraded database that exists for the block: for tests that share one."""
    name = f"shared_{os.getpid()}_{next(_NUMBERS)}"
    servers = {key.lower(): value for key, value in postgres.items()}
    defaults = {
        "mongo_uri": "mongodb://127.0.0.1:1/",
        "db_name": name,
        "reading_compress_after_days": 36_500,  # no background job may rewrite what a test looks at
        "_env_file": None,
    }
    settings = load_settings(**(defaults | servers | given))

    def admin(statement: str) -> None:
        with connect(settings, database="postgres", autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    admin(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        upgrade(settings)
        yield settings
    finally:
        admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
