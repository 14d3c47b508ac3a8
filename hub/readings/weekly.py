"""What a week of reading came to: against the weeks before, by source, and which days were unusual and why.

Pandas over the rollups. Days and weeks are UTC, a week is an ISO week. A day counts as known when it has
been loaded (or has a reading) and is over; a day that nobody loaded is never taken for a day without reading.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from importlib.resources import files
from typing import Any

import pandas as pd

from hub.timescale.connection import Connection

WEEKS_BEFORE = 12
# Fewer weeks than this do not say what is usual.
ENOUGH_WEEKS = 4
# A day is unusual from this robust z-score on, if it is also half as much again or a third less than usual.
UNUSUAL_SCORE = 3.0
UNUSUAL_RATIO = 1.5
# A source comes "back" when the weeks before had nothing of it for this long.
AWAY = dt.timedelta(weeks=4)
_DAY = dt.timedelta(days=1)
_MAD_TO_SIGMA = 1.4826


@dataclasses.dataclass(frozen=True, order=True)
class Week:
    """An ISO week, by its Monday."""

    monday: dt.date

    @classmethod
    def of(cls, day: dt.date) -> Week:
        """The week that holds `day`."""
        return cls(day - dt.timedelta(days=day.weekday()))

    @property
    def end(self) -> dt.date:
        """The Monday after."""
        return self.monday + dt.timedelta(weeks=1)

    @property
    def days(self) -> tuple[dt.date, ...]:
        return tuple(self.monday + number * _DAY for number in range(7))

    def __str__(self) -> str:
        year, week, _ = self.monday.isocalendar()
        return f"{year}-W{week:02}"


@dataclasses.dataclass(frozen=True)
class History:
    """What the database knows at the end of a week; `read` fills it. Days are `datetime.date` objects.

    `until` is the first day that was not over yet (the Monday after, unless the week is running). Frames:
    `days` (day, source, events, value_count, value_sum: the week and the 12 before), `hours` (day, hour,
    events: the week), `books` (day, rejected: the loaded days), `sources` (source, first_day, last_day:
    before the week), `streaks` (first_day, last_day, days: all up to the end of the week).
    """

    week: Week
    until: dt.date
    days: pd.DataFrame
    hours: pd.DataFrame
    books: pd.DataFrame
    sources: pd.DataFrame
    streaks: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Compared:
    """A number of this week against the same weekdays of the week before, and of the usual week (a median).

    None where there is nothing to compare with: days not loaded, or fewer than four weeks.
    """

    now: float
    before: float | None
    usual: float | None


@dataclasses.dataclass(frozen=True)
class Day:
    """A day of the week. `usual` and its quartiles are of the same weekday in the weeks before."""

    day: dt.date
    known: bool
    readings: int
    sources: dict[str, int]
    usual: float | None = None
    quartiles: tuple[float, float] | None = None
    score: float | None = None
    """Robust z-score: distance from the median in (floored) median absolute deviations."""

    @property
    def unusual(self) -> bool:
        if self.score is None or self.usual is None or abs(self.score) < UNUSUAL_SCORE:
            return False
        return self.readings >= UNUSUAL_RATIO * self.usual or self.readings <= self.usual / UNUSUAL_RATIO


@dataclasses.dataclass(frozen=True)
class Cause:
    """A source's part in an unusual day: its readings, and those of a usual such weekday."""

    source: str
    readings: int
    usual: float


@dataclasses.dataclass(frozen=True)
class UnusualDay:
    """A day, and why it is unusual: the sources that make most of the difference, the hours that hold most of it."""

    day: Day
    causes: tuple[Cause, ...]
    """Empty when the difference is spread over many sources."""
    hours: tuple[int, float] | None
    """First of the two hours that hold half of the day's readings or more, and their share."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of this week, or one that is missed. `first_day` and `last_day` are from before the week."""

    source: str
    readings: Compared
    first_day: dt.date | None
    last_day: dt.date | None


@dataclasses.dataclass(frozen=True)
class Streak:
    """Days in a row with a reading, both ends included."""

    first: dt.date
    last: dt.date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1


