"""The weekly report in words: Markdown that reads well in Dagster's UI and as a file."""

from __future__ import annotations

import datetime as dt
import re

from hub.report.weekly import ENOUGH_WEEKS
from hub.report.weekly_model import Compared, Source, UnusualDay, WeeklyReport

_SHOWN_SOURCES = 12
_NUMBERS = ("", "", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times",
            "nine times", "ten times")  # fmt: skip
_PARTS = {2: "half", 3: "a third of", 4: "a quarter of", 5: "a fifth of", 10: "a tenth of"}
# GitHub's and Dagster's Markdown; an underscore inside a word is none.
_SPECIAL = re.compile(r"[\\`*\[\]<>|#~&$]|(?<![^\W_])_|_(?![^\W_])")


def render(report: WeeklyReport, image: str) -> str:
    """The report as Markdown. `image` is where its plot is: a file name or a data URI."""
    parts = [
        f"# Reading, {_span(report)}",
        headline(report),
        f"![Readings by day and by week]({image})",
        "## Unusual days",
        _unusual_days(report),
        "## Against the weeks before",
        _totals(report),
        "## Sources",
        _sources(report),
        "## Streak",
        _streak(report),
        *_notes(report),
    ]
    return "\n\n".join(parts) + "\n"


def headline(report: WeeklyReport) -> str:
    """The week in one or two lines of Markdown."""
    sentences = [_first_sentence(report)]
    if report.streak and report.streak.days > 1:
        sentences.append(f"**{report.streak.days:,} days in a row** with a reading.")
    elif report.broken and report.broken.days > 1:
        sentences.append(f"A streak of {report.broken.days:,} days ended.")
    if not report.readings.now:
        return " ".join(sentences)  # that each day is unusual and each source silent goes without saying
    if report.unusual:
        names = [f"**{each.day.day:%A}**" for each in report.unusual]
        days = _join(names) if len(names) <= 3 else f"**{len(names)} days**"
        sentences.append(f"{days} {'was' if len(names) == 1 else 'were'} unusual.")
    for title, sources in (("New", report.new), ("Back", report.back), ("Silent", report.silent)):
        if sources:
            shown = [f"**{name(each.source)}**" for each in sources[:5]]
            sentences.append(f"{title}: {_join(shown, len(sources) - 5)}.")
    return " ".join(sentences)


def _first_sentence(report: WeeklyReport) -> str:
    if report.began is None:
        return "Nothing has been read yet, this week or before."
    if not report.days:
        return f"The week has just begun: {_readings(report.today or 0)} so far today."
    if not report.known:
        return "Nothing is known of this week: its days have not been loaded."
    count = f"**{_readings(int(report.readings.now))}**" if report.readings.now else "**No reading**"
    so_far = " so far" if report.running else ""
    if not report.readings.now:
        usually = report.readings.before if report.readings.usual is None else report.readings.usual
        return f"{count}{so_far}" + (f", where a usual week has about {usually:,.0f}." if usually else ".")
    if report.began >= report.week.monday:
        return f"{count}{so_far}, in the first week that anything is known of."
    return f"{count}{so_far}{_against(report.readings)}."


def _against(readings: Compared) -> str:
    before, usual = in_words(readings.now, readings.before), in_words(readings.now, readings.usual)
    if before and before == usual:
        return f", {before} the week before and a usual week"
    parts = [f"{words} {what}" for words, what in ((before, "the week before"), (usual, "a usual week")) if words]
    return f", {' and '.join(parts)}" if parts else ""


def _unusual_days(report: WeeklyReport) -> str:
    if report.unusual and not report.readings.now:
        return "Each day, since nothing was read at all."
    if report.unusual:
        return "\n".join(f"- **{_date(each.day.day)}**: {explain(each)}." for each in report.unusual)
    compared = [day for day in report.known if day.score is not None]
    if compared:
        return "None: each day was within what is usual for its weekday."
    if not report.known:
        return "No day to judge yet."
    return f"Too early to say: it takes {ENOUGH_WEEKS} weeks to know what is usual."


