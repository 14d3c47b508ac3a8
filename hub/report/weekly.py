"""What a week of reading came to: against the weeks before, by source, and which days were unusual and why.

Pandas over the rollups. Days and weeks are UTC, a week is an ISO week. A day counts as known when it was loaded after its
end (or has readings that no load is known of); one that nobody loaded, or only in its course, is never taken for whole.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pandas as pd

from hub.report.weekly_model import Cause, Compared, Day, Source, Streak, UnusualDay, Week, WeeklyReport
from hub.timescale.connection import Connection

WEEKS_BEFORE = 12
# Fewer weeks than this do not say what is usual.
ENOUGH_WEEKS = 4
# A day is unusual from this robust z-score on, if it is also half as much again or a third less than usual,
# and beyond all of its weekdays before (of six and more, all but one: one burst shall not hide the next).
# On made-up ordinary days that scatter by 23 to 30 % this marks 4 to 10 days a year once twelve weeks are known
# (21 to 27 at the rate of the first four), and a tripled day 8 times of 10.
UNUSUAL_SCORE = 3.0
UNUSUAL_RATIO = 1.5
_ENOUGH_TO_SPARE_ONE = 6
_DAY, _WEEK = dt.timedelta(days=1), dt.timedelta(weeks=1)
_MAD_TO_SIGMA = 1.4826


@dataclasses.dataclass(frozen=True)
class History:
    """What the database knows at the end of a week; `read` fills it. Days are `datetime.date` objects.

    `until` is the first day that was not over yet (the Monday after, unless the week is running). Frames:
    `days` (day, source, events, value_count, value_sum: the week and the 12 before), `hours` (day, hour,
    events: the week), `books` (day, whole, rejected: the loaded days), `sources` (source, first_day, last_day:
    before the week), `streaks` (first_day, last_day, days: all up to the end of the week).
    """

    week: Week
    until: dt.date
    days: pd.DataFrame
    hours: pd.DataFrame
    books: pd.DataFrame
    sources: pd.DataFrame
    streaks: pd.DataFrame


def read(connection: Connection, week: Week, today: dt.date) -> History:
    """Read what `analyse` needs; `today` is the running UTC day. Raises psycopg's errors."""
    bounds = {
        "start": week.monday - dt.timedelta(weeks=WEEKS_BEFORE),
        "monday": week.monday,
        "end": week.end,
    }

    def frame(name: str) -> pd.DataFrame:
        statement = (files("hub.report") / "sql" / f"weekly_{name}.sql").read_text(encoding="utf-8")
        cursor = connection.execute(statement, bounds)
        return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description or ()])

    frames = {name: frame(name) for name in ("days", "hours", "books", "sources", "streaks")}
    return History(week, min(week.end, today), **frames)


def analyse(history: History) -> WeeklyReport:
    """What there is to say about the week. Pure: the same history gives the same report."""
    week = history.week
    window = [week.monday + number * _DAY for number in range(-7 * WEEKS_BEFORE, (history.until - week.monday).days)]
    counts = _pivot(history.days, "events", window).astype("int64")
    began = min(history.streaks["first_day"], default=None)
    books = history.books
    loaded = set(books.loc[books["whole"].astype(bool), "day"]) | (set(history.days["day"]) - set(books["day"]))
    known = pd.Series({day: day in loaded and began is not None and day >= began for day in window}, dtype=bool)
    over = [day for day in week.days if day < history.until]
    weekdays = [day for day in over if known[day]]
    weeks = _Weeks(weekdays, known)
    totals = counts.sum(axis=1)
    days = tuple(_day(day, counts, known) for day in over)
    values = None
    if len(history.days) and history.days["value_count"].sum():
        values = weeks.compare(_pivot(history.days, "value_sum", window).sum(axis=1))
    streaks = [Streak(*ends) for ends in zip(history.streaks["first_day"], history.streaks["last_day"], strict=True)]
    # The running day has not broken a streak yet.
    streak = next((each for each in streaks if each.last >= history.until - _DAY), None)
    ended = [each for each in streaks if each != streak and each.last >= week.monday - _DAY]
    in_week = books["day"].isin(week.days)
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
        weeks=tuple((Week(week.monday - ago * _WEEK), weeks.total(totals, ago)) for ago in range(WEEKS_BEFORE, -1, -1)),
        hours=_two_hours(history.hours),
        streak=streak,
        broken=max(ended, key=lambda each: each.days, default=None),
        record=max(streaks, key=lambda each: each.days, default=None),
        missing=tuple(day for day in over if day not in loaded),
        rejected=int(books.loc[in_week, "rejected"].sum()),
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
        days = [day - ago * _WEEK for day in self.days]
        return float(series.reindex(days).sum()) if days and self.known.reindex(days).all() else None

    def compare(self, series: pd.Series[Any]) -> Compared:
        totals = [self.total(series, ago) for ago in range(1, WEEKS_BEFORE + 1)]
        usable = [total for total in totals if total is not None]
        usual = float(pd.Series(usable).median()) if len(usable) >= ENOUGH_WEEKS else None
        return Compared(self.total(series, 0) or 0.0, totals[0], usual)

    def compare_each(self, counts: pd.DataFrame) -> Iterator[tuple[str, Compared]]:
        """What `compare` says of each column that has anything now or would be expected to, all of them at once."""
        zeros = pd.Series(0.0, index=counts.columns)
        now, *before = (self._totals(counts, ago) for ago in range(WEEKS_BEFORE + 1))
        usable = [totals for totals in before if totals is not None]
        usual = pd.concat(usable, axis=1).median(axis=1) if len(usable) >= ENOUGH_WEEKS else None
        now = zeros if now is None else now
        expected = zeros if (found := before[0] if usual is None else usual) is None else found
        for name in counts.columns[((now != 0) | (expected != 0)).to_numpy()]:
            last = None if before[0] is None else float(before[0][name])
            yield str(name), Compared(float(now[name]), last, None if usual is None else float(usual[name]))

    def _totals(self, counts: pd.DataFrame, ago: int) -> pd.Series[float] | None:
        days = [day - ago * _WEEK for day in self.days]
        known = bool(days) and bool(self.known.reindex(days).all())
        return counts.reindex(days).sum().astype("float64") if known else None


