"""One asset for each declared rollup: it recomputes the buckets that the loads before it have touched."""

import datetime as dt
from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from assets.engine import OWNERS, HubResource, days_of, of_the_run
from hub.rollups.model import Rollup
from hub.rollups.refresh import refresh, window_of
from hub.rollups.status import rows_by_day, status
from hub.timescale.connection import connect


class RefreshConfig(dg.Config):
    """How a rollup is brought up to date."""

    rebuild: bool = Field(
        False,
        description="Recompute every bucket of the run's days, not only those that loads have marked as changed.",
    )


def build_rollup(rollup: Rollup, rollups: Sequence[Rollup], partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """The asset of one rollup."""
    children = [child for child in rollups if child.parent == rollup]

    @dg.asset(
        name=rollup.name,
        deps=[dg.AssetKey(rollup.source)],
        group_name="rollups",
        kinds={"postgres", "timescaledb"},
        owners=OWNERS,
        description=f"{rollup.source} in buckets of {rollup.bucket} by {' and '.join(rollup.dimensions)}.",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def refresh_rollup(
        context: dg.AssetExecutionContext, config: RefreshConfig, hub: HubResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        start, end = days_of(context)
        with hub.clear_failures():
            settings = hub.settings()
            window = window_of(start, end) if config.rebuild else None
            with connect(settings, autocommit=True) as connection:
                report = refresh(connection, rollup, children, rebuild=window)
                state = status(connection, [rollup])[0]
                rows = rows_by_day(connection, rollup, start, end)
        context.log.info(f"{report.buckets:,} buckets recomputed in {report.seconds:.2f} s")
        refreshed = report.buckets_by_day()
        for day in context.partition_keys:
            date = dt.date.fromisoformat(day)
            numbers = {"dagster/partition_row_count": rows.get(date, 0), "buckets_refreshed": refreshed[date]}
            context.add_asset_metadata(numbers, partition_key=day)
        metadata = {**state.to_metadata(), "windows": len(report.windows), "seconds": round(report.seconds, 3)}
        return dg.MaterializeResult(metadata=of_the_run(context, context.asset_key, metadata))

    return refresh_rollup
