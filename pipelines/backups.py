"""When backups are taken, drilled and looked at."""

import dagster as dg

from assets import backups
from assets.engine import HubResource
from hub.backups.routine import watch
from hub.settings import DefinitionSettings
from pipelines.schedules import catching_up

BACKUP_JOB = "backup"
DRILL_JOB = "drill"
_WATCH_SECONDS = 900


def build_backups(settings: DefinitionSettings) -> dg.Definitions:
    """Assets, checks, jobs, schedules and the watch over the age of backups.

    Schedules and the watch are on from the start: a backup that has to be switched on is not taken.
    """
    drill = dg.AssetSelection.assets(backups.restore_drill)
    nightly = dg.define_asset_job(
        BACKUP_JOB,
        selection=dg.AssetSelection.assets(*backups.ASSETS) - drill,
        description="Take a backup, read it back, copy it off-site, apply retention.",
    )
    weekly = dg.define_asset_job(
        DRILL_JOB, selection=drill, description="Restore the newest verified backup as a drill and compare."
    )
    return dg.Definitions(
        assets=backups.ASSETS,
        asset_checks=backups.CHECKS,
        jobs=[nightly, weekly],
        schedules=[
            catching_up("backup_nightly", BACKUP_JOB, settings.backup_cron, nightly.description),
            catching_up("restore_drill_weekly", DRILL_JOB, settings.backup_drill_cron, weekly.description),
        ],
        sensors=[backup_watch],
    )


@dg.sensor(
    target=None,
    minimum_interval_seconds=_WATCH_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells NOTIFY_URLS when the newest verified backup is too old, and when it no longer is.",
)
def backup_watch(hub: HubResource) -> dg.SkipReason:
    found = watch(hub.settings())
    return dg.SkipReason(found.problem or f"the newest verified backup is {found.name}")