def _same_weekdays(day: dt.date, known: pd.Series[bool]) -> list[dt.date]:
    """The known days of the same weekday in the weeks before; empty when they are too few."""
    days = [day - ago * _WEEK for ago in range(1, WEEKS_BEFORE + 1)]
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
    score = robust_score(readings, past)
    unusual = abs(score) >= UNUSUAL_SCORE and _stands_out(readings, usual, sorted(past))
    return Day(day, True, readings, by_source, usual, (low, high), score, unusual)


def robust_score(value: float, past: pd.Series[Any]) -> float:
    """Distance of `value` from the median of `past`, in standard deviations estimated by the median absolute one.

    Of square roots: counts scatter in proportion to theirs, and without them no day could ever be too
    quiet where the scatter is a third of the median. The estimate is corrected for few values (Croux and
    Rousseeuw 1992, n / (n - 0.8)) and never less than what counting alone makes (0.5 for the root of a
    Poisson number) or a tenth of the median: otherwise one reading more were an event in a regular life.
    """
    roots = past.astype("float64").pow(0.5)
    median = float(roots.median())
    deviation = float((roots - median).abs().median()) * _MAD_TO_SIGMA * len(past) / (len(past) - 0.8)
    return (math.sqrt(value) - median) / max(deviation, 0.5, 0.05 * median)


def _stands_out(value: int, usual: float, past: list[int]) -> bool:
    spared = 1 if len(past) >= _ENOUGH_TO_SPARE_ONE else 0
    if value > usual:
        return value >= UNUSUAL_RATIO * usual and value > past[-1 - spared]
    return value <= usual / UNUSUAL_RATIO and value < past[spared]


def _explain(day: Day, counts: pd.DataFrame, known: pd.Series[bool], hours: pd.DataFrame) -> UnusualDay:
    usual: Any = counts.loc[_same_weekdays(day.day, known)].median()
    difference: Any = counts.loc[day.day] - usual
    more = day.readings > (day.usual or 0)
    if not more:
        difference = -difference
    parts = difference[difference > 0].sort_values(ascending=False, kind="stable")
    shares = parts / parts.sum()
    # One source with 60 % of the difference is the cause; or two with three quarters; or all that were silent.
    silent = [name for name in parts.index if not counts.loc[day.day, name]]
    if shares.iloc[:1].sum() >= 0.6:
        names = list(parts.index[:1])
    elif shares.iloc[:2].sum() >= 0.75:
        names = list(parts.index[:2])
    else:
        names = silent if not more and shares[silent].sum() >= 0.6 else []
    causes = tuple(Cause(str(name), day.sources.get(str(name), 0), float(usual[name])) for name in names)
    span = _two_hours(hours[hours["day"] == day.day]) if more else None
    return UnusualDay(day, causes, span if span and span[1] >= 0.5 and day.readings >= 10 else None)


def _two_hours(hours: pd.DataFrame) -> tuple[int, float] | None:
    """First hour and share of the two consecutive hours with the most readings; None without any."""
    by_hour: Any = hours.groupby("hour")["events"].sum().reindex(range(24), fill_value=0)
    if not by_hour.sum():
        return None
    pairs = by_hour + by_hour.shift(-1, fill_value=0)
    first = int(pairs.iloc[:23].idxmax())
    return first, float(pairs[first] / by_hour.sum())


def _sources(before: pd.DataFrame, counts: pd.DataFrame, weeks: _Weeks) -> tuple[Source, ...]:
    past = dict(zip(before["source"], zip(before["first_day"], before["last_day"], strict=True), strict=True))
    found = [Source(name, readings, *past.get(name, (None, None))) for name, readings in weeks.compare_each(counts)]
    found.sort(key=lambda each: (-each.readings.now, -(each.readings.usual or each.readings.before or 0), each.source))
    return tuple(found)


def _today(history: History) -> int | None:
    if history.until >= history.week.end:
        return None
    return int(history.days.loc[history.days["day"] == history.until, "events"].sum())
