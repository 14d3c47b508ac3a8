"""`hub rollups` on a terminal."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

from hub.cli.session import console
from hub.rollups.declared import ROLLUPS
from hub.rollups.status import status
from hub.settings import Settings
from hub.timescale.connection import connect


def show_status(settings: Settings, as_json: bool) -> None:
    """Print the status of every rollup."""
    with connect(settings) as connection:
        found = status(connection, ROLLUPS)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], default=str, indent=2))
        return
    for one in found:
        policies = "; ".join(f"{name} ({text})" for name, text in one.policies.items()) or "none"
        console.print(f"[bold]{one.name}[/bold]  {one.rows:,} rows, {one.bytes / 2**20:,.1f} MiB")
        console.print(f"  watermark  {_time(one.watermark)}, {str(one.lag).split('.')[0]} behind the source")
        console.print(f"  refreshed  {_time(one.refreshed_at)}, {one.dirty:,} buckets waiting")
        console.print(f"  policies   {policies}", soft_wrap=True)
    if found:
        console.print(f"Level {found[0].level.value}: {found[0].level.title}")


def _time(time: dt.datetime | None) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC" if time else "never"
