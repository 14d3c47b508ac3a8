"""Make the report of a week: the Markdown with its plot inside for Dagster, and both as files of the data folder."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import os
from pathlib import Path
from typing import Any

from hub.errors import HubError
from hub.report.weekly import analyse, read
from hub.report.weekly_model import Week, WeeklyReport
from hub.report.weekly_plot import plot
from hub.report.weekly_text import headline, render
from hub.settings import Settings
from hub.timescale.connection import connect


@dataclasses.dataclass(frozen=True)
class WrittenReport:
    """A report, as it is shown and where it is."""

    report: WeeklyReport
    markdown: str
    """With the plot as a data URI, about 30 kB."""
    path: Path

    @property
    def headline(self) -> str:
        """The week in one or two lines of Markdown."""
        return headline(self.report)

    def to_metadata(self) -> dict[str, Any]:
        """The numbers, which Dagster draws over the weeks. What cannot be said of this week is left out."""
        report = self.report
        numbers = {
            "readings": int(report.readings.now),
            "readings_week_before": report.readings.before,
            "readings_usual_week": report.readings.usual,
            "days_with_a_reading": int(report.days_read.now),
            "streak_days": report.streak.days if report.streak else 0,
            "unusual_days": len(report.unusual),
            "sources": sum(1 for each in report.sources if each.readings.now),
            "sources_new": len(report.new),
            "sources_silent": len(report.silent),
            "days_not_loaded": len(report.missing),
        }
        return {name: number for name, number in numbers.items() if number is not None}


def make(settings: Settings, week: Week, today: dt.date) -> WrittenReport:
    """Read, analyse, draw and write the week's report; `today` is the running UTC day.

    The same rollups give the same bytes. Raises UnavailableError, DeniedError or SchemaError for the
    database, and HubError when the file cannot be written.
    """
    with connect(settings) as connection:
        report = analyse(read(connection, week, today))
    image = plot(report)
    folder = settings.hub_data_dir.absolute() / "reports"
    path = folder / f"{week}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The picture first: the text never points to one that is not there.
        write(path.with_suffix(".png"), image)
        write(path, render(report, path.with_suffix(".png").name).encode())
    except OSError as error:
        raise HubError(
            f"the report {path} cannot be written ({error.strerror}). Make room or give its folder to the user that"
            " Dagster runs as, then make the report again."
        ) from error
    data = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return WrittenReport(report, render(report, data), path)


def write(path: Path, content: bytes) -> None:
    """Replace the file in one step: whoever reads it sees the old or the new content, also after a crash."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
