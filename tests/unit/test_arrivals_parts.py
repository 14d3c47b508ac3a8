"""The sensor's decision: the watermark moves only behind runs that succeeded, and nothing is asked for too often."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from bson.objectid import ObjectId

from hub.arrivals.look import Arrivals, Cursor, Decision, Pending, RunState, decide, ranges

NOW = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


def oid(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


def day(number: int) -> dt.date:
    return dt.date(2026, 3, number)


class Source:
    """What `decide` asks: arrivals by what they came after, and the states of runs."""

    def __init__(self, until: int = 0, *days: int) -> None:
        self.found = Arrivals(oid(until), frozenset(map(day, days)), len(days))
        self.states: dict[str, RunState] = {}
        self.asked_after: list[ObjectId] = []

    def look(self, after: ObjectId) -> Arrivals:
        self.asked_after.append(after)
        return self.found

    def arrive(self, until: int, *days: int) -> None:
        self.found = Arrivals(oid(until), frozenset(map(day, days)), len(days))

    def decide(self, cursor: Cursor, now: dt.datetime = NOW) -> Decision:
        return decide(cursor, now, self.states.__getitem__, self.look)

    def end(self, decision: Decision, state: RunState) -> None:
        self.states |= dict.fromkeys(decision.requests, state)


def test_nothing_new_asks_for_nothing_and_moves_on() -> None:
    decision = Source(until=7).decide(Cursor(oid(5)))
    assert decision.requests == {}
    assert decision.cursor == Cursor(oid(7))
    assert decision.reason


def test_new_readings_ask_for_exactly_their_days_and_the_watermark_stays() -> None:
    decision = Source(7, 1, 2, 3, 9).decide(Cursor(oid(5)))
    assert sorted(decision.requests.values()) == [(day(1), day(3)), (day(9), day(9))]
    assert decision.cursor.done == oid(5)
    assert decision.cursor.pending is not None
    assert decision.cursor.pending.until == oid(7)


def test_while_a_run_is_under_way_nothing_is_looked_for() -> None:
    source = Source(7, 1, 9)
    first = source.decide(Cursor(oid(5)))
    source.states |= dict(zip(first.requests, (RunState.SUCCEEDED, RunState.UNDERWAY), strict=True))
    second = source.decide(first.cursor)
    assert (second.requests, second.cursor) == ({}, first.cursor)
    assert len(source.asked_after) == 1


def test_the_watermark_moves_when_every_run_has_succeeded() -> None:
    source = Source(7, 1, 9)
    first = source.decide(Cursor(oid(5)))
    source.end(first, RunState.SUCCEEDED)
    source.arrive(7)
    second = source.decide(first.cursor)
    assert source.asked_after == [oid(5), oid(7)]
    assert (second.cursor.done, second.cursor.pending) == (oid(7), None)


def test_after_a_success_the_next_readings_are_asked_for_at_once() -> None:
    source = Source(7, 1)
    first = source.decide(Cursor(oid(5)))
    source.end(first, RunState.SUCCEEDED)
    source.arrive(9, 2)
    second = source.decide(first.cursor)
    assert list(second.requests.values()) == [(day(2), day(2))]
    assert second.cursor.done == oid(7)


@pytest.mark.parametrize("others", [RunState.SUCCEEDED, RunState.FAILED])
def test_a_failed_run_keeps_the_watermark_and_asks_for_the_same_days_later(others: RunState) -> None:
    source = Source(7, 1, 9)
    first = source.decide(Cursor(oid(5)))
    source.states |= dict(zip(first.requests, (RunState.FAILED, others), strict=True))
    second = source.decide(first.cursor)
    assert (second.requests, second.cursor.done, second.cursor.failures) == ({}, oid(5), 1)
    early = source.decide(second.cursor, NOW + MINUTE - dt.timedelta(seconds=1))
    assert (early.requests, early.cursor) == ({}, second.cursor)
    again = source.decide(second.cursor, NOW + MINUTE)
    assert sorted(again.requests.values()) == sorted(first.requests.values())
    assert again.requests.keys().isdisjoint(first.requests)


def test_the_pause_doubles_up_to_an_hour_and_ends_with_a_success() -> None:
    source, cursor, now, pauses = Source(7, 1), Cursor(oid(5)), NOW, []
    for _ in range(9):
        asked = source.decide(cursor, now)
        source.end(asked, RunState.FAILED)
        failed = source.decide(asked.cursor, now)
        assert failed.cursor.not_before is not None
        pauses.append((failed.cursor.not_before - now) / MINUTE)
        cursor, now = failed.cursor, failed.cursor.not_before
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    asked = source.decide(cursor, now)
    source.end(asked, RunState.SUCCEEDED)
    source.arrive(7)
    done = source.decide(asked.cursor, now)
    assert (done.cursor.done, done.cursor.failures, done.cursor.not_before) == (oid(7), 0, None)


def test_readings_that_are_loaded_by_other_means_during_the_pause_are_not_asked_for() -> None:
    source = Source(7, 1)
    cursor = Cursor(oid(5), failures=2, not_before=NOW - MINUTE)
    source.arrive(7)
    decision = source.decide(cursor)
    assert (decision.requests, decision.cursor.done, decision.cursor.failures) == ({}, oid(7), 0)


def test_the_watermark_never_goes_back() -> None:
    source = Source(3)
    assert source.decide(Cursor(oid(5))).cursor.done == oid(5)
    source.arrive(3, 1)
    late = source.decide(Cursor(oid(5)))
    source.end(late, RunState.SUCCEEDED)
    source.arrive(3)
    assert source.decide(late.cursor).cursor.done == oid(5)


def test_a_late_reading_of_a_day_just_loaded_is_asked_for_under_a_key_of_its_own() -> None:
    source = Source(7, 1)
    first = source.decide(Cursor(oid(5)))
    source.end(first, RunState.SUCCEEDED)
    source.arrive(6, 1)  # an id made before the watermark, for the same day
    second = source.decide(first.cursor)
    assert list(second.requests.values()) == [(day(1), day(1))]
    assert second.requests.keys().isdisjoint(first.requests)  # Dagster runs a key once, for ever


def test_no_run_key_ever_comes_twice() -> None:
    source, cursor, now, keys = Source(7, 1, 9), Cursor(oid(5)), NOW, list[str]()
    for state in (RunState.FAILED, RunState.SUCCEEDED, RunState.FAILED, RunState.FAILED, RunState.SUCCEEDED) * 3:
        decision = source.decide(Cursor.from_json(cursor.to_json()), now)
        now += dt.timedelta(hours=2)
        keys += decision.requests
        source.end(decision, state)
        cursor = decision.cursor
    assert len(keys) > 12
    assert len(keys) == len(set(keys))


def test_the_same_look_asks_under_the_same_key_so_that_a_repeated_tick_launches_nothing_twice() -> None:
    make: Callable[[], Decision] = lambda: Source(7, 1, 2, 9).decide(Cursor(oid(5)))  # noqa: E731
    assert make() == make()


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([], ()),
        ([3], ((3, 3),)),
        ([3, 1, 2, 2], ((1, 3),)),
        ([5, 1, 3], ((1, 1), (3, 3), (5, 5))),
        ([9, 1, 2, 8, 10], ((1, 2), (8, 10))),
    ],
)
def test_days_become_ranges(days: list[int], expected: tuple[tuple[int, int], ...]) -> None:
    assert ranges(map(day, days)) == tuple((day(first), day(last)) for first, last in expected)


def test_ranges_go_on_over_the_end_of_a_month() -> None:
    assert ranges([dt.date(2026, 3, 1), dt.date(2026, 2, 28)]) == ((dt.date(2026, 2, 28), dt.date(2026, 3, 1)),)


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor(),
        Cursor(oid(5)),
        Cursor(oid(5), Pending(oid(7), ((day(1), day(2)), (day(9), day(9))), 3), 2, asked=4),
        Cursor(oid(5), None, 3, NOW, 7),
    ],
)
def test_a_cursor_survives_its_text(cursor: Cursor) -> None:
    assert Cursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize(
    "text",
    [None, "", "{}", "5", "[]", "nonsense", '{"done": "x"}', '{"pending": {"until": 5}}', '{"failures": "many"}'],
)
def test_an_unreadable_cursor_begins_at_the_beginning(text: str | None) -> None:
    assert Cursor.from_json(text) == Cursor()


def test_a_cursor_of_the_version_before_is_understood() -> None:
    assert Cursor.from_json(f'{{"done": "{oid(5)}", "pending": null, "failures": 1, "not_before": null}}') == Cursor(
        oid(5), failures=1
    )
