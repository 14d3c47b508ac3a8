"""Loading a window: idempotent, lossless, in one transaction."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bson
import pytest

from hub.arrivals import ledger
from hub.errors import RefusedError
from hub.loading import load as loader
from hub.loading import staging
from hub.loading.checks import books, raw_totals, rollup_totals
from hub.loading.load import load
from hub.rollups.declared import READING_HOURLY, ROLLUPS
from hub.rollups.refresh import refresh
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.streams.model import Mode
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect
from tests.support.mongo_wire import CommandError, Faults, WireServer, matches
from tests.support.readings import (
    DAY,
    ID,
    NEXT,
    NOON,
    balanced,
    database,
    dirty,
    element,
    empty,
    everything,
    extended,
    ids,
    reading,
    readings,
    rejects,
    rows,
    text,
    without,
)

LATER = NOON + dt.timedelta(days=1)
OVERMORROW = NEXT + dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[tuple[WireServer, Settings, Connection]]:
    with (
        WireServer() as wire,
        database(postgres, mongo_uri=wire.uri) as settings,
        connect(settings, autocommit=True) as connection,
    ):
        yield wire, settings, connection


@pytest.fixture
def wire(shared: tuple[WireServer, Settings, Connection]) -> WireServer:
    """The module's source, empty and well."""
    server = shared[0]
    server.documents.clear()
    server.requests.clear()
    server.faults, server.on_batch, server.matcher, server.handlers = Faults(), None, matches, {}
    return server


@pytest.fixture
def settings(shared: tuple[WireServer, Settings, Connection]) -> Settings:
    """The module's database, empty."""
    _, made, connection = shared
    empty(connection)
    if detect(connection).continuous_aggregates:
        refresh_all(connection, rebuild=(NOON - dt.timedelta(days=3), NOON + dt.timedelta(days=3)))
    return made


@pytest.fixture
def connection(shared: tuple[WireServer, Settings, Connection]) -> Connection:
    return shared[2]


def refresh_all(connection: Connection, rebuild: tuple[dt.datetime, dt.datetime] | None = None) -> None:
    for rollup in ROLLUPS:
        children = [child for child in ROLLUPS if child.parent == rollup]
        refresh(connection, rollup, children, rebuild=rebuild)


def hourly(connection: Connection) -> dict[dt.datetime, int]:
    """Events by hour, as the refreshed rollup has them."""
    return dict(connection.execute("SELECT bucket, sum(events) FROM reading_hourly GROUP BY 1").fetchall())


def rolled_up_right(connection: Connection) -> bool:
    """Whether both rollups add up to the raw rows on each of the days around."""
    return all(
        raw_totals(connection, day, day + dt.timedelta(days=1)).matches(
            rollup_totals(connection, rollup, day, day + dt.timedelta(days=1))
        )
        for rollup in ROLLUPS
        for day in (DAY - dt.timedelta(days=1), DAY, NEXT, OVERMORROW)
    )


# ------------------------------------------------------------------- the same again


@pytest.mark.parametrize("thorough", [False, True])
def test_a_day_loads_and_loading_it_again_changes_nothing(settings: Settings, wire: WireServer, thorough: bool) -> None:
    wire.documents += [*readings(5), reading("no time", time=None)]
    first = load(settings, reading_of(settings), DAY, NEXT)
    assert (first.loaded, first.inserted, first.rejected, first.path) == (5, 5, 1, "copy")
    before = everything(settings)
    again = load(settings, reading_of(settings), DAY, NEXT, thorough=thorough)
    assert (again.loaded, again.rejected, again.changed) == (5, 1, 0)
    assert again.path == ("merge" if thorough else "digest")
    assert everything(settings) == before


def test_a_changed_payload_changes_its_row_and_its_hour_alone(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading("a"), reading("b"), reading("c", NOON + HOUR)]
    load(settings, reading_of(settings), DAY, NEXT)
    refresh_all(connection)
    before = dict(connection.execute("SELECT mongo_id, xmin::text FROM reading_analytics").fetchall())
    wire.documents[1] = reading("b", payload={"value": 9.5, "note": "changed"})
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.inserted, report.updated, report.changed) == (0, 1, 1)
    after = dict(connection.execute("SELECT mongo_id, xmin::text FROM reading_analytics").fetchall())
    assert {name for name in after if after[name] != before[name]} == {"b"}
    assert rows(connection)[1][4:6] == (9.5, {"value": 9.5, "note": "changed"})
    assert dirty(connection) == {NOON}
    refresh_all(connection)
    assert rolled_up_right(connection)


