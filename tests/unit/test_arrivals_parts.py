"""The sensor's decision: the mark moves only behind runs that succeeded, and nothing is asked for too often."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

import pytest
from bson.objectid import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from hub.arrivals.cursor import Cursor, Mark, Pending, few_ranges
from hub.arrivals.decide import Arrivals, Decision, RunState, decide

NOW = dt.datetime(2026, 3, 5, 12, 0, 0, 123456, tzinfo=dt.UTC)
KEPT = NOW.replace(microsecond=123000)
MINUTE = dt.timedelta(minutes=1)


def mark(number: int) -> Mark:
    return Mark(token={"_data": f"{number}"})


def day(number: int) -> dt.date:
    return dt.date(2026, 3, number)


class Source:
    """What `decide` asks: arrivals by what they came after, and the states of runs."""

    def __init__(self, until: int = 0, *days: int) -> None:
        self.states: dict[str, RunState] = {}
        self.asked_after: list[Mark] = []
        self.arrive(until, *days)

    def look(self, cursor: Cursor) -> Arrivals:
        self.asked_after.append(cursor.mark)
        return self.found

    def arrive(self, until: int, *days: int) -> None:
        self.found = Arrivals(mark(until), frozenset(map(day, days)), len(days))

    def decide(self, cursor: Cursor, now: dt.datetime = NOW, pause: dt.timedelta = MINUTE) -> Decision:
        return decide("reading", cursor, now, pause, self.states.__getitem__, self.look)

    def end(self, decision: Decision, state: RunState) -> None:
        self.states |= dict.fromkeys(decision.requests, state)


def test_nothing_new_asks_for_nothing_and_moves_on() -> None:
    decision = Source(7).decide(Cursor(mark(5)))
    assert decision.requests == {}
    assert decision.cursor.mark == mark(7)
    assert decision.reason


def test_new_documents_ask_for_exactly_their_days_and_the_mark_stays() -> None:
    decision = Source(7, 1, 2, 3, 9).decide(Cursor(mark(5)))
    assert sorted(decision.requests.values()) == [(day(1), day(3)), (day(9), day(9))]
    assert decision.cursor.mark == mark(5)
    assert decision.cursor.pending is not None
    assert decision.cursor.pending.mark == mark(7)


def test_while_a_run_is_under_way_nothing_is_looked_for() -> None:
    source = Source(7, 1, 9)
    first = source.decide(Cursor(mark(5)))
    source.states |= dict(zip(first.requests, (RunState.SUCCEEDED, RunState.UNDERWAY), strict=True))
    second = source.decide(first.cursor, NOW + 9 * MINUTE)
    assert (second.requests, second.cursor) == ({}, first.cursor)
    assert len(source.asked_after) == 1


def test_the_mark_moves_when_every_run_has_succeeded() -> None:
    source = Source(7, 1, 9)
    first = source.decide(Cursor(mark(5)))
    source.end(first, RunState.SUCCEEDED)
    source.arrive(7)
    second = source.decide(first.cursor, NOW + MINUTE)
    assert source.asked_after == [mark(5), mark(7)]
    assert (second.cursor.mark, second.cursor.pending) == (mark(7), None)


def test_while_documents_keep_coming_runs_are_asked_for_once_in_a_pause() -> None:
    source = Source(7, 1)
    first = source.decide(Cursor(mark(5)))
    source.end(first, RunState.SUCCEEDED)
    source.arrive(9, 2)
    early = source.decide(first.cursor, NOW + MINUTE / 2)
    assert (early.requests, early.cursor.mark, early.cursor.pending) == ({}, mark(7), None)
    late = source.decide(early.cursor, NOW + MINUTE)
    assert list(late.requests.values()) == [(day(2), day(2))]


def test_after_a_quiet_pause_what_comes_is_asked_for_at_once() -> None:
    source = Source(7)
    quiet = source.decide(Cursor(mark(5)))
    source.arrive(9, 2)
    assert list(source.decide(quiet.cursor, NOW + dt.timedelta(seconds=5)).requests.values()) == [(day(2), day(2))]


def test_the_same_days_can_be_asked_for_again_with_the_mark_where_it_was() -> None:
    source = Source(5, 1)
    first = source.decide(Cursor(mark(5)))
    source.end(first, RunState.SUCCEEDED)
    second = source.decide(first.cursor, NOW + MINUTE)
    assert second.requests.keys().isdisjoint(first.requests)


def test_a_cursor_that_was_lost_never_takes_an_old_run_for_its_own() -> None:
    first = Source(7, 1).decide(Cursor())
    again = Source(7, 1).decide(Cursor(), NOW + MINUTE)
    assert again.requests.keys().isdisjoint(first.requests)


@pytest.mark.parametrize(("failures", "minutes"), [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (200, 60)])
def test_after_a_failure_the_same_days_are_asked_for_later_and_later(failures: int, minutes: int) -> None:
    source = Source(7, 1)
    first = source.decide(Cursor(mark(5), failures=failures))
    source.end(first, RunState.FAILED)
    waiting = source.decide(first.cursor)
    assert waiting.cursor.not_before == KEPT + minutes * MINUTE
    assert (waiting.cursor.mark, waiting.failed) == (mark(5), ((day(1), day(1)),))
    assert source.decide(waiting.cursor, NOW + minutes * MINUTE - MINUTE).requests == {}
    again = source.decide(waiting.cursor, NOW + minutes * MINUTE)
    assert again.requests.keys().isdisjoint(first.requests)
    assert list(again.requests.values()) == [(day(1), day(1))]


def test_one_failed_run_of_several_moves_nothing() -> None:
    source = Source(7, 1, 9)
    first = source.decide(Cursor(mark(5)))
    source.states |= dict(zip(first.requests, (RunState.SUCCEEDED, RunState.FAILED), strict=True))
    assert source.decide(first.cursor).cursor.mark == mark(5)


def test_a_success_forgets_the_failures() -> None:
    source = Source(7, 1)
    first = source.decide(Cursor(mark(5), failures=3))
    source.end(first, RunState.SUCCEEDED)
    source.arrive(7)
    assert source.decide(first.cursor, NOW + MINUTE).cursor.failures == 0


def test_a_gap_asks_the_ledger_beside_what_was_found() -> None:
    source = Source(7, 1)
    source.found = dataclasses.replace(source.found, gap=True)
    decision = source.decide(Cursor(mark(5)))
    assert decision.requests
    assert decision.ledger
    source.found = Arrivals(mark(7), gap=True)
    assert source.decide(Cursor(mark(5))).ledger


def test_why_there_is_no_change_stream_is_said_once_and_again_when_it_changes() -> None:
    source = Source(7)
    source.found = dataclasses.replace(source.found, note="no change stream")
    first = source.decide(Cursor(mark(5)))
    assert first.note == "no change stream"
    second = source.decide(first.cursor, NOW + MINUTE)
    assert second.note == ""
    source.found = dataclasses.replace(source.found, note="another reason")
    assert source.decide(second.cursor, NOW + 2 * MINUTE).note == "another reason"


def test_without_a_change_stream_it_is_looked_once_in_a_pause() -> None:
    source = Source(7)
    source.found = dataclasses.replace(source.found, note="no change stream")
    first = source.decide(Cursor(mark(5)))
    source.decide(first.cursor, NOW + MINUTE / 2)
    assert len(source.asked_after) == 1
    source.decide(first.cursor, NOW + MINUTE)
    assert len(source.asked_after) == 2


def test_deletions_are_told_and_ask_for_nothing() -> None:
    source = Source(7)
    source.found = Arrivals(mark(7), gone=3)
    decision = source.decide(Cursor(mark(5)))
    assert decision.requests == {}
    assert "3 documents were deleted" in decision.reason


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor(),
        Cursor(Mark({"_data": "82AB", "n": 5}, "17:4", ObjectId("0123456789abcdef01234567"), KEPT), said="why"),
        Cursor(mark(1), Pending(mark(2), ((day(1), day(3)), (day(5), day(5))), KEPT), 3, KEPT, KEPT, KEPT),
    ],
)
def test_a_cursor_survives_being_written_down(cursor: Cursor) -> None:
    assert Cursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize(
    "text", [None, "", "nonsense", "[]", "{}", '{"mark": 5}', '{"mark": {"token": 5, "x": 1}}', "5"]
)
def test_an_unreadable_cursor_begins_anew(text: str | None) -> None:
    assert Cursor.from_json(text) == Cursor()


def test_the_first_versions_cursor_goes_on_from_its_id() -> None:
    old = '{"done": "0123456789abcdef01234567", "pending": null, "failures": 2, "not_before": null, "asked": 9}'
    assert Cursor.from_json(old) == Cursor(Mark(identifier=ObjectId("0123456789abcdef01234567")))


def every_other(days: int) -> list[dt.date]:
    return [day(1) + dt.timedelta(days=2 * number) for number in range(days)]


def test_a_document_every_other_day_for_four_years_is_a_handful_of_ranges() -> None:
    ranges = few_ranges(every_other(730))
    assert len(ranges) == 5
    assert (ranges[0][0], ranges[-1][1]) == (every_other(730)[0], every_other(730)[-1])


def test_the_largest_gaps_stay_open() -> None:
    days = [day(1), day(2), day(4), day(20), day(21), day(25)]
    assert few_ranges(days, 2) == ((day(1), day(4)), (day(20), day(25)))
    assert few_ranges(days, 3) == ((day(1), day(4)), (day(20), day(21)), (day(25), day(25)))


@given(st.sets(st.integers(0, 400)), st.integers(1, 6))
def test_ranges_hold_every_day_in_order_and_are_few(numbers: set[int], most: int) -> None:
    days = {day(1) + dt.timedelta(days=number) for number in numbers}
    ranges = few_ranges(days, most)
    assert len(ranges) <= most
    inside: Callable[[dt.date], bool] = lambda one: any(first <= one <= last for first, last in ranges)  # noqa: E731
    assert all(map(inside, days))
    assert all(first in days and last in days for first, last in ranges)
    assert list(ranges) == sorted(ranges)
