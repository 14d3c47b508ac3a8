"""The restore drill: a backup restored into a scratch database, compared, dropped, and the result kept inside it."""

from __future__ import annotations

import datetime as dt
import time

from hub.backups import preflight
from hub.backups.dump import Report
from hub.backups.load import create, databases, drop, load, of_kind, scratch_name
from hub.backups.model import Backup, DrillRecord
from hub.backups.restore import LOCK
from hub.backups.store import Store
from hub.backups.verify import examine
from hub.errors import HubError, UnavailableError
from hub.settings import Settings
from hub.timescale.connection import MAINTENANCE, connect

_KIND = "drill"


def drill(settings: Settings, name: str = "latest", *, report: Report = lambda progress: None) -> DrillRecord:
    """Restore every database of backup `name` and compare row counts, rollups, jobs and definitions.

    `latest` is the newest verified one. The result, good or bad, is kept inside the backup. Raises
    HubError when the drill could not be held at all: no space, no server, no tool.
    """
    store, settings = Store(settings.backup_dir), settings.as_admin()
    backup = store.find(name)
    began, started = dt.datetime.now(dt.UTC), time.monotonic()
    with store.lock("a drill", kind=LOCK), store.reading(backup.name) as folder:
        problems = list(examine(backup, folder, report=report).problems)
        rows = 0
        if not problems:
            for part in backup.manifest.databases:
                preflight.check(settings, backup, part, folder)
            _refuse_without_roles(settings, backup)
            for part in backup.manifest.databases:
                for left in of_kind(databases(settings), part.name, _KIND):
                    drop(settings, left)
                scratch = scratch_name(part.name, _KIND)
                try:
                    create(settings, part, scratch)
                    loaded = load(settings, part, folder, scratch, jobs=settings.backup_jobs, report=report)
                    rows += loaded.facts.rows
                    problems += [f"{part.name}: {difference}" for difference in loaded.differences]
                except UnavailableError:
                    raise
                except HubError as error:
                    problems.append(f"{part.name}: {error}")
                finally:
                    drop(settings, scratch)
        record = DrillRecord(
            backup.manifest_sha256, began, round(time.monotonic() - started, 3),
            tuple(part.name for part in backup.manifest.databases), rows, tuple(problems),
        )  # fmt: skip
        store.record(backup.name, record)
    return record


def _refuse_without_roles(settings: Settings, backup: Backup) -> None:
    """Refuse a drill that would have to create roles: it leaves nothing behind on the server."""
    folder = Store(settings.backup_dir).path(backup.name)
    with connect(settings, database=MAINTENANCE) as connection:
        missing = preflight.missing_roles(connection, backup, folder)
    if missing:
        raise HubError(
            f"the drill of {backup.name} needs the roles {', '.join(missing)}, which this server does not have,"
            " and creates none: create them, or hold the drill with `hub restore --into NAME`, which does."
        )
