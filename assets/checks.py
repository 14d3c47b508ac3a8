"""Checks of the readings and their rollups, each asked of the database after the run."""

import datetime as dt

import dagster as dg

from assets.engine import HubResource, days_of, table
from assets.readings import READINGS, REJECTS
from hub.loading import checks
from hub.rollups.model import Rollup
from hub.timescale.connection import connect

STALE_HOURS = 26
STALE_AFTER = dt.timedelta(hours=STALE_HOURS)
REJECTED_SHARE = 0.05


@dg.asset_check(
    asset=READINGS, blocking=True, description="On each day, loaded + rejected = read, and the rows are there."
)
def nothing_lost(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
    start, end = days_of(context)
    with hub.clear_failures(), connect(hub.settings()) as connection:
        days = checks.books(connection, start, end)
    wrong: list[tuple[object, ...]] = [
        (day.day, day.read, day.loaded, day.rejected, day.rows) for day in days if not day.balanced
    ]
    return dg.AssetCheckResult(
        passed=not wrong and len(days) == (end - start).days,
        metadata={
            "days": len(days),
            "read": sum(day.read for day in days),
            "loaded": sum(day.loaded for day in days),
            "rejected": sum(day.rejected for day in days),
            "unbalanced": table(("day", "read", "loaded", "rejected", "rows"), wrong),
        },
    )


@dg.asset_check(asset=READINGS, description=f"The newest reading is younger than {STALE_HOURS} hours.")
def fresh(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures(), connect(hub.settings()) as connection:
        newest = checks.newest_reading(connection)
    age = dt.datetime.now(dt.UTC) - newest if newest else None
    return dg.AssetCheckResult(
        passed=age is not None and age < STALE_AFTER,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "newest": newest.isoformat() if newest else "none",
            "age_hours": round(age / dt.timedelta(hours=1), 1) if age else None,
        },
    )


@dg.asset_check(asset=REJECTS, description=f"At most {REJECTED_SHARE:.0%} of the documents read are dead letters.")
def few_rejects(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
    start, end = days_of(context)
    with hub.clear_failures(), connect(hub.settings()) as connection:
        days = checks.books(connection, start, end)
    read, rejected = sum(day.read for day in days), sum(day.rejected for day in days)
    return dg.AssetCheckResult(
        passed=rejected <= REJECTED_SHARE * read,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"read": read, "rejected": rejected, "share": rejected / read if read else 0.0},
    )


def build_totals_check(rollup: Rollup) -> dg.AssetChecksDefinition:
    """Raw totals equal rollup totals over the run's days."""

    @dg.asset_check(
        asset=rollup.name,
        name="equals_raw",
        blocking=True,
        description=f"{rollup.name} adds up to what {rollup.table} adds up to.",
    )
    def equals_raw(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
        start, end = days_of(context)
        with hub.clear_failures(), connect(hub.settings()) as connection:
            raw = checks.raw_totals(connection, start, end)
            rolled = checks.rollup_totals(connection, rollup, start, end)
        return dg.AssetCheckResult(
            passed=raw.matches(rolled),
            metadata={
                "events": rolled.events,
                "value_sum": rolled.value_sum,
                "raw_events": raw.events,
                "raw_value_sum": raw.value_sum,
            },
            description=None if raw.matches(rolled) else "Materialize these days again with `rebuild: true`.",
        )

    return equals_raw
