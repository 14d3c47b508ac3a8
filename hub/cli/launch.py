"""Launch Dagster runs through its own command line, and show how far they are."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hub.cli.session import DAGSTER_FOLDER, console
from hub.errors import SettingsError
from hub.rollups.declared import ROLLUPS
from hub.settings import Settings

ASSETS = ("reading_analytics", "reading_rejects", *(rollup.name for rollup in ROLLUPS))
# What a person wants to see of Dagster's log: the assets' own lines.
_OWN_LINE = re.compile(r" - (?P<step>\w+) - (?P<text>[\d,]+ (?:documents|readings|buckets) .*)$")


def parse_days(first: str, last: str) -> tuple[dt.date, dt.date]:
    """Two ISO days in order. Raises SettingsError."""
    days = [parse_day(name, text) for name, text in (("FROM", first), ("TO", last))]
    if days[0] > days[1]:
        raise SettingsError(f"FROM {first} is later than TO {last}: swap them")
    return days[0], days[1]


def parse_day(name: str, text: str) -> dt.date:
    """An ISO day. Raises SettingsError, which calls it `name`."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{name} must be a day such as 2026-01-31, not {text!r}") from None


def launch_range(settings: Settings, first: dt.date, last: dt.date, *, quiet: bool = False) -> int:
    """Materialize every reading asset for the days, both included, as one run; return its exit code.

    Dagster's whole log goes to a file; a line for what the assets say is shown.
    """
    log = settings.hub_data_dir.absolute() / "logs" / "launch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["dg", "launch", "--assets", ",".join(ASSETS), "--partition-range", f"{first}...{last}"]
    environment = {**os.environ, "DAGSTER_EVENT_BATCH_SIZE": "100", "PYTHONWARNINGS": "ignore"}
    environment["HUB_LOG_FORMAT"] = "text"  # a person reads it
    with log.open("w") as kept, Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as progress:  # fmt: skip
        task = progress.add_task("Dagster starts the run")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=DAGSTER_FOLDER
        )
        assert process.stdout is not None
        for line in process.stdout:
            kept.write(line)
            if found := _OWN_LINE.search(line):
                progress.update(task, description=f"{found['step']}: {found['text']}")
                if not quiet:
                    progress.print(f"  {found['step']}: {found['text'].strip()}")
        code = process.wait()
    if code:
        _show_failure(log)
    return code


def _show_failure(log: Path) -> None:
    """The sentence of the failure, and where the rest is."""
    text = log.read_text(errors="replace")
    for sentence in dict.fromkeys(re.findall(r"(?:hub\.errors\.\w+|Failure|Error): (.*)", text)):
        console.print(f"[red]✗[/red] {sentence}", soft_wrap=True)
    console.print(f"Dagster's whole log: {log}")
