"""Reading events: the MongoDB collection, the table it is loaded into, and its dead letters."""

import time
from collections.abc import Iterator
from typing import Literal

import dagster as dg
from pydantic import Field

from assets.engine import OWNERS, HubResource, days_of, of_the_run, table
from hub.loading.load import DEFAULT_DELETE_SHARE, load
from hub.loading.report import LoadReport
from hub.streams.declared import reading
from hub.streams.model import Mode

COLLECTION = dg.AssetKey(["mongo", "readings"])
READINGS = dg.AssetKey("reading_analytics")
REJECTS = dg.AssetKey("reading_rejects")
_PROGRESS_SECONDS = 5

collection = dg.AssetSpec(
    COLLECTION,
    group_name="source",
    kinds={"mongodb"},
    owners=OWNERS,
    description="The MongoDB collection that applications write reading events to. Not made here, only read.",
)


class LoadConfig(dg.Config):
    """How readings are loaded."""

    # Dagster's form offers the names of an enum's members, which are not the values that people write.
    mode: Literal["stream", "upsert", "mirror"] = Field(
        "stream",
        description=(
            "stream (default): what the stream says, which is upsert unless declared otherwise. upsert: new and"
            " changed documents are written; rows whose document has left MongoDB stay."
            " mirror: each day is made equal to MongoDB, which deletes rows."
        ),
    )
    max_delete_share: float = Field(
        DEFAULT_DELETE_SHARE,
        ge=0,
        le=1,
        description="mirror refuses to delete more than this share of a day's rows. 1 allows everything.",
    )
    thorough: bool = Field(
        False,
        description="Compare every row even if MongoDB's documents are those of the last load. Repairs rows changed by hand.",
    )


def build_load(partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """The one load that makes `reading_analytics` and `reading_rejects`, in one transaction."""
    common = {
        "deps": [COLLECTION],
        "group_name": "readings",
        "kinds": {"postgres", "timescaledb"},
        "owners": OWNERS,
        "skippable": True,
    }

    @dg.multi_asset(
        name="load_readings",
        specs=[
            dg.AssetSpec(
                READINGS,
                description="Reading events, one row a document. Loading a day again changes nothing if nothing changed.",
                **common,
            ),
            dg.AssetSpec(
                REJECTS,
                description="Dead letters: documents that could not become a row, with the reason and their raw BSON.",
                **common,
            ),
        ],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def load_readings(
        context: dg.AssetExecutionContext, config: LoadConfig, hub: HubResource
    ) -> Iterator[dg.MaterializeResult]:
        start, end = days_of(context)
        said = time.monotonic()

        def progress(documents: int) -> None:
            nonlocal said
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                context.log.info(f"{documents:,} documents read")

        with hub.clear_failures():
            settings = hub.settings()
            report = load(
                settings, reading(settings), start, end,
                mode=None if config.mode == "stream" else Mode(config.mode), max_delete_share=config.max_delete_share, thorough=config.thorough, progress=progress,
            )  # fmt: skip
        context.log.info(summary(report))
        if report.not_kept:
            context.log.warning(
                f"{report.not_kept:,} days are older than what is kept (READING_RETENTION_DAYS), and were left out: their"
                " readings would be dropped again. Keep more days, and run `hub db upgrade`, to load them."
            )
        for key in (READINGS, REJECTS):
            if key in context.selected_asset_keys:
                _per_day(context, key, report)
                yield dg.MaterializeResult(asset_key=key, metadata=of_the_run(context, key, _metadata(key, report)))

    return load_readings


def summary(report: LoadReport) -> str:
    """One line for the run's log."""
    what = "nothing had changed" if not report.changed else f"{report.changed:,} rows changed"
    return (
        f"{report.loaded:,} readings of {len(report.days):,} days loaded, {report.rejected:,} rejected,"
        f" {report.documents:,} documents read in {report.seconds:.1f} s: {what}"
    )


def _per_day(context: dg.AssetExecutionContext, key: dg.AssetKey, report: LoadReport) -> None:
    for day in report.days:
        numbers = {"read": day.read, "loaded": day.loaded, "rejected": day.rejected}
        if key == READINGS:
            numbers |= {"dagster/partition_row_count": day.loaded, "written": day.written}
        else:
            numbers |= {"dagster/partition_row_count": day.rejected}
        context.add_asset_metadata(numbers, asset_key=key, partition_key=day.day.isoformat())


def _metadata(key: dg.AssetKey, report: LoadReport) -> dict[str, object]:
    if key == REJECTS:
        reasons: list[tuple[object, ...]] = sorted(report.reasons.items())
        return {
            "rejected": report.rejected,
            "undated": report.undated,
            "reasons": table(("reason", "documents"), reasons),
        }
    return report.to_metadata()