@pytest.mark.parametrize(
    "change",
    [{"source": "tolino"}, {"event_type": "open"}, {"payload": {"value": None}}, {"meta": {"a": 1}}, {"status": 1}],
)
def test_a_change_of_any_field_is_noticed(
    settings: Settings, wire: WireServer, connection: Connection, change: dict[str, Any]
) -> None:
    wire.documents += [reading()]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [reading(**change)]
    assert load(settings, reading_of(settings), DAY, NEXT).updated == 1
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0


def test_a_late_reading_is_added_to_a_loaded_day(settings: Settings, wire: WireServer, connection: Connection) -> None:
    wire.documents += readings(3)
    load(settings, reading_of(settings), DAY, NEXT)
    refresh_all(connection)
    wire.documents.append(reading("late", NOON - HOUR))
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.loaded, report.inserted, report.changed) == (4, 1, 1)
    assert dirty(connection) == {NOON - HOUR}


def test_a_day_without_documents_is_on_the_books_as_empty(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.documents, report.changed) == (0, 0)
    before = everything(settings)
    assert [(day.day, day.read, day.rows) for day in books(connection, DAY, NEXT)] == [(DAY, 0, 0)]
    load(settings, reading_of(settings), DAY, NEXT)
    assert everything(settings) == before


def test_a_range_of_days_is_counted_day_by_day(settings: Settings, wire: WireServer, connection: Connection) -> None:
    wire.documents += [
        reading("first"), reading("iso", time="2026-03-07T00:30:00+02:00"), reading("bad", payload="\0"),
        reading("last", LATER + dt.timedelta(days=1)), reading("outside", NOON - dt.timedelta(days=1)),
        reading("no time", time=None),
    ]  # fmt: skip
    report = load(settings, reading_of(settings), DAY, DAY + dt.timedelta(days=4))
    assert [(day.read, day.loaded, day.rejected) for day in report.days] == [(2, 1, 1), (1, 1, 0), (1, 1, 0), (0, 0, 0)]
    assert (report.undated, report.documents) == (1, 5)
    assert balanced(report)
    booked = books(connection, DAY, DAY + dt.timedelta(days=4))
    assert [(day.read, day.loaded, day.rejected) for day in booked] == [(2, 1, 1), (1, 1, 0), (1, 1, 0), (0, 0, 0)]
    assert all(day.balanced for day in booked)


