"""Buckets: where they begin, which of them make a window, which rollup may stand on which."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.rollups.declared import READING_DAILY, READING_HOURLY, ROLLUPS
from hub.rollups.model import ORIGIN, Rollup
from hub.rollups.refresh import merge

QUICK = settings(max_examples=200)
BUCKETS = ["1 minute", "5 minutes", "1 hour", "6 hours", "1 day", "2 days", "1 week"]
TIMES = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))


def rollup(bucket: str) -> Rollup:
    return dataclasses.replace(READING_HOURLY, bucket=bucket)


def at(day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, minute, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("bucket", "start", "end"),
    [
        ("1 minute", at(5, 13, 37), at(5, 13, 38)),
        ("5 minutes", at(5, 13, 35), at(5, 13, 40)),
        ("1 hour", at(5, 13), at(5, 14)),
        ("6 hours", at(5, 12), at(5, 18)),
        ("1 day", at(5), at(6)),
        ("1 week", at(2), at(9)),  # a Monday
    ],
)
def test_a_time_lies_in_its_bucket(bucket: str, start: dt.datetime, end: dt.datetime) -> None:
    time = at(5, 13, 37) + dt.timedelta(seconds=12.5)
    assert (rollup(bucket).floor(time), rollup(bucket).ceil(time)) == (start, end)
    assert rollup(bucket).floor(start) == rollup(bucket).ceil(start) == start


@QUICK
@given(TIMES, st.sampled_from(BUCKETS))
def test_floor_and_ceil_bracket_every_time_also_before_the_origin(time: dt.datetime, bucket: str) -> None:
    one = rollup(bucket)
    length = dt.timedelta(seconds=one.seconds)
    start, end = one.floor(time), one.ceil(time)
    assert start <= time <= end
    assert end - start in (dt.timedelta(0), length)
    assert time - start < length
    assert (start - ORIGIN) % length == dt.timedelta(0)
    assert one.floor(start) == one.ceil(start) == start


@pytest.mark.parametrize(
    ("hours", "windows"),
    [
        ([], ()),
        ([3], ((3, 4),)),
        ([3, 4, 5], ((3, 6),)),
        ([5, 3, 4, 4], ((3, 6),)),
        ([3, 5, 6, 9], ((3, 4), (5, 7), (9, 10))),
    ],
)
def test_buckets_that_touch_make_one_window(hours: list[int], windows: tuple[tuple[int, int], ...]) -> None:
    merged = merge(rollup("1 hour"), [at(5, hour) for hour in hours])
    assert merged == tuple((at(5, first), at(5, last)) for first, last in windows)


@QUICK
@given(st.lists(st.integers(0, 60)), st.sampled_from(BUCKETS))
def test_windows_cover_exactly_the_buckets(numbers: list[int], bucket: str) -> None:
    one = rollup(bucket)
    length = dt.timedelta(seconds=one.seconds)
    buckets = {ORIGIN + length * number for number in numbers}
    windows = merge(one, buckets)
    covered = [start + length * n for start, end in windows for n in range((end - start) // length)]
    assert covered == sorted(buckets)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(windows))


@pytest.mark.parametrize("bucket", ["2 hours", "1 day", "1 week"])
def test_a_coarser_rollup_adds_up_the_finer_one(bucket: str) -> None:
    coarse = READING_HOURLY.coarser("coarse", bucket=bucket)
    assert (coarse.source, coarse.parent, coarse.table) == ("reading_hourly", READING_HOURLY, "reading_analytics")
    assert coarse.columns == READING_HOURLY.columns
    query = coarse.select(time_bucket=False)
    assert "sum(events)::bigint AS events" in query
    assert "count(" not in query


@pytest.mark.parametrize("bucket", ["90 minutes", "1 hour", "30 minutes", "1 minute"])
def test_buckets_that_do_not_fit_are_refused(bucket: str) -> None:
    with pytest.raises(ValueError, match=f"a bucket of {bucket} is no multiple of reading_hourly's 1 hour"):
        READING_HOURLY.coarser("wrong", bucket=bucket)


def test_a_changed_declaration_changes_its_signature_and_its_children_s() -> None:
    fewer = dataclasses.replace(READING_HOURLY, measures=READING_HOURLY.measures[:2])
    assert fewer.signature != READING_HOURLY.signature
    assert fewer.coarser("reading_daily", bucket="1 day").signature != READING_DAILY.signature
    assert dataclasses.replace(READING_HOURLY).signature == READING_HOURLY.signature


def test_each_declared_rollup_stands_after_the_one_it_is_built_on() -> None:
    for position, one in enumerate(ROLLUPS):
        assert one.parent is None or one.parent in ROLLUPS[:position]
