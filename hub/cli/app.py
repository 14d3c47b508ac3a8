"""The commands."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.backup import backup, restore
from hub.cli.metrics import metrics
from hub.cli.proxy import proxy
from hub.cli.session import DAGSTER_FOLDER, console, given_settings, session
from hub.cli.stack import gateway, mongo
from hub.errors import SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reading Hub: reading events from MongoDB to TimescaleDB, rolled up and backed up.",
)
db = typer.Typer(no_args_is_help=True, help="The schema of the database, and its roles.")
app.add_typer(db, name="db")
app.add_typer(backup, name="backup")
app.command()(restore)
rollups = typer.Typer(no_args_is_help=True, help="The rollups.")
app.add_typer(rollups, name="rollups")
app.add_typer(metrics, name="metrics")
app.add_typer(proxy, name="proxy")
app.add_typer(mongo, name="mongo")
app.add_typer(gateway, name="gateway")


@app.command()
def demo() -> None:
    """Sample readings from MongoDB to rollups, on embedded databases, and a summary."""
    with session() as current:
        from hub.cli.demo import run_demo  # here and below, after the settings: a wrong one is told at once

        run_demo(current)


@app.command()
def dev(port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000) -> None:
    """The demo, then the Dagster UI with its daemon, until Ctrl-C."""
    from hub.cli.dev import refuse_taken, run_dev

    given_settings()  # a wrong setting is told first, whatever listens on the port
    refuse_taken(port)
    with session() as current:
        from hub.cli.demo import run_demo

        run_demo(current)
        run_dev(port)


@app.command()
def backfill(first: str, last: str) -> None:
    """Load the UTC days FIRST to LAST, both included, as one Dagster run."""
    from hub.cli.launch import launch_range, parse_days

    days = parse_days(first, last)
    with session() as current:
        code = launch_range(current.settings, *days)
    raise typer.Exit(code)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(command: Annotated[list[str], typer.Argument(help="The command and its arguments.")]) -> None:
    """Run a command with the hub's environment, with embedded databases where none are configured.

    For Dagster's own command line: hub run dg launch --assets reading_daily --partition 2026-01-01
    """
    with session() as current:
        program = Path(command[0]).name
        beside = current.embedded and program.startswith(("dagster", "dg")) and Path(".env").exists()
        code = subprocess.run(command, cwd=DAGSTER_FOLDER if beside else None).returncode
    raise typer.Exit(code if code >= 0 else 128 - code)


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
def gitops(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """The GitOps agent: sync NAME, plan NAME, status [NAME] --json. Needs no settings and no database."""
    from hub.gitops.__main__ import main as agent

    raise typer.Exit(agent(arguments or ["--help"]))


@app.command()
def notify(
    topic: str,
    well: Annotated[bool, typer.Option("--well", help="The topic is well again; nothing is read.")] = False,
) -> None:
    """Tell NOTIFY_URLS that TOPIC fails, with the problem from standard input: once until `--well`.

    Exits 3 where NOTIFY_URLS is not set, so that nobody was told.
    """
    from hub.notify import Told, tell

    problem = None if well else sys.stdin.read().strip() or "no details given"
    with session() as current:
        told = tell(current.settings, topic, problem)
    console.print(told.value)
    raise typer.Exit(3 if told is Told.NOBODY else 0)


@app.command()
def smoke(
    yes: Annotated[bool, typer.Option("--yes", help="Write the reading to whatever MongoDB is configured.")] = False,
) -> None:
    """Send a reading through the running stack and take it away again; Grafana's password comes from standard input.

    Asks first, unless MongoDB is the stack's own.
    """
    from hub.mongo import where
    from hub.smoke import run as go
    from hub.streams.declared import reading

    with session() as current:
        if not (yes or current.own_source):
            place = where(current.settings, reading(current.settings))
            if not sys.stdin.isatty():
                raise SettingsError(
                    f"the smoke test writes a reading to {place}, which is not the stack's own. If it may: --yes (make smoke YES=1)"
                )
            typer.confirm(f"Write a reading to {place}, and delete it again?", abort=True)
        go(current.settings, sys.stdin.readline().strip(), lambda text: console.print(f"[green]✓[/green] {text}"))


@app.command()
def env() -> None:
    """Print the environment for a shell: eval "$(hub env)". The output holds passwords."""
    with session() as current:
        names = [*current.settings.environment(), "DAGSTER_HOME"]
        for name in names:
            print(f"export {name}={shlex.quote(os.environ[name])}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Check everything the hub needs; one line each, with what to do. Exit code 1 if something is red."""
    with session() as current:
        from hub.cli.doctor import run_doctor

        code = run_doctor(current, as_json)
    raise typer.Exit(code)


