"""`hub backup …` and `hub restore` on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.backup_views import as_json, list_table, plan_lines, shown, tell_verification
from hub.cli.session import console, given_settings, session
from hub.errors import SettingsError

backup = typer.Typer(no_args_is_help=True, help="Take, look at, verify, rotate and drill backups.")

Name = Annotated[str, typer.Argument(help="Name of a backup; `hub backup list` shows them.")]
Json = Annotated[bool, typer.Option("--json", help="JSON in place of text.")]


@backup.command("run")
def run(
    volumes_of: Annotated[list[Path] | None, typer.Option(help="A folder to archive as well; may be repeated.")] = None,
    databases: Annotated[bool, typer.Option(help="Leave the databases out with --no-databases.")] = True,
    upload: Annotated[bool, typer.Option(help="Copy off-site too, if BACKUP_URL is set.")] = True,
) -> None:
    """Take a backup, read it back, and copy it to BACKUP_URL. Exit code 1 if anything is not as it should be."""
    from hub.backups.routine import run_backup, run_upload, run_verify
    from hub.backups.run import Wanted

    with session() as current, shown() as report:
        settings = current.settings
        wanted = Wanted.of(settings, volumes_of or [])
        taken = run_backup(settings, Wanted(databases, wanted.volumes), report=report)
        _, verified = run_verify(settings, taken.name, report=report)
        copied = (
            run_upload(settings, taken.name, report=report) if upload and settings.backup_url and verified.ok else None
        )
    manifest = taken.manifest
    console.print(
        f"Backup [bold]{taken.name}[/bold]: {manifest.rows:,} rows, {manifest.bytes_live / 2**20:,.1f} MiB in"
        f" {manifest.bytes / 2**20:,.1f} MiB, {manifest.seconds + verified.seconds:.1f} s,"
        f" in {settings.backup_dir.absolute()}",
        soft_wrap=True,
    )
    for note in (*manifest.notes, *manifest.flaws):
        console.print(f"  {note}", markup=False, soft_wrap=True)
    if copied:
        console.print(f"Copied off-site: {copied.sent} of {copied.files} files sent, all read back.")
    code = tell_verification(taken.name, verified)
    raise typer.Exit(code or int(bool(manifest.flaws)))


@backup.command("list")
def list_(
    as_json_: Json = False,
    verified: Annotated[bool, typer.Option("--verified", help="Only those that were verified.")] = False,
) -> None:
    """The backups in BACKUP_DIR, oldest first."""
    from hub.backups.model import State
    from hub.backups.shared import Holdings
    from hub.backups.store import Store

    settings = given_settings()
    store = Store(settings.backup_dir)
    held = Holdings.of(store)
    backups, bad = store.backups()
    if verified:
        backups, bad = [one for one in backups if one.state is State.VERIFIED], {}
    if as_json_:
        print(
            json.dumps(
                [
                    *(as_json(one) | {"bytes_alone": held.alone([one.name])} for one in backups),
                    *(
                        {"name": name, "status": "damaged", "verified": False, "problem": why}
                        for name, why in bad.items()
                    ),
                ],
                indent=2,
            )
        )
    else:
        list_table(backups, bad, store.folder, held)


@backup.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a backup, or latest.")] = "latest", as_json_: Json = False
) -> None:
    """What one backup holds, and what is known of it."""
    from hub.backups.shared import Holdings
    from hub.backups.store import Store
    from hub.cli.backup_views import show_backup

    settings = given_settings()
    store = Store(settings.backup_dir)
    found = store.find(name)
    own = Holdings.of(store).by_kind(store, found.name)
    if as_json_:
        print(json.dumps(as_json(found, full=True) | {"bytes_alone": sum(own.values()), "alone": own}, indent=2))
    else:
        show_backup(found, own)


@backup.command("verify")
def verify(
    name: Annotated[str, typer.Argument(help="Name of a backup; latest is the newest one.")] = "latest",
    every: Annotated[bool, typer.Option("--all", help="Every backup.")] = False,
) -> None:
    """Read a backup back, every byte, and keep the result. Exit code 1 if it is damaged."""
    from hub.backups.digests import Readings
    from hub.backups.routine import run_verify
    from hub.backups.store import Store

    code, readings = 0, Readings()
    with session() as current, shown() as report:
        names = Store(current.settings.backup_dir).names() if every else [name]
        results = [run_verify(current.settings, one, report=report, readings=readings) for one in names]
    for one, result in results:
        code |= tell_verification(one, result)
    raise typer.Exit(code)


@backup.command("prune")
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
) -> None:
    """Remove what retention (BACKUP_KEEP_*) does not keep. The newest verified backup always stays."""
    from hub.backups.routine import run_prune

    if dry_run:
        from hub.backups.retention import prune as plan_only

        settings = given_settings()
        done = plan_only(settings, dry_run=True)
    else:
        with session() as current:
            done = run_prune(current.settings)
    plan_lines(done, dry_run)


@backup.command("pin")
def pin(name: Name, off: Annotated[bool, typer.Option("--off", help="Let retention have it again.")] = False) -> None:
    """Keep a backup for good."""
    from hub.backups.store import Store

    settings = given_settings()
    Store(settings.backup_dir).pin(name, not off)
    console.print(f"{name} is {'no longer pinned' if off else 'pinned'}.")


@backup.command("drill")
def drill(name: Annotated[str, typer.Argument(help="Name of a backup, or latest.")] = "latest") -> None:
    """Restore a backup into a scratch database, compare, drop it, keep the result. Exit code 1 if it differs."""
    from hub.backups.routine import run_drill

    with session() as current, shown() as report:
        name, result = run_drill(current.settings, name, report=report)
    if result.ok:
        console.print(
            f"[green]✓[/green] {name} restores: {result.rows:,} rows as in its manifest, {result.seconds:.1f} s"
        )
        return
    for difference in result.differences:
        console.print(f"[red]✗[/red] {name}: {difference}", soft_wrap=True)
    raise typer.Exit(1)


@backup.command("upload")
def upload(name: Annotated[str, typer.Argument(help="Name of a backup, or latest.")] = "latest") -> None:
    """Copy a verified backup to BACKUP_URL and read the copy back; goes on where it was broken off."""
    from hub.backups.routine import run_upload

    with session() as current, shown() as report:
        done = run_upload(current.settings, name, report=report)
    console.print(f"{done.name}: {done.sent} of {done.files} files sent, {done.bytes / 2**20:,.1f} MiB read back.")


@backup.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="Name of a copy, or latest.")] = "latest") -> None:
    """Bring a copy from BACKUP_URL into BACKUP_DIR, decrypted and verified."""
    from hub.backups.offsite import fetch as bring

    settings = given_settings()
    with shown() as report:
        done = bring(settings, name, report=report)
    console.print(
        f"{done.name} is in {settings.backup_dir.absolute()}, verified. `hub restore --backup {done.name}` restores it."
    )


def restore(
    name: Annotated[str, typer.Option("--backup", help="Name of a backup, or latest.")] = "latest",
    database: Annotated[str | None, typer.Option(help="Which database of the backup; the hub's unless given.")] = None,
    into: Annotated[str | None, typer.Option(help="Restore beside under this name; replace nothing.")] = None,
    tables: Annotated[str, typer.Option(help="Only these tables, separated by commas.")] = "",
    volumes: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER, may be repeated; alone, no database is touched.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and check everything, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before something is replaced.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put back the database that the last restore has kept.")] = False,
    drop_kept: Annotated[bool, typer.Option("--drop-kept", help="Drop the databases that restores have kept.")] = False,
) -> None:
    """Restore a backup: verified first, restored beside, compared, then swapped in; the old one is kept."""
    from hub.backups import swap
    from hub.backups.restore import Request, prepare
    from hub.backups.routine import run_restore

    places = dict(_place(text) for text in volumes or [])
    chosen = tuple(part.strip() for part in tables.split(",") if part.strip())
    only_volumes = bool(places) and not (database or into or chosen)
    request = Request(name, database, into, chosen, places, with_database=not only_volumes)
    with session() as current:
        settings = current.settings
        live = database or settings.db_name
        if undo:
            _confirm(yes, f"Put the kept database back into the place of {live!r}?")
            done = swap.undo(settings, live)
            console.print(f"{done.live!r} serves again as it was kept; what it replaced is {done.kept!r}.")
            return
        if drop_kept:
            kept = swap.kept_databases(settings, live)
            if kept:
                _confirm(yes, f"Drop {', '.join(kept)}?")
            swap.drop_kept(settings, live)
            console.print(f"Dropped: {', '.join(kept) or 'nothing, none was kept'}.")
            return
        with shown() as report:
            planned = prepare(settings, request, report=report)
        console.print(f"Backup {planned.backup.name}, verified just now. This will:")
        for step in (*planned.steps, *planned.remarks):
            console.print(f"  · {step}", markup=False, soft_wrap=True)
        if dry_run:
            console.print("Nothing was changed (--dry-run).")
            return
        if planned.replaces:
            _confirm(yes, "Go on?")
        with shown() as report:
            result = run_restore(settings, request, planned, report=report)
    console.print(
        f"[green]✓[/green] restored from {result.backup}: {result.rows:,} rows compared, {result.seconds:.1f} s"
    )
    for text in _outcome(result):
        console.print(f"  · {text}", markup=False, soft_wrap=True)


def _outcome(result: object) -> Iterator[str]:
    from hub.backups.restore import RestoreReport

    assert isinstance(result, RestoreReport)
    if result.swap and result.swap.kept:
        yield (
            f"the old database is kept as {result.swap.kept!r}: `hub restore --undo` goes back to it,"
            " `hub restore --drop-kept` drops it"
        )
    for table in result.tables:
        yield f"{table.table}: {table.after:,} rows in place of {table.before:,}"
    if result.tables:
        yield "rollups built on them are marked: the next load, or `hub db upgrade`, recomputes them"
    for volume in result.volumes:
        kept = f"; the earlier content is in {volume.kept}" if volume.kept else ""
        yield f"{volume.name}: {volume.entries:,} entries in {volume.place}{kept}"
    if result.roles:
        yield f"roles created: {', '.join(result.roles)}"
    yield from result.remarks


def _confirm(yes: bool, question: str) -> None:
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)


def _place(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise SettingsError(f"--volumes {text!r} must be NAME=FOLDER, such as grafana_data=/srv/grafana")
    return name, Path(folder)
