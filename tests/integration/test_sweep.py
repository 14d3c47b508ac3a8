"""Digests by day, and the sweep: changes that no stream told and no count shows cost their own days, and nothing else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hub.arrivals import ledger
from hub.loading.batch import offsets_of
from hub.loading.digests import UNDATED, Digests, day_of, days_of
from hub.loading.load import load
from hub.loading.model import Mapping
from hub.loading.sweep import SweepReport, sweep
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from hub.streams.model import Column
from hub.timescale.connection import Connection, connect
from tests.support.mongo_wire import WireServer
from tests.support.readings import (
    DAY,
    NEXT,
    NOON,
    database,
    element,
    empty,
    everything,
    extended,
    reading,
    readings,
    rows,
    text,
    without,
)

_DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
TODAY = NOW.date()


class Sweeper:
    def __init__(self, settings: Settings, wire: WireServer, connection: Connection) -> None:
        self.settings, self.wire, self.connection = settings, wire, connection
        self.stream = reading_of(settings)

    def put(self, *raws: bytes) -> None:
        self.wire.documents += raws

    def load(self, first: dt.date = DAY, end: dt.date = NEXT) -> Any:
        return load(self.settings, self.stream, first, end)

    def __call__(self, days: int | None = None) -> SweepReport:
        return sweep(self.settings, self.stream, days)

    def wanted(self) -> frozenset[dt.date]:
        return ledger.wanted(self.connection, self.stream, NOW)


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[Sweeper]:
    with (
        WireServer() as wire,
        database(postgres, mongo_uri=wire.uri) as settings,
        connect(settings, autocommit=True) as connection,
    ):
        yield Sweeper(settings, wire, connection)


@pytest.fixture
def sweeper(shared: Sweeper) -> Sweeper:
    empty(shared.connection)
    shared.wire.documents.clear()
    return shared


def test_a_sweep_in_which_nothing_changed_writes_nothing_but_that_it_was_made(sweeper: Sweeper) -> None:
    sweeper.put(*readings(20), *readings(5, NOON - 3 * _DAY), reading("soon", "soon"), reading("bad", payload="\0"))
    sweeper.load(DAY - 3 * _DAY)
    before = everything(sweeper.settings)
    found = sweeper()
    assert (found.documents, found.changed, found.undated_changed) == (27, (), False)
    after = everything(sweeper.settings)
    assert {name for name in after if after[name] != before[name]} == {"stream_state"}
    assert sweeper.wanted() == frozenset()


def test_the_order_of_a_scan_does_not_matter(sweeper: Sweeper) -> None:
    raws = [*readings(20), *readings(5, NOON - _DAY), reading("soon", "soon")]
    sweeper.put(*raws)
    sweeper.load(DAY - _DAY)
    random.Random(5).shuffle(sweeper.wire.documents)
    assert sweeper().changed == ()
    assert sweeper.load(DAY - _DAY).path == "digest"


def test_one_changed_document_costs_its_own_day(sweeper: Sweeper) -> None:
    for number in range(4):
        sweeper.put(*readings(5, NOON - number * _DAY))
    sweeper.load(DAY - 3 * _DAY)
    sweeper.connection.execute("DELETE FROM rollup_dirty")
    sweeper.wire.documents[7] = reading(
        bson.decode(bson.encode(bson.decode(sweeper.wire.documents[7])))["_id"], NOON - _DAY, payload={"value": 99.0}
    )
    found = sweeper()
    assert found.changed == (DAY - _DAY,)
    assert sweeper.wanted() == {DAY - _DAY}
    assert sweeper.load(DAY - _DAY, DAY).changed == 1
    assert sweeper().changed == ()
    assert sweeper.wanted() == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        lambda raws: raws.__setitem__(0, reading("a", source="other")),
        lambda raws: raws.append(reading("new")),
        lambda raws: raws.__setitem__(0, reading("a", NOON + dt.timedelta(seconds=1))),
        lambda raws: raws.pop(0),
    ],
    ids=["changed", "added", "moved within the day", "gone"],
)
def test_any_difference_is_found_once(sweeper: Sweeper, change: Any) -> None:
    sweeper.put(reading("a"), reading("b"))
    sweeper.load()
    change(sweeper.wire.documents)
    assert sweeper().changed == (DAY,)
    sweeper.load()
    assert sweeper().changed == ()


def test_documents_that_swap_their_values_are_found_though_the_sums_of_values_agree(sweeper: Sweeper) -> None:
    sweeper.put(reading("a", source="x"), reading("b", source="y"))
    sweeper.load()
    sweeper.wire.documents[:] = [reading("a", source="y"), reading("b", source="x")]
    assert sweeper().changed == (DAY,)


def test_a_document_that_moves_to_another_day_changes_both(sweeper: Sweeper) -> None:
    sweeper.put(reading("a"), reading("b"), reading("c", NOON + _DAY))
    sweeper.load(DAY, NEXT + _DAY)
    sweeper.wire.documents[0] = reading("a", NOON + _DAY)
    assert sweeper().changed == (DAY, NEXT)
    sweeper.load(NEXT, NEXT + _DAY)
    sweeper.load()
    assert sweeper().changed == ()
    assert [row[0] for row in rows(sweeper.connection)] == ["a", "b", "c"]


def test_an_undated_document_that_changes_is_found_and_read_by_any_load(sweeper: Sweeper) -> None:
    sweeper.put(reading("a"), reading("soon", "soon"))
    sweeper.load()
    sweeper.wire.documents[1] = reading("soon", "sooner")
    found = sweeper()
    assert (found.changed, found.undated_changed) == ((), True)
    assert sweeper.wanted() == {TODAY}
    sweeper.load(DAY - 9 * _DAY, DAY - 8 * _DAY)
    assert not sweeper().undated_changed
    assert sweeper.wanted() == frozenset()


def test_an_undated_document_that_is_mended_becomes_a_row_and_no_dead_letter(sweeper: Sweeper) -> None:
    sweeper.put(reading("a", "soon"))
    sweeper.load()
    sweeper.wire.documents[:] = [reading("a")]
    assert sweeper().changed == (DAY,)
    sweeper.load()
    assert [row[0] for row in rows(sweeper.connection)] == ["a"]
    count = sweeper.connection.execute("SELECT count(*) FROM reading_rejects").fetchone()
    assert count == (0,)
    assert (sweeper().changed, sweeper().undated_changed) == ((), False)


def test_the_nightly_sweep_looks_at_the_last_days_and_at_what_has_none(sweeper: Sweeper) -> None:
    recent = dt.datetime.combine(TODAY - 3 * _DAY, dt.time(12), dt.UTC)
    sweeper.put(reading("old"), reading("recent", recent))
    assert sweeper(30).changed == (recent.date(),)
    state = sweeper.connection.execute("SELECT recent_sweep_at IS NOT NULL, full_sweep_at FROM stream_state").fetchone()
    assert state == (True, None)
    assert sweeper().changed == (DAY, recent.date())


def test_days_loaded_before_there_were_digests_are_read_once_more(sweeper: Sweeper) -> None:
    sweeper.put(reading("a"))
    sweeper.load()
    sweeper.connection.execute("UPDATE reading_days SET digest = NULL, present = NULL")
    assert sweeper().changed == (DAY,)
    assert sweeper.load().changed == 0
    assert sweeper().changed == ()


def test_settings_that_make_other_rows_make_every_day_differ(sweeper: Sweeper) -> None:
    sweeper.put(reading("a"), reading("b", NOON - _DAY))
    sweeper.load(DAY - _DAY)
    other = dataclasses.replace(sweeper.stream, measures=(Column("value", "payload.pages"),))
    assert sweep(sweeper.settings, other).changed == (DAY - _DAY, DAY)


def test_a_day_is_whole_once_it_was_read_after_its_end(sweeper: Sweeper) -> None:
    now = dt.datetime.now(dt.UTC)
    sweeper.put(reading("a"), reading("now", now))
    sweeper.load(DAY, NEXT)
    sweeper.load(now.date(), now.date() + _DAY)
    found = dict(sweeper.connection.execute("SELECT day, whole FROM reading_days").fetchall())
    assert found == {DAY: True, now.date(): False}
    sweeper.connection.execute("UPDATE reading_days SET whole = false WHERE day = %s", (DAY,))
    assert sweeper.load().path == "digest"  # read again after its end, with nothing changed
    assert sweeper.connection.execute("SELECT whole FROM reading_days WHERE day = %s", (DAY,)).fetchone() == (True,)


# --- Which day a document belongs to ------------------------------------------------------------------------


def mapping_of(settings: Settings) -> Mapping:
    return Mapping.of(reading_of(settings), NOW)


ODD = [
    reading(1, None),
    reading(2, "soon"),
    reading(3, "2026-03-05T23:30:00-01:00"),
    reading(4, [NOON]),
    reading(5, dt.datetime(1990, 1, 1, tzinfo=dt.UTC)),
    reading(6, NOW + 9 * _DAY),
    without("timestamp", identifier=7),
    without("timestamp", identifier=8, extracted_at=NOON),
    extended(reading(9), element(2, b"note", text(b"\xff\xfe"))),
    extended(without("timestamp", identifier=10), element(9, b"timestamp", bytes(8))),
    reading(11, "2026-03-05T10:00:60Z"),
    reading(12, NOON, payload="\0"),
    without("_id"),
    bson.encode({}),
]


@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(st.sampled_from(ODD), st.integers(0, 9).map(lambda n: reading(n, NOON - n * _DAY))), max_size=60)
)
def test_many_at_once_belong_where_each_belongs_alone(sweeper: Sweeper, raws: list[bytes]) -> None:
    batch, mapping = b"".join(raws), mapping_of(sweeper.settings)
    found = days_of(batch, offsets_of(batch), mapping).tolist() if raws else []
    assert found == [day_of(raw, mapping) for raw in raws]


def test_what_a_load_counts_and_what_a_digest_counts_is_one(sweeper: Sweeper) -> None:
    sweeper.put(*ODD, *readings(60))
    mapping = mapping_of(sweeper.settings)
    report = sweeper.load()
    digests = Digests(mapping)
    digests.add(b"".join(map(bytes, sweeper.wire.documents)))  # type: ignore[arg-type]
    (day,) = report.days
    assert digests.of(DAY).documents == day.read
    assert digests.days[UNDATED].documents == report.undated
    assert sweeper().changed == tuple(sorted({DAY, NEXT} - {DAY}))


LOOKS_RIGHT = [
    "2026-03-05T10:00:60Z", "2026-03-05 10:00 PM", "2026-02-30", "2026-02-30T10:00:00Z", "2026-03-05T25:00:00Z",
    "2026-03-05t10:00:00z", "2026-03-05T10:00:00z", " 2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z\n", "20260305T100000Z",
    "2026-W10-4", "2026-03-05T10:00:00,5Z", "2026-03-05T10:00:00.1234567Z", "2026-03-05T10:00:00+0100", "2026-03-05T10",
    "2026-03-05T10:00:00+24:00", "2024-02-29T10:00:00Z", "2026-03-5", [NOON], ["2026-03-05T10:00:00Z"], [], {"a": NOON},
]  # fmt: skip


@pytest.mark.parametrize("time", LOOKS_RIGHT, ids=repr)
@pytest.mark.parametrize("field", ["timestamp", "extracted_at"])
def test_a_time_that_only_looks_right_is_a_row_or_a_dead_letter_wherever_it_is_found(
    sweeper: Sweeper, time: Any, field: str
) -> None:
    """Loaded by its day, it is settled; loaded by any other, it is a dead letter or not theirs, but never asked for again."""
    raw = without("timestamp", identifier="odd", **{field: time})
    sweeper.put(raw)
    far = DAY - 200 * _DAY
    sweeper.load(far, far + _DAY)
    sweeper.load(DAY - _DAY, NEXT + _DAY)
    sweeper.load(dt.date(2024, 2, 29), dt.date(2024, 3, 1))
    ledger.update(sweeper.settings, sweeper.stream)
    assert sweeper.wanted() == frozenset()
    assert (sweeper().changed, sweeper().undated_changed) == ((), False)
    held = sweeper.connection.execute(
        "SELECT (SELECT count(*) FROM reading_analytics), (SELECT count(*) FROM reading_rejects)"
    ).fetchone()
    assert held in ((1, 0), (0, 1))
    assert sweeper.wire.errors == []


def test_no_document_is_found_by_two_queries_of_one_scan(sweeper: Sweeper) -> None:
    times = [*LOOKS_RIGHT, NOON, NOON.isoformat(), "2026-03-05", None, 5]
    sweeper.put(*(reading(number, time) for number, time in enumerate(times)))
    report = sweeper.load()
    assert (report.documents, report.repeated) == (len(times), 0)
