"""The weekly report: what a person wants to know of the rollups."""

import datetime as dt

import dagster as dg

from assets.engine import OWNERS, HubResource
from hub.rollups.declared import READING_DAILY, READING_HOURLY

REPORT = dg.AssetKey("reading_report")


def weeks(start: dt.date) -> dg.WeeklyPartitionsDefinition:
    """ISO weeks from that of `start` to the running one. A partition is named by its Monday."""
    monday = start - dt.timedelta(days=start.weekday())
    return dg.WeeklyPartitionsDefinition(start_date=monday.isoformat(), day_offset=1, end_offset=1)


def build_report(start: dt.date) -> dg.AssetsDefinition:
    """The asset; one run over several weeks writes one report for each."""
    # The first week may begin before the first day that exists, and the running one ends after the last.
    days_of_week = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=REPORT,
        deps=[dg.AssetDep(rollup.name, partition_mapping=days_of_week) for rollup in (READING_DAILY, READING_HOURLY)],
        group_name="report",
        kinds={"pandas", "markdown"},
        owners=OWNERS,
        description=(
            "A week of reading against the weeks before: totals, sources new and silent, unusual days and why, the"
            " streak. Open a materialization's `report` to read it; it is in the folder `reports` of the data"
            " folder, too."
        ),
        partitions_def=weeks(start),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def reading_report(context: dg.AssetExecutionContext, hub: HubResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        # pandas and matplotlib take a second to import; whoever only lists the definitions need not wait for them.
        from hub.report.weekly_file import make
        from hub.report.weekly_model import Week

        today = dt.datetime.now(dt.UTC).date()
        with hub.clear_failures():
            settings = hub.settings()
            for monday in context.partition_keys:
                made = make(settings, Week(dt.date.fromisoformat(monday)), today)
                context.log.info(f"{made.report.week} is in {made.path}")
                metadata = {
                    "headline": dg.MetadataValue.md(made.headline),
                    "report": dg.MetadataValue.md(made.markdown),
                    "file": dg.MetadataValue.path(made.path),
                }
                context.add_asset_metadata(metadata | made.to_metadata(), partition_key=monday)
        return dg.MaterializeResult()

    return reading_report