def explain(unusual: UnusualDay) -> str:
    """Why the day is unusual: 'three times the usual Tuesday (620 readings against about 200), mostly kobo'."""
    day, usual = unusual.day, unusual.day.usual or 0.0
    weekday = f"{day.day:%A}"
    if not day.readings:
        text = f"nothing at all, where the usual {weekday} has about {usual:,.0f}"
    elif not round(usual):
        text = f"{_readings(day.readings)} on a {weekday}, which usually has none"
    else:
        how_many = f"{_readings(day.readings)} against about {usual:,.0f}"
        text = f"{times(day.readings / usual)} the usual {weekday} ({how_many})"
    if day.readings > usual:
        text += _more(unusual)
    elif day.readings:
        text += _less(unusual)
    if unusual.hours:
        first, share = unusual.hours
        text += f"; {share:.0%} of it between {first:02}:00 and {first + 2:02}:00 UTC".replace("%", " %")
    return text


def _more(unusual: UnusualDay) -> str:
    if not unusual.causes:
        return ", spread over several sources"
    if len(unusual.day.sources) == 1:
        return f", all of it {name(unusual.causes[0].source)}"
    parts = [f"{name(each.source)} ({each.readings:,} against {_about(each.usual)})" for each in unusual.causes]
    return f", mostly {_join(parts)}"


def _less(unusual: UnusualDay) -> str:
    causes = unusual.causes
    if not causes:
        return ", spread over several sources"
    silent = [name(each.source) for each in causes if not each.readings]
    less = [each for each in causes if each.readings]
    parts = [f"{name(each.source)} fell to {each.readings:,} from about {each.usual:,.0f}" for each in less]
    if silent:
        parts.append(f"{_join(silent)} {'was' if len(silent) == 1 else 'were'} silent")
    return f", mostly because {_join(parts)}"


def times(ratio: float) -> str:
    """A ratio in words: 'three times', '2.4 times', 'half', 'a third of', '40 % of'."""
    whole = round(ratio)
    if ratio >= 1:
        if 2 <= whole <= 10 and abs(ratio / whole - 1) <= 0.07:
            return _NUMBERS[whole]
        return f"{ratio:,.1f} times" if ratio < 10 else f"{ratio:,.0f} times"
    part = round(1 / ratio)
    if part in _PARTS and abs(ratio * part - 1) <= 0.07:
        return _PARTS[part]
    return f"{100 * ratio:.0f} % of" if ratio >= 0.01 else "less than 1 % of"


def in_words(now: float, before: float | None) -> str | None:
    """'12 % more than', 'about as many as', 'three times'; None when there is nothing to compare with."""
    if not before:
        return None
    ratio = now / before
    if ratio >= 2:
        return times(ratio)
    if abs(ratio - 1) < 0.03:
        return "about as many as"
    return f"{abs(ratio - 1):.0%} {'more' if ratio > 1 else 'fewer'} than".replace("%", " %")


def change(now: float, before: float | None) -> str:
    """'+12 %', '−5 %', '×3.4'; a dash when there is nothing to compare with."""
    if before is None or not before:
        return "–"
    ratio = now / before
    if ratio >= 3:
        return f"×{ratio:,.1f}"
    percent = round(100 * (ratio - 1))
    return f"{percent:+} %".replace("-", "−") if percent else "±0 %"


def _totals(report: WeeklyReport) -> str:
    """The table of totals, with no column that would be empty."""
    if report.readings.before is None and report.readings.usual is None:
        return "Nothing to compare with yet."
    rows = [("Readings", report.readings), ("Days with a reading", report.days_read)]
    if report.values:
        rows.insert(1, ("Sum of their values", report.values))
    columns = ["", "This week so far" if report.running else "This week"]
    cells = [[title, f"**{compared.now:,.0f}**"] for title, compared in rows]
    for title, which in (("Week before", "before"), ("Usual week", "usual")):
        if getattr(report.readings, which) is None:
            continue
        columns += [title, "Change"]
        for row, (_, compared) in zip(cells, rows, strict=True):
            other = getattr(compared, which)
            row += [_number(other), "" if compared is report.days_read else change(compared.now, other)]
    notes = []
    if len(report.known) < 7:
        notes.append(f"All counted over {_join([f'{day.day:%A}' for day in report.known])} only.")
    if report.readings.usual is not None:
        notes.append("The usual week is the median of the twelve before, as far as they are known.")
    return "\n\n".join((_table(columns, cells), *([" ".join(notes)] if notes else [])))