@dataclasses.dataclass(frozen=True)
class WeeklyReport:
    """All that is said about a week."""

    week: Week
    until: dt.date
    began: dt.date | None
    """Day of the first reading ever, None without one."""
    readings: Compared
    values: Compared | None
    """Sum of the values; None when no reading of the week or of the weeks before has one."""
    days_read: Compared
    days: tuple[Day, ...]
    """The days that are over, known or not, in order."""
    today: int | None
    """Readings so far of the running day; None when the week is over."""
    sources: tuple[Source, ...]
    unusual: tuple[UnusualDay, ...]
    weeks: tuple[tuple[Week, int | None], ...]
    """Readings on the same weekdays in this week and the 12 before, oldest first; None where days are not known."""
    hours: tuple[int, float] | None
    """First of the two hours of the day that hold most of the week's readings, and their share."""
    streak: Streak | None
    """The one that lasts at the end of the week."""
    broken: Streak | None
    """The longest that ended in the week."""
    record: Streak | None
    """The longest up to the end of the week."""
    missing: tuple[dt.date, ...]
    """Days of the week that are over and have not been loaded."""
    rejected: int
    """Documents of the week that became dead letters."""

    @property
    def running(self) -> bool:
        return self.until < self.week.end

    @property
    def known(self) -> tuple[Day, ...]:
        return tuple(day for day in self.days if day.known)

    @property
    def new(self) -> tuple[Source, ...]:
        """Sources never met before. None in the first week, where each would be."""
        first_week = self.began is None or self.began >= self.week.monday
        return () if first_week else tuple(each for each in self._present if each.first_day is None)

    @property
    def back(self) -> tuple[Source, ...]:
        """Sources with a reading after four weeks without."""
        return tuple(
            each for each in self._present if each.last_day and each.last_day < self.week.monday - AWAY
        )

    @property
    def silent(self) -> tuple[Source, ...]:
        """Sources without a reading that have one in most weeks, or had one in the week before if that is all we know."""
        return tuple(each for each in self.sources if not each.readings.now)

    @property
    def _present(self) -> tuple[Source, ...]:
        return tuple(each for each in self.sources if each.readings.now)


def read(connection: Connection, week: Week, today: dt.date) -> History:
    """Read what `analyse` needs; `today` is the running UTC day. Raises psycopg's errors."""
    bounds = {
        "start": week.monday - dt.timedelta(weeks=WEEKS_BEFORE),
        "monday": week.monday,
        "end": week.end,
    }

    def frame(name: str) -> pd.DataFrame:
        statement = (files("hub.readings") / "sql" / f"weekly_{name}.sql").read_text(encoding="utf-8")
        cursor = connection.execute(statement, bounds)  # type: ignore[arg-type]
        return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description or ()])

    frames = {name: frame(name) for name in ("days", "hours", "books", "sources", "streaks")}
    return History(week, min(week.end, today), **frames)


def analyse(history: History) -> WeeklyReport:
    """What there is to say about the week. Pure: the same history gives the same report."""
    week = history.week
    window = [
        week.monday + number * _DAY for number in range(-7 * WEEKS_BEFORE, (history.until - week.monday).days)
    ]
    counts = _pivot(history.days, "events", window).astype("int64")
    began = min(history.streaks["first_day"], default=None)
    loaded = set(history.books["day"]) | set(history.days["day"])
    known = pd.Series({day: day in loaded and began is not None and day >= began for day in window}, dtype=bool)
    over = [day for day in week.days if day < history.until]
    weekdays = [day for day in over if known[day]]
    weeks = _Weeks(weekdays, known)
    totals = counts.sum(axis=1)
    days = tuple(_day(day, counts, known) for day in over)
    values = None
    if len(history.days) and history.days["value_count"].sum():
        values = weeks.compare(_pivot(history.days, "value_sum", window).sum(axis=1))
    streaks = [Streak(row.first_day, row.last_day) for row in history.streaks.itertuples()]
    # The running day has not broken a streak yet.
    streak = next((each for each in streaks if each.last >= history.until - _DAY), None)
    ended = [each for each in streaks if each != streak and each.last >= week.monday - _DAY]
    in_week = history.books["day"].isin(week.days)
    return WeeklyReport(
        week=week,
        until=history.until,
        began=began,
        readings=weeks.compare(totals),
        values=values,
        days_read=weeks.compare((totals > 0).astype("int64")),
        days=days,
        today=_today(history),
        sources=_sources(history.sources, counts, weeks),
        unusual=tuple(_explain(day, counts, known, history.hours) for day in days if day.unusual),
        weeks=tuple(
            (Week(week.monday - dt.timedelta(weeks=ago)), None if (total := weeks.total(totals, ago)) is None else int(total))
            for ago in range(WEEKS_BEFORE, -1, -1)
        ),
        hours=_two_hours(history.hours),
        streak=streak,
        broken=max(ended, key=lambda each: each.days, default=None),
        record=max(streaks, key=lambda each: each.days, default=None),
        missing=tuple(day for day in over if day not in loaded),
        rejected=int(history.books.loc[in_week, "rejected"].sum()),
    )


def _pivot(days: pd.DataFrame, column: str, window: list[dt.date]) -> pd.DataFrame:
    """A row for each day of the window, a column for each source, zeros where nothing was read."""
    table: Any = days.pivot_table(index="day", columns="source", values=column, aggfunc="sum", fill_value=0)
    return pd.DataFrame(table.reindex(window, fill_value=0))


