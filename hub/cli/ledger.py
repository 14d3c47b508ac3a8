"""`hub ledger` on a terminal."""

from __future__ import annotations

import datetime as dt
import json

from rich.table import Table

from hub.arrivals import ledger
from hub.arrivals.ledger import Ledger
from hub.cli.session import console
from hub.settings import Settings
from hub.streams.declared import named

_SHOWN = 40


def show_ledger(
    settings: Settings, stream: str | None, first: dt.date | None, last: dt.date | None, as_json: bool
) -> bool:
    """Count, compare and print, for one stream or all; return whether everything of these days was read."""
    found = [ledger.update(settings, one).between(first, last) for one in named(settings, stream)]
    if as_json:
        print(json.dumps([one.to_dict() for one in found], indent=2))
    else:
        for one in found:
            _show(one)
    return all(one.complete for one in found)


def _show(found: Ledger) -> None:
    counted = f"{found.documents:,} documents in MongoDB, counted in {found.seconds:.1f} s"
    console.print(f"[bold]{found.stream}[/bold]  {counted}", soft_wrap=True)
    for name, time in (("recent", found.recent_sweep_at), ("full", found.full_sweep_at)):
        console.print(f"  last {name} sweep  {f'{time:%Y-%m-%d %H:%M} UTC' if time else 'never'}")
    if found.expired:
        console.print(f"  {found.expired:,} documents are older than what is kept, and are not loaded")
    forgotten = sum(day.forgotten for day in found.days)
    if forgotten:
        console.print(f"  {forgotten:,} documents have left MongoDB since they were read; their rows stay")
    if found.wrong:
        table = Table("day", "in MongoDB", "read", "missing", "changed", "asked for")
        for day in found.wrong[:_SHOWN]:
            asked = f"{day.asked_at:%Y-%m-%d %H:%M} UTC" if day.asked_at else "not yet"
            numbers = (f"{number:,}" for number in (day.documents, day.read, day.missing))
            table.add_row(str(day.day), *numbers, "yes" if day.changed else "", asked)
        console.print(table)
        if len(found.wrong) > _SHOWN:
            console.print(f"  … and {len(found.wrong) - _SHOWN:,} more days (--json lists all)")
    if found.missing_undated or found.undated_changed:
        read = f"{found.undated_read:,} of them as they are" if found.missing_undated else "other than they are now"
        console.print(f"  {found.undated:,} documents have no usable time; {read} were read")
    if found.complete:
        console.print(f"[green]✓[/green] every document was read; {found.dead_letters:,} are dead letters")
    else:
        console.print(
            f"[red]✗[/red] {found.missing:,} documents are missing. The sensor readings_arrived asks for them within a"
            " minute, where Dagster runs; `hub backfill FIRST LAST` loads them now.",
            soft_wrap=True,
        )
