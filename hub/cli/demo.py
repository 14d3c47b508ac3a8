"""The first look: sample readings from MongoDB to rollups in one Dagster run, and what came of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time

import typer
from rich.table import Table

from hub import mongo
from hub.cli.launch import launch_range
from hub.cli.session import Session, console
from hub.errors import HubError
from hub.rollups.declared import ROLLUPS
from hub.seed import DEFAULT_DAYS, seed
from hub.settings import Settings
from hub.streams.declared import reading
from hub.timescale import connection as postgres
from hub.timescale.connection import Connection, connect
from hub.timescale.schema import upgrade


@dataclasses.dataclass(frozen=True)
class _Counts:
    """Rows, and the newest change of any."""

    readings: int
    rejects: int
    changed_at: dt.datetime | None


def run_demo(current: Session) -> None:
    """Upgrade, seed, load, roll up, check, and print a summary. Raises typer.Exit when the run fails."""
    began = time.monotonic()
    settings = current.settings
    console.print(
        f"Source    {mongo.where(settings, reading(settings))}{' (embedded)' if current.sample_source else ''}"
    )
    console.print(f"Store     {postgres.where(settings)}{' (embedded)' if 'DB_HOST' in current.embedded else ''}")
    done = upgrade(settings)
    console.print(f"Schema    revision {done.after}, {done.level.title}")
    first, last = _days(current)
    with connect(settings) as connection:
        before = _counts(connection)
    console.print(f"Loading   {first} to {last}, {(last - first).days + 1} days as one Dagster run")
    if code := launch_range(settings, first, last):
        raise typer.Exit(code)
    with connect(settings) as connection:
        unchanged = _counts(connection) == before
        table = _table(connection, first, last)
    table.add_row("backup", _backup(settings))
    console.print(table)
    if unchanged:
        console.print("[green]No row changed[/green]: everything was loaded already, and loading again is harmless.")
    console.print(f"Took {time.monotonic() - began:.0f} s. The data is in {settings.hub_data_dir.absolute()}.")
    console.print("Next:  [bold]make dev[/bold]    the Dagster UI on http://127.0.0.1:3000")
    console.print("       [bold]make doctor[/bold] what is set up, and what is missing")
    console.print("       set MONGO_URI in .env (see .env.example) to load readings of your own")


def _backup(settings: Settings) -> str:
    """Take a backup and read it back. Raises HubError when either goes wrong."""
    from hub.backups.routine import run_backup, run_verify
    from hub.backups.run import Wanted

    with console.status("Taking a backup, and reading it back"):
        taken = run_backup(settings, Wanted.of(settings, []))
        _, verified = run_verify(settings, taken.name)
    if not verified.ok:
        raise HubError(f"the backup {taken.name} is damaged: see `hub backup show {taken.name}`")
    return f"{taken.name}: {taken.manifest.rows:,} rows, {taken.manifest.bytes / 2**20:.1f} MiB, every byte read back"


def _days(current: Session) -> tuple[dt.date, dt.date]:
    """The days to load: those of the samples, or the last ones of a real source, which is never written to."""
    if not current.sample_source:
        today = dt.datetime.now(dt.UTC).date()
        return today - dt.timedelta(days=DEFAULT_DAYS - 1), today
    with mongo.collection(current.settings, reading(current.settings)) as documents:
        sown = seed(documents)
    added = (
        f"{sown.added:,} sample documents written" if sown.added else f"{sown.documents:,} documents, left as they are"
    )
    console.print(f"Samples   {added}")
    return sown.first, sown.last


def _counts(connection: Connection) -> _Counts:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM reading_analytics), (SELECT count(*) FROM reading_rejects),"
        " greatest((SELECT max(ingested_at) FROM reading_analytics), (SELECT max(rejected_at) FROM reading_rejects))"
    ).fetchone()
    assert row is not None
    return _Counts(*row)


def _table(connection: Connection, first: dt.date, last: dt.date) -> Table:
    table = Table(show_header=False, title=f"Reading Hub, {first} to {last}", title_justify="left")
    bounds = {"first": first, "last": last + dt.timedelta(days=1)}
    readings, days, sources = connection.execute(
        "SELECT count(*), count(DISTINCT (event_timestamp AT TIME ZONE 'UTC')::date), count(DISTINCT source)"
        " FROM reading_analytics WHERE event_timestamp >= %(first)s::date::timestamptz"
        " AND event_timestamp < %(last)s::date::timestamptz",
        bounds,
    ).fetchone() or (0, 0, 0)
    table.add_row("readings", f"{readings:,} on {days} days from {sources} sources")
    reasons = connection.execute(
        "SELECT reason, count(*) FROM reading_rejects GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    rejects = ", ".join(f"{reason} {count}" for reason, count in reasons) or "none"
    table.add_row("rejects", f"{sum(count for _, count in reasons)}: {rejects}" if reasons else "none")
    for rollup in ROLLUPS:
        if rollup.table != "reading_analytics":
            continue
        row = connection.execute(
            f"SELECT count(*), sum(events), sum(value_sum) FROM {rollup.name}"
            " WHERE bucket >= %(first)s::date::timestamptz AND bucket < %(last)s::date::timestamptz",
            bounds,
        ).fetchone()
        rows, events, total = row or (0, 0, 0)
        table.add_row(rollup.name, f"{rows:,} rows, {events or 0:,} events, value sum {total or 0:,.1f}")
    return table