def wait_for_a_waiting_load(connection: Connection) -> None:
    """Return as soon as one load waits for another; fail after two minutes."""
    waiting = (
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    deadline = time.monotonic() + 120
    while connection.execute(waiting).fetchone() is None:
        assert time.monotonic() < deadline, "no load waits"


@pytest.mark.parametrize("second", [(DAY, NEXT), (NEXT, OVERMORROW), (DAY, OVERMORROW)], ids=["same", "next", "both"])
def test_two_loads_at_once_wait_for_each_other_and_store_everything_once(
    settings: Settings, wire: WireServer, connection: Connection, second: tuple[dt.date, dt.date]
) -> None:
    wire.documents += [*readings(2500), *readings(10, LATER), reading("no time", time=None)]
    wire.faults = faults = Faults(stall_after_batches=2)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(load, settings, reading_of(settings), DAY, OVERMORROW)
        assert faults.stalled.wait(120)  # the first load is in the middle of its COPY
        finds = wire.commands.count("find")
        other = pool.submit(load, settings, reading_of(settings), *second)
        try:
            wait_for_a_waiting_load(connection)
            assert wire.commands.count("find") == finds  # the second has read nothing yet that could be outdated
        finally:
            faults.release.set()
        reports = [one.result(300), other.result(300)]
    assert [report.changed for report in reports] == [2511, 0]
    assert len(rows(connection)) == 2510
    assert len(rejects(connection)) == 1


def test_a_document_that_moved_away_and_back_is_loaded_again_though_the_day_reads_as_before(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading("mover"), reading("stays")]
    load(settings, reading_of(settings), DAY, NEXT)
    before = rows(connection)
    wire.documents[0] = reading("mover", LATER)
    load(settings, reading_of(settings), NEXT, OVERMORROW)
    wire.documents[0] = reading("mover")
    assert load(settings, reading_of(settings), DAY, NEXT).moved == 1
    assert rows(connection) == before
    assert load(settings, reading_of(settings), NEXT, OVERMORROW).changed == 0
    assert rows(connection) == before


def test_a_row_deleted_by_hand_comes_back_though_the_day_reads_as_before(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading("a"), reading("b", payload="\0")]
    load(settings, reading_of(settings), DAY, NEXT)
    before = rows(connection), rejects(connection)
    for table in ("reading_analytics", "reading_rejects"):
        connection.execute(f"DELETE FROM {table}")  # type: ignore[call-overload]
        assert load(settings, reading_of(settings), DAY, NEXT).changed == 1
        assert (rows(connection), rejects(connection)) == before


def test_a_value_changed_by_hand_is_set_right_by_a_thorough_load(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += readings(2)
    load(settings, reading_of(settings), DAY, NEXT)
    before = rows(connection)
    connection.execute("UPDATE reading_analytics SET value = value + 1")
    assert load(settings, reading_of(settings), DAY, NEXT, thorough=True).updated == 2
    assert rows(connection) == before


def test_the_books_of_a_day_follow_the_documents_however_the_day_was_loaded(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += readings(3)
    load(settings, reading_of(settings), DAY, OVERMORROW)
    gone = wire.documents.pop()
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents.append(gone)
    load(settings, reading_of(settings), DAY, OVERMORROW)
    assert [(day.read, day.loaded, day.rows) for day in books(connection, DAY, NEXT)] == [(3, 3, 3)]


def test_a_dead_letter_that_another_load_replaced_comes_back_with_its_document(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    bad, banana = reading("bad", payload="\0"), reading("banana", time="2026-03-07 banana")
    wire.documents += [bad]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [reading("bad", NOON + dt.timedelta(days=2)), banana]
    load(settings, reading_of(settings), OVERMORROW, OVERMORROW + dt.timedelta(days=1))
    assert [letter[0] for letter in rejects(connection)] == ["banana"]
    wire.documents[:] = [bad, banana]
    load(settings, reading_of(settings), DAY, NEXT)
    assert [letter[0] for letter in rejects(connection)] == ["bad", "banana"]


def test_a_window_is_read_anew_when_the_settings_make_other_rows_of_it(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading(payload={"value": 1, "pages": 7})]
    load(settings, reading_of(settings), DAY, NEXT)
    other = settings.model_copy(update={"reading_value_path": "payload.pages"})
    assert load(other, reading_of(other), DAY, NEXT).updated == 1
    assert [row[4] for row in rows(connection)] == [7.0]


# ------------------------------------------------------------------- documents that leave


def test_a_row_stays_when_its_document_leaves_mongodb(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += readings(3)
    load(settings, reading_of(settings), DAY, NEXT)
    before = rows(connection)
    del wire.documents[1]
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0
    assert rows(connection) == before
    (day,) = books(connection, DAY, NEXT)
    assert (day.read, day.loaded, day.rows, day.balanced) == (2, 2, 3, True)


def test_mirror_deletes_the_rows_of_documents_that_left(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [*readings(9), reading("gone", NOON + HOUR), *readings(1, LATER)]
    load(settings, reading_of(settings), DAY, OVERMORROW)
    refresh_all(connection)
    del wire.documents[9:]  # the next day's too, which is not asked for
    report = load(settings, reading_of(settings), DAY, NEXT, mode=Mode.MIRROR)
    assert (report.deleted, report.changed) == (1, 1)
    assert "gone" not in [row[0] for row in rows(connection)]
    assert len(rows(connection)) == 10
    assert dirty(connection) == {NOON + HOUR}
    refresh_all(connection)
    assert rolled_up_right(connection)


def test_mirror_refuses_to_delete_more_than_its_share_of_any_one_day(settings: Settings, wire: WireServer) -> None:
    wire.documents += [*readings(100), *readings(4, LATER), reading("changed", payload={"value": 1})]
    load(settings, reading_of(settings), DAY, OVERMORROW)
    before = everything(settings)
    del wire.documents[101]
    wire.documents[-1] = reading("changed", payload={"value": 2})
    with pytest.raises(RefusedError) as refused:
        load(settings, reading_of(settings), DAY, OVERMORROW, mode=Mode.MIRROR)
    for said in ("delete 1 of the 4 rows", str(NEXT), "20%", "max_delete_share", "Nothing was changed"):
        assert said in str(refused.value)
    assert not refused.value.retryable
    assert everything(settings) == before
    assert load(settings, reading_of(settings), DAY, OVERMORROW, mode=Mode.MIRROR, max_delete_share=0.25).deleted == 1


def test_mirror_refuses_an_empty_source_and_does_as_told_when_told(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += readings(3)
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents.clear()
    with pytest.raises(RefusedError, match="3 of the 3 rows of 2026-03-05"):
        load(settings, reading_of(settings), DAY, NEXT, mode=Mode.MIRROR)
    assert load(settings, reading_of(settings), DAY, NEXT, mode=Mode.MIRROR, max_delete_share=1.0).deleted == 3
    assert rows(connection) == []


def test_mirror_of_an_unchanged_day_changes_nothing(settings: Settings, wire: WireServer) -> None:
    wire.documents += readings(3)
    load(settings, reading_of(settings), DAY, NEXT, mode=Mode.MIRROR)
    before = everything(settings)
    assert load(settings, reading_of(settings), DAY, NEXT, mode=Mode.MIRROR, max_delete_share=0).changed == 0
    assert everything(settings) == before


# ------------------------------------------------------------------- documents that move


@pytest.mark.parametrize("crowd", [0, 3], ids=["to an empty day", "to a day with rows"])
def test_a_document_that_moves_to_another_day_takes_its_row_with_it(
    settings: Settings, wire: WireServer, connection: Connection, crowd: int
) -> None:
    wire.documents += [reading("mover"), reading("stays"), *readings(crowd, LATER + HOUR)]
    load(settings, reading_of(settings), DAY, NEXT)
    if crowd:
        load(settings, reading_of(settings), NEXT, OVERMORROW)
    refresh_all(connection)
    wire.documents[0] = reading("mover", LATER)
    report = load(settings, reading_of(settings), NEXT, OVERMORROW)
    assert (report.loaded, report.moved, report.inserted) == (crowd + 1, 1, 0)
    assert [row[1] for row in rows(connection) if row[0] == "mover"] == [LATER]
    assert dirty(connection) == {NOON, LATER}
    refresh_all(connection)
    assert hourly(connection) == {NOON: 1, LATER: 1} | ({LATER + HOUR: crowd} if crowd else {})
    assert rolled_up_right(connection)
    assert load(settings, reading_of(settings), DAY, OVERMORROW).changed == 0


def test_a_document_that_moves_within_its_day_leaves_no_second_row(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading("mover")]
    load(settings, reading_of(settings), DAY, NEXT)
    refresh_all(connection)
    wire.documents[:] = [reading("mover", NOON + HOUR)]
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.moved, report.inserted, report.updated) == (1, 0, 0)
    refresh_all(connection)
    assert hourly(connection) == {NOON + HOUR: 1}


def test_a_document_that_moved_back_is_where_it_was(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading("mover"), reading("stays")]
    load(settings, reading_of(settings), DAY, NEXT)
    before = rows(connection)
    wire.documents[0] = reading("mover", LATER)
    load(settings, reading_of(settings), DAY, OVERMORROW)
    wire.documents[0] = reading("mover")
    load(settings, reading_of(settings), DAY, OVERMORROW)
    refresh_all(connection)
    assert rows(connection) == before
    assert rolled_up_right(connection)


# ------------------------------------------------------------------- a scan that repeats itself


@pytest.mark.parametrize("loaded_before", [False, True], ids=["empty day", "loaded day"])
@pytest.mark.parametrize(
    ("early", "late"),
    [
        (reading(), reading(payload={"value": 7})),
        (reading(), reading(time=NOON + HOUR, payload={"value": 7})),
        (reading(), reading(time="2026-03-05T13:00:00Z", payload={"value": 7})),
    ],
    ids=["changed", "moved", "now a string"],
)
def test_of_a_document_that_the_scan_returns_twice_the_later_copy_counts(
    settings: Settings, wire: WireServer, connection: Connection, early: bytes, late: bytes, loaded_before: bool
) -> None:
    if loaded_before:
        wire.documents += [early]
        load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [early, reading("other"), late]
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.documents, report.loaded, report.repeated) == (3, 2, 1)
    assert balanced(report)
    assert len(rows(connection)) == 2
    assert rows(connection)[0][5] == {"value": 7}
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0


def test_a_document_that_moves_out_of_the_day_during_the_scan_has_one_row_in_the_end(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading(), reading(time="2026-03-06T00:00:00Z")]
    assert balanced(load(settings, reading_of(settings), DAY, NEXT))
    wire.documents[:] = [reading(time=LATER)]
    load(settings, reading_of(settings), NEXT, OVERMORROW)
    assert [row[1] for row in rows(connection)] == [LATER]


def test_a_server_that_lacks_the_operators_of_the_narrow_queries_is_read_whole(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [
        *readings(3),
        reading("iso", time="2026-03-05T01:00:00Z"),
        reading("x", time=5),
        reading("y", LATER),
    ]
    expected = load(settings, reading_of(settings), DAY, NEXT)
    before = rows(connection), rejects(connection)
    empty(connection)

    def simple(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
        if "$not" in str(query):
            raise CommandError(2, "BadValue", "unknown operator: $not")
        return matches(document, query)

    wire.matcher = simple
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.loaded, report.rejected, report.elsewhere) == (expected.loaded, expected.rejected, 1)
    assert (rows(connection), rejects(connection)) == before


# ------------------------------------------------------------------- dead letters


def test_a_dead_letter_goes_when_its_document_is_well_again(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading(payload="\0"), reading("other", time=None)]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [reading(), reading("other", time=None)]
    assert load(settings, reading_of(settings), DAY, NEXT).rejects_changed == 1
    assert [letter[0] for letter in rejects(connection)] == ["other"]


def test_a_dead_letter_of_an_undecodable_document_goes_too_whatever_its_id(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    some = [ID, "text", 5, bson.Int64(2**40), 1.5, True, NOON, bson.binary.Binary(b"12"), bson.Decimal128("1.5")]
    wire.documents += [extended(reading(one), element(2, b"note", text(b"\xff"))) for one in some]
    assert load(settings, reading_of(settings), DAY, NEXT).rejected == len(some)
    wire.documents[:] = map(reading, some)
    assert load(settings, reading_of(settings), DAY, NEXT).loaded == len(some)
    assert rejects(connection) == []


def test_a_dead_letter_follows_its_document_when_that_changes(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading(time="soon")]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [reading(time="later")]
    assert load(settings, reading_of(settings), DAY, NEXT).rejects_changed == 1
    assert [letter[3] for letter in rejects(connection)] == wire.documents
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0


@pytest.mark.parametrize(
    "bad", [reading(payload="\0"), reading(time="soon"), reading(time=LATER, payload="\0"), without("timestamp")]
)
def test_a_document_that_went_bad_is_a_dead_letter_and_no_row_any_more(
    settings: Settings, wire: WireServer, connection: Connection, bad: bytes
) -> None:
    """What it says now is in the dead letter; the hour that it leaves is rolled up without it."""
    wire.documents += [reading(), reading("other")]
    load(settings, reading_of(settings), DAY, NEXT)
    refresh_all(connection)
    wire.documents[:] = [bad, reading("other")]
    report = load(settings, reading_of(settings), DAY, OVERMORROW)
    assert [row[0] for row in rows(connection)] == ["other"]
    assert [letter[3] for letter in rejects(connection)] == [bad]
    assert report.deleted == 1
    assert all(day.balanced for day in books(connection, DAY, OVERMORROW))
    refresh_all(connection)
    assert hourly(connection) == {NOON: 1}
    wire.documents[:] = [reading(), reading("other")]
    load(settings, reading_of(settings), DAY, OVERMORROW)
    assert (len(rows(connection)), rejects(connection)) == (2, [])


def test_a_dead_letter_of_no_day_buries_its_row_whatever_day_is_loaded(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading()]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [reading(time="soon")]
    far = DAY - dt.timedelta(days=90)
    assert load(settings, reading_of(settings), far, far + dt.timedelta(days=1)).deleted == 1
    assert rows(connection) == []
    (day,) = books(connection, DAY, NEXT)
    assert (day.read, day.loaded, day.balanced) == (0, 0, True)
    assert dirty(connection) >= {NOON}


def test_the_dead_letter_of_a_document_that_went_bad_outlives_the_document(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading()]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [bad] = [reading(payload="\0")]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents.clear()  # a TTL index does that
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0
    assert [letter[3] for letter in rejects(connection)] == [bad]


def test_the_dead_letter_of_a_document_that_went_bad_on_another_day_stays_when_its_old_day_is_loaded(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    wire.documents += [reading()]
    load(settings, reading_of(settings), DAY, NEXT)
    wire.documents[:] = [bad] = [reading(time=LATER, payload="\0")]
    load(settings, reading_of(settings), NEXT, OVERMORROW)
    load(settings, reading_of(settings), DAY, NEXT)
    assert [letter[3] for letter in rejects(connection)] == [bad]


def test_dead_letters_too_many_for_memory_are_written_in_between(
    settings: Settings, wire: WireServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_REJECT_BYTES", 1000)
    bad = [reading(identifier, payload="\0" * 100) for identifier in ids(4100, NOON - HOUR)]
    wire.documents += [*bad, *readings(10)]
    report = load(settings, reading_of(settings), DAY, NEXT)
    assert (report.loaded, report.rejected) == (10, 4100)
    assert sorted(letter[3] for letter in rejects(connection)) == sorted(bad)
    assert load(settings, reading_of(settings), DAY, NEXT).changed == 0


def test_a_first_load_marks_every_bucket_of_a_rollup_finer_than_an_hour(
    settings: Settings, wire: WireServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarters = dataclasses.replace(READING_HOURLY, name="reading_quarters", bucket="15 minutes")
    monkeypatch.setattr(loader, "ROLLUPS", (*ROLLUPS, quarters))
    minutes = (0, 14, 15, 44, 59)
    wire.documents += [reading(str(minute), time=NOON + dt.timedelta(minutes=minute)) for minute in minutes]
    assert load(settings, reading_of(settings), DAY, NEXT).path == "copy"
    marks = connection.execute("SELECT rollup, bucket FROM rollup_dirty WHERE rollup <> 'reading_daily'").fetchall()
    assert sorted(marks) == [
        ("reading_hourly", NOON),
        *(("reading_quarters", NOON + dt.timedelta(minutes=minute)) for minute in (0, 15, 30, 45)),
    ]


def test_progress_is_told_while_documents_come(settings: Settings, wire: WireServer) -> None:
    wire.documents += readings(4500)
    told: list[int] = []
    load(settings, reading_of(settings), DAY, NEXT, progress=told.append)
    assert len(told) >= 3
    assert told == sorted(told)
    assert told[-1] == 4500


def test_days_older_than_what_is_kept_are_left_out_and_hold_up_nothing(
    settings: Settings, wire: WireServer, connection: Connection
) -> None:
    today = dt.datetime.now(dt.UTC).date()
    kept, old = today - dt.timedelta(days=10), today - dt.timedelta(days=200)
    wire.documents += [
        {"_id": number, "timestamp": dt.datetime.combine(day, dt.time(9), dt.UTC)}
        for number, day in enumerate((old, kept))
    ]
    limited = settings.model_copy(update={"reading_retention_days": 90})
    stream = reading_of(limited)
    report = load(limited, stream, old, today)
    assert (report.inserted, len(report.days)) == (1, 89)
    assert report.not_kept == 200 - 89
    assert load(limited, stream, old, old + dt.timedelta(days=5)).not_kept == 5
    assert connection.execute("SELECT mongo_id FROM reading_analytics").fetchall() == [("1",)]
    found = ledger.update(limited, stream)
    assert (found.complete, found.expired) == (True, 1)