@app.command()
def ledger(
    stream: Annotated[str | None, typer.Option(help="One stream; all of them by default.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First UTC day, such as 2026-01-31.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last UTC day.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let MongoDB count its documents by day, and compare with what was read. Exits 1 while anything is missing."""
    from hub.cli.launch import parse_day

    days = [parse_day(name, text) if text else None for name, text in (("--from", first), ("--to", last))]
    with session() as current:
        from hub.cli.ledger import show_ledger

        complete = show_ledger(current.settings, stream, days[0], days[1], as_json)
    raise typer.Exit(0 if complete else 1)


@app.command()
def seed(
    count: Annotated[int, typer.Option(min=1, help="How many readings.")] = 20_000,
    days: Annotated[int, typer.Option(min=1, help="Over how many days, up to yesterday.")] = 60,
    into: Annotated[str | None, typer.Option(metavar="DATABASE.COLLECTION", help="Of a MongoDB of your own.")] = None,
) -> None:
    """Fill an empty collection with sample readings. A collection that holds anything is left alone.

    It is that of the embedded server or of the stack's own MongoDB; any other has to be named with --into.
    """
    from hub.mongo import collection, where
    from hub.seed import seed as fill
    from hub.streams.declared import reading

    with session() as current:
        stream = reading(current.settings)
        if into:
            database, _, name = into.partition(".")
            if not (database and name):
                raise SettingsError(f"--into must be DATABASE.COLLECTION, such as reading.samples, not {into!r}")
            stream = dataclasses.replace(stream, database=database, collection=name)
        elif not current.own_source:
            raise SettingsError(
                f"{where(current.settings, stream)} is not the hub's own: name where the samples shall go,"
                f" --into {stream.database}.{stream.collection}"
            )
        with collection(current.settings, stream) as documents:
            done = fill(documents, count=count, days=days)
    if done.added:
        console.print(f"{done.added:,} sample documents written, {done.first} to {done.last}.")
    else:
        console.print(f"The collection holds {done.documents:,} documents already; it was left as it is.")


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database to the schema of this version. Safe to run again, and twice at once."""
    from hub.cli.service import logged

    with logged() as say, session() as current:
        from hub.timescale.schema import upgrade

        done = upgrade(current.settings)
        if not done.changed:
            say(f"Nothing to do: the schema is at revision {done.after} ({done.level.title}).")
        else:
            made = f"; rollups built: {', '.join(done.rollups)}" if done.rollups else ""
            say(f"Schema {done.before or 'empty'} → {done.after} ({done.level.title}){made}.")
        for line in done.said:
            say(line)


@db.command("roles")
def db_roles() -> None:
    """Make the roles and databases that the settings name, with their grants. Safe to run again, and twice at once."""
    from hub.cli.service import logged, service_settings
    from hub.timescale.roles import make_roles

    with logged() as say, service_settings() as settings:
        for line in make_roles(settings) or ("No role beside DB_USER is set; docs/roles.md names the settings.",):
            say(line)


@rollups.command("status")
def rollups_status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Each rollup's level, size, watermark, lag, last refresh and policies."""
    from hub.cli.rollups import show_status

    with session() as current:
        show_status(current.settings, as_json)
