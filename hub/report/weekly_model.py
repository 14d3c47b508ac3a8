"""What is said about a week of reading, as values."""

from __future__ import annotations

import dataclasses
import datetime as dt

# A source comes "back" when the weeks before had nothing of it for this long.
AWAY = dt.timedelta(weeks=4)


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
        return tuple(self.monday + dt.timedelta(days=number) for number in range(7))

    def __str__(self) -> str:
        year, week, _ = self.monday.isocalendar()
        return f"{year}-W{week:02}"


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
    """Robust z-score, see `robust_score`."""
    unusual: bool = False


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
    weeks: tuple[tuple[Week, float | None], ...]
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
        return tuple(each for each in self._present if each.last_day and each.last_day < self.week.monday - AWAY)

    @property
    def silent(self) -> tuple[Source, ...]:
        """Sources without a reading that have one in most weeks (or had in the week before, if we know no more)."""
        return tuple(each for each in self.sources if not each.readings.now)

    @property
    def _present(self) -> tuple[Source, ...]:
        return tuple(each for each in self.sources if each.readings.now)