def _sources(report: WeeklyReport) -> str:
    if not report.sources:
        return "None."
    shown = report.sources[:_SHOWN_SOURCES]
    # Who is new or missed is never cut off.
    shown += tuple(each for each in (*report.new, *report.back, *report.silent) if each not in shown)
    total = report.readings.now
    compared = {
        which: title
        for which, title in (("before", "week before"), ("usual", "usual week"))
        if getattr(report.readings, which) is not None
    }
    rows = [
        [
            name(each.source),
            f"{each.readings.now:,.0f}",
            f"{100 * each.readings.now / total:.0f} %" if total else "–",
            *(change(each.readings.now, getattr(each.readings, which)) for which in compared),
            _note(each, report),
        ]
        for each in shown
    ]
    titles = [f"Against the {compared[which]}" for which in compared]
    text = _table(["Source", "Readings", "Share", *titles, ""], rows)
    hidden = len(report.sources) - len(shown)
    return text + (f"\n\nAnd {hidden:,} more." if hidden else "")


def _note(source: Source, report: WeeklyReport) -> str:
    if source in report.new:
        return "**new**"
    if source in report.back and source.last_day:
        return f"**back**, last on {_short(source.last_day, report)}"
    if source in report.silent and source.last_day:
        return f"**silent**, last on {_short(source.last_day, report)}"
    return ""


def _streak(report: WeeklyReport) -> str:
    streak, broken, record = report.streak, report.broken, report.record
    sentences = []
    if broken and broken.days > 1:
        gap = broken.last + dt.timedelta(days=1)
        why = "has not been loaded whole" if gap in report.missing else "had no reading"
        sentences.append(f"A streak of {broken.days:,} days ended on {_date(broken.last)}: {gap:%A} {why}.")
    if streak and streak.days > 1:
        since = f"since {_date(streak.first)} {streak.first.year}"
        longest = ": the longest so far" if streak == record else ""
        sentences.append(f"**{streak.days:,} days in a row** with a reading, {since}{longest}.")
    elif streak:
        sentences.append(f"A new one begins with {_date(streak.first)}.")
    else:
        sentences.append("None at the moment.")
    if record and record.days > 1 and record not in (streak, broken):
        sentences.append(f"The longest was of {record.days:,} days, up to {_date(record.last)} {record.last.year}.")
    return " ".join(sentences)


def _notes(report: WeeklyReport) -> list[str]:
    """What else to know of the numbers."""
    notes = []
    if report.running and report.days:
        notes.append(f"{_date(report.until)} is not over ({_readings(report.today or 0)} so far) and not compared yet.")
    if report.missing:
        first, last = report.missing[0], report.missing[-1]
        days = "the whole week" if len(report.missing) == 7 else _join([f"{day:%A}" for day in report.missing])
        notes.append(
            f"Not loaded yet, or not to the end: {days}. To load: `make backfill FROM={first} TO={last}`, then make this report again."
        )
    if report.hours and report.readings.now:
        first_hour, share = report.hours
        busiest = max(report.known, key=lambda day: day.readings)
        notes.append(
            f"Most was read on {busiest.day:%A} ({_readings(busiest.readings)}), and from {first_hour:02}:00 to"
            f" {first_hour + 2:02}:00 UTC ({100 * share:.0f} % of the week)."
        )
    if report.rejected:
        count = report.rejected
        what = (
            "1 document of the week is a dead letter"
            if count == 1
            else f"{count:,} documents of the week are dead letters"
        )
        notes.append(f"{what}: see the table `reading_rejects`.")
    return ["## Notes", "\n".join(f"- {note}" for note in notes)] if notes else []


def _span(report: WeeklyReport) -> str:
    first, last = report.week.monday, report.week.end - dt.timedelta(days=1)
    month = "" if first.month == last.month else f" {first:%B}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{first.day}{month}{year} to {last.day} {last:%B} {last.year} ({report.week})"


def _date(day: dt.date) -> str:
    return f"{day:%A}, {day.day} {day:%B}"


def _short(day: dt.date, report: WeeklyReport) -> str:
    return f"{day.day} {day:%B}" + ("" if day.year == report.week.monday.year else f" {day.year}")


def name(source: str) -> str:
    """A source's name, made harmless for Markdown and short enough for a table."""
    text = " ".join(source.split()) or "(no name)"
    if len(text) > 40:
        text = f"{text[:39]}…"
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def _readings(count: int) -> str:
    return "1 reading" if count == 1 else f"{count:,} readings"


def _about(usual: float) -> str:
    return f"about {usual:,.0f}" if round(usual) else "usually none"


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _join(names: list[str], more: int = 0) -> str:
    if more > 0:
        names = [*names, f"{more} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: words to the left, numbers to the right."""
    left = {0, len(columns) - 1} if not columns[-1] else {0}
    rule = ["---" if place in left else "---:" for place in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))