@dataclasses.dataclass(frozen=True)
class _Weeks:
    """This week's known days, and the same weekdays in the weeks before: like is compared with like."""

    days: list[dt.date]
    known: pd.Series[bool]

    def total(self, series: pd.Series[Any], ago: int) -> float | None:
        """Sum of a series by day over these weekdays, `ago` weeks before; None unless all are known."""
        days = [day - dt.timedelta(weeks=ago) for day in self.days]
        return float(series[days].sum()) if days and self.known[days].all() else None

    def compare(self, series: pd.Series[Any]) -> Compared:
        totals = [self.total(series, ago) for ago in range(1, WEEKS_BEFORE + 1)]
        usable = [total for total in totals if total is not None]
        usual = float(pd.Series(usable).median()) if len(usable) >= ENOUGH_WEEKS else None
        return Compared(self.total(series, 0) or 0.0, totals[0], usual)


def _same_weekdays(day: dt.date, known: pd.Series[bool]) -> list[dt.date]:
    """The known days of the same weekday in the weeks before; empty when they are too few."""
    days = [day - dt.timedelta(weeks=ago) for ago in range(1, WEEKS_BEFORE + 1)]
    found = [each for each in days if known[each]]
    return found if len(found) >= ENOUGH_WEEKS else []


def _day(day: dt.date, counts: pd.DataFrame, known: pd.Series[bool]) -> Day:
    by_source = {str(source): int(count) for source, count in counts.loc[day].items() if count}
    readings = sum(by_source.values())
    before = _same_weekdays(day, known)
    if not before or not known[day]:
        return Day(day, bool(known[day]), readings, by_source)
    past = counts.loc[before].sum(axis=1)
    low, usual, high = (float(quantile) for quantile in past.quantile([0.25, 0.5, 0.75]))
    return Day(day, True, readings, by_source, usual, (low, high), robust_score(readings, past))


def robust_score(value: float, past: pd.Series[Any]) -> float:
    """Distance of `value` from the median of `past`, in standard deviations estimated by the median absolute one.

    The estimate is never less than what counting alone scatters (the square root) or a tenth of the
    median: very regular weeks would otherwise make a day of one reading more an event.
    """
    median = float(past.median())
    deviation = float((past - median).abs().median()) * _MAD_TO_SIGMA
    return (value - median) / max(deviation, math.sqrt(max(median, 1.0)), 0.1 * median)


def _explain(day: Day, counts: pd.DataFrame, known: pd.Series[bool], hours: pd.DataFrame) -> UnusualDay:
    usual = counts.loc[_same_weekdays(day.day, known)].median()
    difference: pd.Series[float] = counts.loc[day.day] - usual
    more = day.readings > (day.usual or 0)
    if not more:
        difference = -difference
    parts = difference[difference > 0].sort_values(ascending=False, kind="stable")
    shares = parts / parts.sum()
    # One source with 60 % of the difference is the cause; or two with three quarters.
    number = 1 if shares.iloc[:1].sum() >= 0.6 else 2 if shares.iloc[:2].sum() >= 0.75 else 0
    causes = tuple(
        Cause(str(name), int(counts.loc[day.day, name]), float(usual[name]))  # type: ignore[arg-type]
        for name in parts.index[:number]
    )
    span = _two_hours(hours[hours["day"] == day.day]) if more else None
    return UnusualDay(day, causes, span if span and span[1] >= 0.5 and day.readings >= 10 else None)


def _two_hours(hours: pd.DataFrame) -> tuple[int, float] | None:
    """First hour and share of the two consecutive hours with the most readings; None without any."""
    by_hour = hours.groupby("hour")["events"].sum().reindex(range(24), fill_value=0)
    if not by_hour.sum():
        return None
    pairs = by_hour + by_hour.shift(-1, fill_value=0)
    first = int(pairs.iloc[:23].idxmax())
    return first, float(pairs[first] / by_hour.sum())


def _sources(before: pd.DataFrame, counts: pd.DataFrame, weeks: _Weeks) -> tuple[Source, ...]:
    past = {row.source: (row.first_day, row.last_day) for row in before.itertuples()}
    found = []
    for name in counts.columns:
        readings = weeks.compare(counts[name])
        expected = readings.before if readings.usual is None else readings.usual
        if readings.now or expected:
            found.append(Source(str(name), readings, *past.get(name, (None, None))))
    found.sort(key=lambda each: (-each.readings.now, -(each.readings.usual or each.readings.before or 0), each.source))
    return tuple(found)


def _today(history: History) -> int | None:
    if history.until >= history.week.end:
        return None
    return int(history.days.loc[history.days["day"] == history.until, "events"].sum())
