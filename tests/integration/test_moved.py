"""A document is one row, wherever its time goes and whoever wrote its old row; on level 1 in the columnstore too."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from bson.objectid import ObjectId

from hub.loading.load import load
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.timescale.connection import Connection, parameters
from hub.timescale.level import detect
from tests.support.mongo_wire import WireServer

FIRST = dt.date(2026, 3, 2)
DAYS = 12
_DAY = dt.timedelta(days=1)


def at(day: int, second: int = 0) -> dt.datetime:
    return dt.datetime.combine(FIRST, dt.time(), dt.UTC) + day * _DAY + dt.timedelta(seconds=second)


def document(identifier: Any, time: dt.datetime) -> dict[str, Any]:
    return {"_id": identifier, "timestamp": time, "source": "s", "payload": {"value": 1.0}}


@pytest.fixture
def days(settings: Settings) -> Callable[..., Any]:
    """Load so many days from this one on."""

    def run(day: int, count: int = 1) -> Any:
        start = FIRST + day * _DAY
        return load(settings, reading_of(settings), start, start + count * _DAY)

    return run


def compress(connection: Connection, day: int | None = None) -> None:
    """Put the chunks, or that of a day, into the columnstore, where there is one."""
    if not detect(connection).continuous_aggregates:
        return
    start, end = (at(-1000), at(1000)) if day is None else (at(day), at(day + 1))
    connection.execute(
        "SELECT compress_chunk(chunk, true) FROM show_chunks('reading_analytics', older_than => %s, newer_than => %s) AS chunk",
        (end, start),
    )


def rows(connection: Connection) -> dict[str, dt.datetime]:
    """The row of each document; fails where one has two."""
    found = connection.execute("SELECT mongo_id, event_timestamp FROM reading_analytics").fetchall()
    assert [name for name, count in Counter(name for name, _ in found).items() if count > 1] == []
    return dict(found)


def insert(connection: psycopg.Connection[Any], identifier: str, time: dt.datetime) -> None:
    """By somebody who is not the loader."""
    connection.execute(
        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type) VALUES (%s, %s, 's', 'read')",
        (identifier, time),
    )


def _identifier(number: int, chance: random.Random) -> Any:
    made = ObjectId(f"{1_750_000_000 + chance.randrange(20_000_000):08x}{chance.getrandbits(64):016x}")
    kinds = (made, str(uuid.UUID(int=chance.getrandbits(128))), number, f"device-{number}", "ü" * 60 + str(number), "")
    return kinds[number % 5] if number else kinds[5]


@pytest.mark.parametrize("seed", range(4))
def test_a_document_is_never_two_rows(
    seed: int, settings: Settings, days: Callable[..., Any], wire: WireServer, connection: Connection
) -> None:
    chance = random.Random(seed)
    wire.documents += [
        document(_identifier(number, chance), at(chance.randrange(DAYS), chance.randrange(86_400)))
        for number in range(120)
    ]
    for _ in range(30):
        for place in chance.sample(range(len(wire.documents)), chance.choice((0, 1, 3, 40))):
            moved = dict(wire.documents[place])  # type: ignore[call-overload]
            wire.documents[place] = moved | {"timestamp": at(chance.randrange(DAYS), chance.randrange(86_400))}
        if chance.random() < 0.4:
            compress(connection, chance.choice((None, chance.randrange(DAYS))))
        first = chance.randrange(DAYS)
        days(first, chance.choice((1, 1, 1, DAYS - first)))
        rows(connection)
    days(0, DAYS)
    times = sorted(each["timestamp"] for each in wire.documents)  # type: ignore[index]
    assert sorted(rows(connection).values()) == times
    books = connection.execute("SELECT sum(loaded), min(least(read, loaded, rejected)) FROM reading_days").fetchone()
    assert books == (len(wire.documents), 0)


def test_a_row_that_somebody_else_has_written_goes_too(
    days: Callable[..., Any], wire: WireServer, connection: Connection
) -> None:
    wire.documents += [document(ObjectId(), at(day)) for day in range(4)]
    days(0, 4)
    compress(connection)
    strange, late = ObjectId("000000000000000000000001"), ObjectId()
    wire.documents += [document(late, at(3, 5))]
    assert days(3).inserted == 1  # now there are notes of the days before
    insert(connection, str(strange), at(1, 7))
    compress(connection)
    wire.documents += [document(strange, at(3, 9))]
    assert (days(3).moved, rows(connection)[str(strange)]) == (1, at(3, 9))


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_row_that_nobody_could_see_yet_when_notes_were_made_goes_too(
    isolation: str, settings: Settings, days: Callable[..., Any], wire: WireServer, connection: Connection
) -> None:
    wire.documents += [document(ObjectId(), at(day)) for day in range(4)]
    days(0, 4)
    strange, early = ObjectId("000000000000000000000001"), ObjectId("000000000000000000000002")
    with psycopg.connect(**parameters(settings), autocommit=True) as other:
        other.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        other.execute("SELECT count(*) FROM reading_days")  # its snapshot is older than all that follows
        wire.documents += [document(ObjectId(), at(3, 5))]
        assert days(3).inserted == 1
        insert(other, str(strange), at(1, 7))
        wire.documents += [document(ObjectId(), at(3, 6))]
        assert days(3).inserted == 1  # does not wait for the open transaction
        other.execute("COMMIT")
    wire.documents += [document(strange, at(3, 9))]
    assert (days(3).moved, len(rows(connection))) == (1, 7)
    insert(connection, str(early), at(2, 7))
    wire.documents += [document(early, at(3, 10))]
    assert (days(3).moved, len(rows(connection))) == (1, 8)


def test_what_is_deleted_compressed_anew_or_dropped_misleads_nobody(
    days: Callable[..., Any], wire: WireServer, connection: Connection
) -> None:
    first = [document(ObjectId(), at(day, second)) for day in range(4) for second in range(3)]
    wire.documents += first
    days(0, 4)
    compress(connection)
    wire.documents += [document(ObjectId(), at(3, 50))]
    days(3)
    with contextlib.suppress(psycopg.errors.UndefinedFunction):
        connection.execute("SELECT drop_chunks('reading_analytics', older_than => %s)", (at(1),))
    connection.execute("DELETE FROM reading_analytics WHERE event_timestamp < %s", (at(1),))
    wire.documents[0] = first[0] | {"timestamp": at(3, 60)}
    assert (days(3).moved, rows(connection)[str(first[0]["_id"])]) == (0, at(3, 60))
    wire.documents[0] = first[0]
    assert days(0).moved == 1
    assert days(3).changed == 0
    assert len(rows(connection)) == 13


def test_books_never_go_below_zero_in_whatever_order_the_days_of_a_move_are_loaded(
    days: Callable[..., Any], wire: WireServer, connection: Connection
) -> None:
    first = document(ObjectId(), at(0))
    wire.documents += [first]
    days(0)
    wire.documents[0] = first | {"timestamp": at(1)}
    days(0)
    days(1)
    assert connection.execute("SELECT day, read, loaded, rejected FROM reading_days ORDER BY day").fetchall() == [
        (FIRST, 0, 0, 0),
        (FIRST + _DAY, 1, 1, 0),
    ]
    wire.documents[0] = first
    days(0)
    assert connection.execute("SELECT read, loaded FROM reading_days ORDER BY day").fetchall() == [(1, 1), (0, 0)]
