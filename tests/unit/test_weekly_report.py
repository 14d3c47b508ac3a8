"""The weekly report: what it says of ordinary, unusual, empty, first and running weeks."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Container

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hub.report.weekly import History, analyse, robust_score
from hub.report.weekly_model import Week, WeeklyReport
from hub.report.weekly_plot import plot
from hub.report.weekly_text import change, explain, headline, in_words, name, render, times

WEEK = Week(dt.date(2026, 11, 16))
TUESDAY = dt.date(2026, 11, 17)
DAY = dt.timedelta(days=1)
Readings = dict[tuple[dt.date, str], int]


def regular(weeks: int, sources: dict[str, int], week: Week = WEEK) -> Readings:
    """The same readings every day of the week and of the `weeks` before."""
    first = week.monday - dt.timedelta(weeks=weeks)
    days = [first + number * DAY for number in range((week.end - first).days)]
    return {(day, source): count for day in days for source, count in sources.items()}


def history(
    readings: Readings,
    *,
    week: Week = WEEK,
    until: dt.date | None = None,
    loaded: Callable[[dt.date], bool] = lambda day: True,
    hour: int = 20,
    rejected: int = 0,
    early: Container[dt.date] = (),
) -> History:
    """What `read` would return for these readings, all of them at one hour of the day."""
    readings = {key: count for key, count in readings.items() if count and key[0] < week.end}
    start = week.monday - dt.timedelta(weeks=12)
    window = [start + number * DAY for number in range(91)]
    days = [(day, source, count, count, 10.0 * count) for (day, source), count in readings.items() if day >= start]
    hours = [(day, hour, count) for (day, _), count in readings.items() if day >= week.monday]
    before: dict[str, list[dt.date]] = {}
    for day, source in readings:
        if day < week.monday:
            before.setdefault(source, []).append(day)
    islands: list[list[dt.date]] = []
    for day in sorted({day for day, _ in readings}):
        if islands and day - islands[-1][-1] == DAY:
            islands[-1].append(day)
        else:
            islands.append([day])
    books = [(day, day not in early, rejected if day == week.monday else 0) for day in window if loaded(day)]
    return History(
        week,
        until or week.end,
        pd.DataFrame(days, columns=["day", "source", "events", "value_count", "value_sum"]),
        pd.DataFrame(hours, columns=["day", "hour", "events"]),
        pd.DataFrame(books, columns=["day", "whole", "rejected"]),
        pd.DataFrame(
            [(source, min(each), max(each)) for source, each in before.items()],
            columns=["source", "first_day", "last_day"],
        ),
        pd.DataFrame([(each[0], each[-1], len(each)) for each in islands], columns=["first_day", "last_day", "days"]),
    )


def text(report: WeeklyReport) -> str:
    return render(report, "plot.png")


def test_a_regular_week_is_said_to_be_one() -> None:
    report = analyse(history(regular(12, {"kobo": 60, "web": 40})))
    assert (report.readings.now, report.readings.before, report.readings.usual) == (700, 700, 700)
    assert (report.unusual, report.new, report.silent, report.missing) == ((), (), (), ())
    assert headline(report) == (
        "**700 readings**, about as many as the week before and a usual week. **91 days in a row** with a reading."
    )
    assert "None: each day was within what is usual for its weekday." in text(report)
    assert "| Sum of their values | **7,000** | 7,000 | ±0 % | 7,000 | ±0 % |" in text(report)


def test_a_burst_is_explained_by_its_source_and_hours() -> None:
    readings = regular(12, {"kobo": 60, "web": 40}) | {(TUESDAY, "kobo"): 260}
    (unusual,) = analyse(history(readings)).unusual
    assert explain(unusual) == (
        "three times the usual Tuesday (300 readings against about 100), mostly kobo (260 against about 60);"
        " 100 % of it between 19:00 and 21:00 UTC"
    )


def test_a_burst_of_every_source_has_no_single_cause() -> None:
    readings = regular(12, dict.fromkeys("abcde", 20)) | {(TUESDAY, source): 60 for source in "abcde"}
    (unusual,) = analyse(history(readings)).unusual
    assert "three times the usual Tuesday (300 readings against about 100), spread over several sources" in explain(
        unusual
    )


def test_a_quiet_day_names_who_was_silent() -> None:
    readings = regular(12, {"kobo": 60, "web": 40}) | {(TUESDAY, "kobo"): 0}
    (unusual,) = analyse(history(readings)).unusual
    assert explain(unusual) == (
        "40 % of the usual Tuesday (40 readings against about 100), mostly because kobo was silent"
    )


def test_a_day_without_reading_breaks_the_streak_and_is_unusual() -> None:
    readings = regular(12, {"kobo": 60}) | {(TUESDAY, "kobo"): 0}
    report = analyse(history(readings))
    assert explain(report.unusual[0]) == "nothing at all, where the usual Tuesday has about 60"
    assert report.streak is not None
    assert report.broken is not None
    assert (report.broken.days, report.streak.days) == (85, 5)
    assert "A streak of 85 days ended on Monday, 16 November: Tuesday had no reading." in text(report)
    assert "**5 days in a row** with a reading, since Wednesday, 18 November 2026." in text(report)


def test_a_day_that_was_never_loaded_is_not_a_day_without_reading() -> None:
    readings = regular(12, {"kobo": 60}) | {(TUESDAY, "kobo"): 0}
    report = analyse(history(readings, loaded=lambda day: day != TUESDAY))
    assert (report.missing, report.unusual) == ((TUESDAY,), ())
    assert (report.readings.now, report.readings.before) == (360, 360)
    assert "Tuesday has not been loaded whole." in text(report)
    assert "make backfill FROM=2026-11-17 TO=2026-11-17" in text(report)


def test_a_day_that_was_loaded_in_its_course_is_not_taken_for_whole() -> None:
    readings = regular(12, {"kobo": 60}) | {(TUESDAY, "kobo"): 7}
    report = analyse(history(readings, early=(TUESDAY,)))
    assert (report.missing, report.unusual) == ((TUESDAY,), ())
    assert (report.readings.now, report.readings.before) == (360, 360)
    assert "Not loaded yet, or not to the end: Tuesday." in text(report)


def test_a_habit_of_every_other_week_is_not_unusual() -> None:
    readings = regular(12, {"web": 50})
    for ago in range(13):
        readings[TUESDAY - dt.timedelta(weeks=ago), "kobo"] = 0 if ago % 2 else 300
    assert analyse(history(readings)).unusual == ()


def test_one_burst_does_not_hide_the_next() -> None:
    readings = regular(12, {"web": 50}) | {(TUESDAY - dt.timedelta(weeks=5), "web"): 900, (TUESDAY, "web"): 400}
    assert [each.day.day for each in analyse(history(readings)).unusual] == [TUESDAY]


def test_sources_come_go_and_come_back() -> None:
    readings = regular(12, {"kobo": 60, "papers": 20})
    readings |= {(day, "papers"): 0 for day in WEEK.days}
    readings |= {(TUESDAY, "feeds"): 5, (TUESDAY, "radio"): 5, (TUESDAY - dt.timedelta(weeks=7), "radio"): 5}
    report = analyse(history(readings))
    assert [each.source for each in report.new] == ["feeds"]
    assert [each.source for each in report.back] == ["radio"]
    assert [each.source for each in report.silent] == ["papers"]
    assert "New: **feeds**. Back: **radio**. Silent: **papers**." in headline(report)
    assert "**silent**, last on 15 November" in text(report)
    assert "**back**, last on 29 September" in text(report)


def test_a_source_that_is_rare_is_not_missed() -> None:
    readings = regular(12, {"kobo": 60}) | {(TUESDAY - dt.timedelta(weeks=3), "newsletter"): 4}
    assert analyse(history(readings)).silent == ()


def test_an_empty_week_says_what_it_could_have_been() -> None:
    readings = {key: count for key, count in regular(12, {"kobo": 60}).items() if key[0] < WEEK.monday}
    report = analyse(history(readings))
    assert headline(report) == "**No reading**, where a usual week has about 420. A streak of 84 days ended."
    assert "Each day, since nothing was read at all." in text(report)
    assert [each.source for each in report.silent] == ["kobo"]
    assert "None at the moment." in text(report)


def test_the_first_week_ever_compares_with_nothing_and_calls_nobody_new() -> None:
    readings = {key: count for key, count in regular(0, {"kobo": 60}).items() if key[0] >= TUESDAY}
    report = analyse(history(readings))
    assert headline(report) == (
        "**360 readings**, in the first week that anything is known of. **6 days in a row** with a reading."
    )
    assert report.new == ()
    assert report.readings.before is None
    assert "Too early to say: it takes 4 weeks" in text(report)
    assert "| Source | Readings | Share |  |" in text(report)


def test_an_empty_database_has_a_report() -> None:
    report = analyse(history({}))
    assert headline(report) == "Nothing has been read yet, this week or before."
    assert plot(report).startswith(b"\x89PNG")


def test_a_running_week_is_compared_over_the_same_days() -> None:
    readings = regular(12, {"kobo": 60}) | {(TUESDAY + DAY, "kobo"): 7}
    report = analyse(history(readings, until=TUESDAY + DAY))
    assert (report.readings.now, report.readings.before, report.today) == (120, 120, 7)
    assert report.unusual == ()
    assert "All counted over Monday and Tuesday only." in text(report)
    assert "Wednesday, 18 November is not over (7 readings so far) and not compared yet." in text(report)


def test_a_running_day_without_a_reading_has_not_broken_the_streak() -> None:
    readings = {key: count for key, count in regular(2, {"kobo": 60}).items() if key[0] < TUESDAY}
    report = analyse(history(readings, until=TUESDAY))
    assert report.streak is not None
    assert (report.streak.days, report.broken) == (15, None)
    just_begun = analyse(history(readings, until=WEEK.monday))
    assert "The week has just begun: 60 readings so far today." in headline(just_begun)


def test_dead_letters_are_mentioned() -> None:
    report = analyse(history(regular(1, {"kobo": 1}), rejected=3))
    assert "3 documents of the week are dead letters" in text(report)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(2, "twice"), (3.1, "three times"), (2.4, "2.4 times"), (26.2, "26 times"), (0.5, "half"), (0.34, "a third of"),
     (0.4, "40 % of"), (0.001, "less than 1 % of"), (1.7, "1.7 times")],
)  # fmt: skip
def test_ratios_are_said_in_words(ratio: float, words: str) -> None:
    assert times(ratio) == words


def test_changes_are_said_in_words() -> None:
    assert [in_words(112, 100), in_words(88, 100), in_words(101, 100), in_words(300, 100), in_words(1, None)] == [
        "12 % more than", "12 % fewer than", "about as many as", "three times", None,
    ]  # fmt: skip
    assert [change(112, 100), change(88, 100), change(0, 100), change(340, 100), change(5, 0), change(5, None)] == [
        "+12 %", "−12 %", "−100 %", "×3.4", "–", "–",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Glyph")  # the font has no Chinese; the picture shows boxes
def test_a_name_of_a_source_cannot_break_the_table_or_the_picture() -> None:
    hostile = "_a|b*c\n<script>$x$`[l](u)"
    report = analyse(history(regular(1, {hostile: 5, "_": 1, "": 1, "漢字 café": 1})))
    assert name(hostile) == "\\_a\\|b\\*c \\<script\\>\\$x\\$\\`\\[l\\](u)"
    assert name("my_feeds") == "my_feeds"
    table = text(report).partition("| Source |")[2].partition("\n\n")[0].splitlines()
    assert len(table) == 6
    assert {line.replace("\\|", "").count("|") for line in table[1:]} == {6}
    assert plot(report).startswith(b"\x89PNG")


def test_the_picture_is_small_and_the_same_each_time() -> None:
    report = analyse(history(regular(12, dict.fromkeys("abcdefgh", 9))))
    image = plot(report)
    assert image == plot(report)
    assert len(image) < 40_000
    assert Image.open(io.BytesIO(image)).size == (960, 360)


def test_weeks_are_iso_weeks() -> None:
    assert str(Week.of(dt.date(2027, 1, 3))) == "2026-W53"
    assert str(Week.of(dt.date(2027, 1, 4))) == "2027-W01"


@given(st.lists(st.integers(0, 10**6), min_size=4, max_size=12), st.integers(0, 10**6))
def test_a_score_is_finite_and_has_the_sign_of_the_difference(past: list[int], value: int) -> None:
    series = pd.Series(past)
    score = robust_score(value, series)
    assert abs(score) < float("inf")
    if value > max(past):
        assert score > 0
    if value < min(past):
        assert score < 0
