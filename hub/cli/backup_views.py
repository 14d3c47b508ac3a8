"""How backups look on a terminal and as JSON."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from hub.backups.dump import Report
from hub.backups.model import Backup, State, Verification
from hub.backups.retention import PruneReport
from hub.backups.shared import Holdings
from hub.cli.session import console

_COLOURS = {State.VERIFIED: "green", State.UNVERIFIED: "yellow", State.DAMAGED: "red"}


@contextlib.contextmanager
def shown() -> Iterator[Report]:
    """A line that says how far the engine is, on a terminal; nothing elsewhere."""
    with Bar(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as bar:  # fmt: skip
        task = bar.add_task("")
        yield lambda progress: bar.update(task, description=str(progress))


def as_json(backup: Backup, *, full: bool = False) -> dict[str, object]:
    """A backup for scripts. `verified` and `created_at` are what the GitOps gate looks at."""
    manifest, drill = backup.manifest, backup.drill
    answer: dict[str, object] = {
        "name": backup.name,
        "created_at": manifest.created_at.isoformat(),
        "status": str(backup.state),
        "verified": backup.state is State.VERIFIED,
        "verified_at": backup.verification.at.isoformat() if backup.verification else None,
        "drilled_at": drill.at.isoformat() if drill else None,
        "restorable": drill.ok if drill else None,
        "pinned": backup.pinned,
        "bytes": manifest.bytes,
        "bytes_live": manifest.bytes_live,
        "rows": manifest.rows,
        "seconds": manifest.seconds,
        "databases": [part.name for part in manifest.databases],
        "volumes": [part.name for part in manifest.volumes],
        "complete": not manifest.flaws,
    }
    if full:
        answer |= {
            "tables": {part.name: part.facts.tables for part in manifest.databases},
            "timescaledb": {part.name: part.timescaledb for part in manifest.databases},
            "flaws": list(manifest.flaws),
            "notes": list(manifest.notes),
            "files": len(manifest.files),
            "problems": list(backup.verification.problems) if backup.verification else [],
            "differences": list(drill.differences) if drill else [],
        }
    return answer


def list_table(backups: Sequence[Backup], bad: Mapping[str, str], folder: Path, held: Holdings) -> None:
    """Print the list. `alone` is what no other backup holds: what is freed when this one goes."""
    if not backups and not bad:
        console.print(f"No backups in {folder}. Take one with `hub backup run`.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("backup", "age", "size", "alone", "rows", "holds", "state", "drill", ""):
        table.add_column(column, justify="right" if column in ("age", "size", "alone", "rows") else "left")
    now = dt.datetime.now(dt.UTC)
    for backup in backups:
        manifest = backup.manifest
        parts = [*(part.name for part in manifest.databases), *(part.name for part in manifest.volumes)]
        drill = backup.drill
        table.add_row(
            backup.name, _age(now - manifest.created_at), f"{manifest.bytes / 2**20:,.1f} MiB",
            f"{held.alone([backup.name]) / 2**20:,.1f} MiB", f"{manifest.rows:,}", ", ".join(parts),
            f"[{_COLOURS[backup.state]}]{backup.state}[/]",
            "" if drill is None else "[green]restores[/]" if drill.ok else "[red]differs[/]",
            "pinned" if backup.pinned else "",
        )  # fmt: skip
    console.print(table)
    if len(backups) > 1:
        console.print(f"{held.bytes / 2**20:,.1f} MiB in all: what is the same is stored once.")
    for name, why in bad.items():
        console.print(f"[red]✗[/red] {name}: {why}", soft_wrap=True)


def show_backup(backup: Backup, own: Mapping[str, int]) -> None:
    """Print one backup; `own` are the bytes that it alone holds, by what they are."""
    manifest = backup.manifest
    console.print(f"[bold]{backup.name}[/bold], {backup.state}{', pinned' if backup.pinned else ''}")
    console.print(
        f"  taken {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC by hub {manifest.hub_version} in {manifest.seconds:.1f} s"
    )
    console.print(
        f"  {len(manifest.files):,} files, {manifest.bytes / 2**20:,.1f} MiB of {manifest.bytes_live / 2**20:,.1f} MiB"
    )
    largest = sorted(own.items(), key=lambda item: -item[1])
    console.print(
        f"  of its own: {sum(own.values()) / 2**20:,.1f} MiB ("
        + ", ".join(f"{what} {size / 2**20:,.2f}" for what, size in largest) + ")",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    for part in manifest.databases:
        extension = f", TimescaleDB {part.timescaledb}" if part.timescaledb else ""
        console.print(
            f"  database {part.name}: {part.facts.rows:,} rows,"
            f" PostgreSQL {part.server_version}{extension}, {part.codec}",
            soft_wrap=True,
        )
        for table, rows in part.facts.tables.items():
            if rows:
                console.print(f"    {table} {rows:,}", soft_wrap=True)
    for volume in manifest.volumes:
        console.print(f"  volume {volume.name}: {volume.entries:,} entries from {volume.source}", soft_wrap=True)
        for oddity in volume.oddities:
            console.print(f"    {oddity.path} {oddity.what}", markup=False, soft_wrap=True)
    for note in manifest.notes:
        console.print(f"  note: {note}", markup=False, soft_wrap=True)
    if backup.drill:
        console.print(f"  drill {backup.drill.at:%Y-%m-%d %H:%M} UTC: {'restores' if backup.drill.ok else 'differs'}")


def tell_verification(name: str, result: Verification) -> int:
    """Print the result of a verification; return the exit code."""
    if result.ok:
        console.print(
            f"[green]✓[/green] {name} verified: {result.bytes / 2**20:,.1f} MiB read back in {result.seconds:.1f} s"
        )
        return 0
    for problem in result.problems:
        console.print(f"[red]✗[/red] {name}: {problem}", soft_wrap=True)
    for other in result.also:
        console.print(f"[red]✗[/red] {other} shares a damaged file, and is marked as damaged too", soft_wrap=True)
    return 1


def plan_lines(done: PruneReport, dry_run: bool) -> None:
    """Print what retention keeps and why, and what it removes."""
    for name, reasons in done.plan.keep.items():
        console.print(f"  keep   {name}  {', '.join(reasons)}", markup=False, soft_wrap=True)
    for name in done.plan.remove:
        word = "remove" if dry_run or name in done.removed else "in use"
        console.print(f"  {word} {name}", markup=False)
    freed = f", {done.bytes / 2**20:,.1f} MiB freed" if done.removed else ""
    console.print(f"{len(done.plan.keep)} kept, {len(done.plan.remove)} {'would go' if dry_run else 'removed'}{freed}.")


def _age(age: dt.timedelta) -> str:
    hours = age / dt.timedelta(hours=1)
    if hours < 0:
        return "in the future"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} d"
