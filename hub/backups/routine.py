"""The same steps with their books and notifications: what the command line and Dagster both call."""

from __future__ import annotations

import dataclasses
import datetime as dt

from hub.backups import books, offsite
from hub.backups.digests import Readings
from hub.backups.drill import drill
from hub.backups.dump import Report
from hub.backups.model import Backup, DrillRecord, Verification
from hub.backups.restore import Planned, Request, RestoreReport, restore
from hub.backups.retention import PruneReport, prune
from hub.backups.run import Wanted, take
from hub.backups.store import Store
from hub.backups.verify import newest, newest_verified, verify
from hub.settings import Settings


def _quiet(progress: object) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Freshness:
    """The newest verified backup and its age; both None if there is none."""

    name: str | None
    age: dt.timedelta | None
    limit: dt.timedelta

    @property
    def problem(self) -> str | None:
        if self.age is None:
            return "there is no verified backup: run `hub backup run`, or look why it fails in `hub backup list`"
        if self.age > self.limit:
            hours = self.age / dt.timedelta(hours=1)
            return f"the newest verified backup {self.name} is {hours:.0f} hours old: run `hub backup run`"
        return None


def run_backup(settings: Settings, wanted: Wanted, *, report: Report = _quiet) -> Backup:
    """Take a backup. Files that are missing from a volume are told, not raised."""
    with books.recorded(settings, "backup") as entry:
        backup = take(settings, wanted, report=report)
        entry.backup, entry.manifest_sha256 = backup.name, backup.manifest_sha256
        entry.bytes, entry.bytes_live, entry.rows = (
            backup.manifest.bytes,
            backup.manifest.bytes_live,
            backup.manifest.rows,
        )
        if backup.manifest.flaws:
            entry.problem = f"backup {backup.name} is not complete: {'; '.join(backup.manifest.flaws[:10])}"
    return backup


def run_verify(
    settings: Settings, name: str = "latest", *, report: Report = _quiet, readings: Readings | None = None
) -> tuple[str, Verification]:
    """Verify a backup against its manifest, and the manifest against the books.

    With the `readings` of other backups, a file that they share is not read again.
    """
    with books.recorded(settings, "verify") as entry:
        if name == "latest":
            name = newest(Store(settings.backup_dir)).name
        entry.backup = name
        expected = books.manifest_digest(settings, name)
        result = verify(settings, name, expected_sha256=expected, report=report, readings=readings)
        entry.bytes = result.bytes
        if not result.ok:
            entry.problem = (
                f"backup {name} is damaged: {'; '.join(result.problems[:5])}. Take a new one; keep this one aside."
                + (f" Also damaged, because they share a file: {', '.join(result.also)}." if result.also else "")
            )
    return name, result


def run_drill(settings: Settings, name: str = "latest", *, report: Report = _quiet) -> tuple[str, DrillRecord]:
    """Hold a restore drill."""
    with books.recorded(settings, "drill") as entry:
        name = Store(settings.backup_dir).find(name).name
        entry.backup = name
        result = drill(settings, name, report=report)
        entry.rows = result.rows
        if not result.ok:
            entry.problem = f"backup {name} does not restore as it was taken: {'; '.join(result.differences[:5])}"
    return name, result


def run_prune(settings: Settings, *, dry_run: bool = False) -> PruneReport:
    """Apply retention here, and off-site where BACKUP_URL is set."""
    if dry_run:
        return prune(settings, dry_run=True)
    with books.recorded(settings, "prune") as entry:
        done = prune(settings)
        entry.bytes = done.bytes
    return done


def run_upload(settings: Settings, name: str = "latest", *, report: Report = _quiet) -> offsite.UploadReport:
    """Copy a backup off-site, verify the copy, apply retention there. Raises SettingsError without BACKUP_URL."""
    with books.recorded(settings, "upload") as entry:
        entry.backup = Store(settings.backup_dir).find(name).name
        done = offsite.upload(settings, entry.backup, report=report)
        entry.bytes = done.bytes
    return done


def run_restore(settings: Settings, request: Request, planned: Planned, *, report: Report = _quiet) -> RestoreReport:
    """Carry out a restore, and write it into the books of the database that serves afterwards."""
    done = restore(settings, request, planned=planned, report=report)
    with books.recorded(settings, "restore", done.backup) as entry:
        entry.rows = done.rows
    return done


def freshness(settings: Settings, now: dt.datetime | None = None) -> Freshness:
    """How old the newest verified backup is."""
    now = now or dt.datetime.now(dt.UTC)
    limit = dt.timedelta(hours=settings.backup_stale_hours)
    backup = newest_verified(Store(settings.backup_dir), now)
    if backup is None:
        return Freshness(None, None, limit)
    return Freshness(backup.name, now - backup.manifest.created_at, limit)


def watch(settings: Settings, now: dt.datetime | None = None) -> Freshness:
    """Tell when backups have become stale, and when they are fresh again."""
    found = freshness(settings, now)
    books.say(settings, "age", found.problem)
    return found
