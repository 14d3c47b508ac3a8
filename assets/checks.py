"""Checks of the readings and their rollups, each asked of the database after the run."""

import datetime as dt

import dagster as dg

from assets.engine import HubResource, days_of, table
from assets.readings import READINGS, REJECTS
from hub.arrivals import ledger
from hub.arrivals.ledger import Day, Ledger
from hub.loading import checks
from hub.rollups.dropped import dropped_before
from hub.rollups.model import Rollup
from hub.streams.declared import reading
from hub.timescale.connection import connect
from hub.timescale.level import detect

STALE_HOURS = 26
STALE_AFTER = dt.timedelta(hours=STALE_HOURS)
REJECTED_SHARE = 0.05
_SHOWN = 100


@dg.asset_check(
    asset=READINGS, blocking=True, description="On each day, loaded + rejected = read, and the rows are there."
)
def nothing_lost(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
    start, end = days_of(context)
    with hub.clear_failures(), connect(settings := hub.settings()) as connection:
        start = reading(settings).first_kept(start, end, dt.datetime.now(dt.UTC))
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


@dg.asset_check(
    asset=REJECTS,
    description=f"At most {REJECTED_SHARE:.0%} of the documents read are dead letters, those of no day among them if they are new.",
)
def few_rejects(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
    start, end = days_of(context)
    with hub.clear_failures(), connect(hub.settings()) as connection:
        days = checks.books(connection, start, end)
        undated = checks.undated_since(connection, reading(hub.settings()), _began(context))
    read, rejected = sum(day.read for day in days) + undated, sum(day.rejected for day in days) + undated
    return dg.AssetCheckResult(
        passed=rejected <= REJECTED_SHARE * read,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "read": read, "rejected": rejected, "undated_new": undated, "share": rejected / read if read else 0.0
        },
    )  # fmt: skip


@dg.asset_check(
    asset=READINGS,
    description=(
        "What was loaded can be all that there is: not everything was rejected, something was read where MongoDB counts"
        " something, and values are there where there were values before."
    ),
)
def plausible(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
    start, end = days_of(context)
    with hub.clear_failures(), connect(hub.settings()) as connection:
        found = checks.plausible(connection, reading(hub.settings()), start, end, _began(context))
    return dg.AssetCheckResult(
        passed=found.problem is None,
        description=found.problem,
        metadata={
            "read": found.read, "loaded": found.loaded, "rejected": found.rejected, "undated_new": found.undated,
            "values": found.values,
        },
    )  # fmt: skip


def _began(context: dg.AssetCheckExecutionContext) -> dt.datetime:
    """When the run of a check began."""
    record = context.instance.get_run_record_by_id(context.run.run_id)
    seconds = record.start_time if record else None
    return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else dt.datetime.now(dt.UTC)


@dg.asset_check(
    asset=READINGS,
    description=(
        "Every document of the collection was read: MongoDB's count of each UTC day, for all of history, is not more"
        " than was read, and no sweep has found other documents than were read. Days that are wanting are asked for."
    ),
)
def complete(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures():
        settings = hub.settings()
        found = ledger.update(settings, reading(settings))
    overdue = found.overdue()
    rows: list[tuple[object, ...]] = [
        (day.day, day.documents, day.read, day.missing, "yes" if day.changed else "", _words(day, found.at))
        for day in found.wrong
    ]
    undated = found.missing_undated or found.undated_changed
    return dg.AssetCheckResult(
        passed=not overdue and not undated,
        description=_complete(found, overdue),
        metadata={
            "documents": found.documents,
            "missing": found.missing,
            "missing_days": sum(day.missing > 0 for day in found.days),
            "changed_days": sum(day.changed for day in found.days),
            "undated": found.undated,
            "undated_read": found.undated_read,
            "dead_letters": found.dead_letters,
            "forgotten": sum(day.forgotten for day in found.days),
            "expired": found.expired,
            "recent_sweep": _when(found.recent_sweep_at),
            "full_sweep": _when(found.full_sweep_at),
            "seconds": round(found.seconds, 3),
            "days": table(("day", "in MongoDB", "read", "missing", "changed", "asked for"), rows[:_SHOWN]),
        },
    )


def _complete(found: Ledger, overdue: tuple[Day, ...]) -> str:
    if found.complete:
        return f"All {found.documents:,} documents were read."
    missing = sum(day.missing for day in overdue) + found.missing_undated
    changed = sum(day.changed for day in overdue)
    parts = []
    if missing:
        days = [str(day.day) for day in overdue if day.missing]
        of = [f"{len(days):,} days ({', '.join(days[:5])}{' …' if len(days) > 5 else ''})"] if days else []
        parts.append(
            f"{missing:,} documents of {' and of '.join([*of, *['no day'] * bool(found.missing_undated)])} are missing"
        )
    if changed or found.undated_changed:
        parts.append(f"documents of {changed:,} days have changed since they were read")
    if not parts:
        return f"{found.missing:,} documents have just come, and are on their way."
    return f"{'; '.join(parts)}. The sensor readings_arrived asks for them; if it is on, look at its runs."


def _words(day: Day, now: dt.datetime) -> str:
    return f"{(now - day.asked_at).total_seconds() / 60:,.0f} minutes ago" if day.asked_at else "not yet"


def _when(time: dt.datetime | None) -> dg.MetadataValue:
    return dg.MetadataValue.timestamp(time) if time else dg.MetadataValue.text("never")


def build_totals_check(rollup: Rollup) -> dg.AssetChecksDefinition:
    """Raw totals equal rollup totals over the run's days."""

    @dg.asset_check(
        asset=rollup.name,
        name="equals_raw",
        blocking=True,
        description=f"{rollup.name} adds up to what {rollup.table} adds up to, where retention has dropped nothing.",
    )
    def equals_raw(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
        start, end = days_of(context)
        with hub.clear_failures(), connect(hub.settings()) as connection:
            # Where raw rows are gone, the rollup has what is left of them.
            if gone := dropped_before(connection, rollup.finest, detect(connection)):
                start = min(max(start, gone.date() + dt.timedelta(days=1)), end)
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


OF_READINGS = (nothing_lost, fresh, few_rejects, plausible, complete)
