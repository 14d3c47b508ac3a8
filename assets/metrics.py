"""Host metrics: the table that the collector fills, its rollups, and their checks."""

import datetime as dt

import dagster as dg

from assets.engine import OWNERS, HubResource, days_of, table
from assets.rollups import build_rollup
from hub.metrics import checks
from hub.metrics.rollups import METRIC_ROLLUPS
from hub.rollups.model import Rollup
from hub.timescale.connection import connect

SYSTEM_METRICS = dg.AssetKey("system_metrics")
# Five missed minutes: the collector is down, or the database was away and its spool has not come yet.
STALE_AFTER = dt.timedelta(minutes=5)
# A host that has been silent for longer was switched off for good.
FORGOTTEN_AFTER = dt.timedelta(days=7)
KINDS = ("cpu", "disk", "memory", "network", "uptime")


@dg.multi_observable_source_asset(
    specs=[
        dg.AssetSpec(
            SYSTEM_METRICS,
            group_name="source",
            description="Host metrics, written by `hub metrics collect` on each host every minute. Not made here, only read.",
            metadata={"kinds": ", ".join(KINDS)},
            kinds={"postgres", "timescaledb"},
            owners=OWNERS,
        )
    ]
)
def system_metrics(hub: HubResource) -> dg.ObserveResult:
    now = dt.datetime.now(dt.UTC)
    with hub.clear_failures(), connect(hub.settings()) as connection:
        hosts = checks.hosts(connection, now - FORGOTTEN_AFTER)
    newest = max((host.newest for host in hosts), default=None)
    metadata: dict[str, object] = {"hosts": len(hosts)}
    if newest:
        metadata["dagster/last_updated_timestamp"] = dg.MetadataValue.timestamp(newest)
    return dg.ObserveResult(metadata=metadata)


@dg.asset_check(asset=SYSTEM_METRICS, description=f"Every host's newest sample is younger than {STALE_AFTER}.")
def collected(hub: HubResource) -> dg.AssetCheckResult:
    now = dt.datetime.now(dt.UTC)
    with hub.clear_failures(), connect(hub.settings()) as connection:
        hosts = checks.hosts(connection, now - FORGOTTEN_AFTER)
    silent = [host for host in hosts if now - host.newest > STALE_AFTER]
    rows: list[tuple[object, ...]] = [
        (host.host, host.newest.isoformat(timespec="seconds"), ", ".join(host.kinds)) for host in hosts
    ]
    return dg.AssetCheckResult(
        passed=bool(hosts) and not silent,
        severity=dg.AssetCheckSeverity.WARN,
        description=_sentence(len(hosts), [host.host for host in silent]),
        metadata={"hosts": table(("host", "newest sample", "kinds"), rows)},
    )


@dg.asset_check(asset=SYSTEM_METRICS, description="The newest sample of every host has every kind of metric.")
def every_kind(hub: HubResource) -> dg.AssetCheckResult:
    with hub.clear_failures(), connect(hub.settings()) as connection:
        hosts = checks.hosts(connection, dt.datetime.now(dt.UTC) - FORGOTTEN_AFTER)
    missing: list[tuple[object, ...]] = [
        (host.host, ", ".join(sorted(set(KINDS) - set(host.kinds)))) for host in hosts if set(KINDS) - set(host.kinds)
    ]
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"missing": table(("host", "kinds"), missing)},
    )


def build_counts_check(rollup: Rollup) -> dg.AssetChecksDefinition:
    """The rollup holds as many samples as the table."""

    @dg.asset_check(
        asset=rollup.name,
        name="equals_raw",
        blocking=True,
        description=f"{rollup.name} counts as many samples as system_metrics has.",
    )
    def equals_raw(context: dg.AssetCheckExecutionContext, hub: HubResource) -> dg.AssetCheckResult:
        with hub.clear_failures(), connect(hub.settings()) as connection:
            counts = checks.counts(connection, rollup, *days_of(context))
        equal = counts.raw == counts.rolled
        return dg.AssetCheckResult(
            passed=equal,
            metadata={"samples": counts.rolled, "raw_samples": counts.raw},
            description=None if equal else "Materialize these days again with `rebuild: true`.",
        )

    return equals_raw


def build_rollups(partitions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets of the rollups of host metrics."""
    return [build_rollup(rollup, METRIC_ROLLUPS, partitions) for rollup in METRIC_ROLLUPS]


def build_checks() -> list[dg.AssetChecksDefinition]:
    """Every check of host metrics."""
    return [collected, every_kind, *(build_counts_check(rollup) for rollup in METRIC_ROLLUPS)]


def _sentence(hosts: int, silent: list[str]) -> str | None:
    if not hosts:
        return "No host has sent a sample in a week: run `hub metrics collect`."
    return f"No news from {', '.join(silent)}: is its collector running?" if silent else None
