"""Nothing is missed: the ledger's count and the sweeps, as jobs with schedules of their own."""

import dagster as dg
from pydantic import Field

from assets import checks
from assets.engine import HubResource
from hub.loading.sweep import sweep
from hub.settings import DefinitionSettings
from hub.streams.declared import streams
from pipelines.jobs import LEDGER_JOB
from pipelines.schedules import catching_up

SWEEP_JOB = "sweep"
RECENT_DAYS = 30


class SweepConfig(dg.Config):
    """What a sweep looks at."""

    days: int | None = Field(
        None, ge=1, description="Only documents of the last days, and those of no day; all by default."
    )


@dg.op(description="Read the documents of every stream again, and mark the days of which others were read.")
def sweep_documents(context: dg.OpExecutionContext, config: SweepConfig, hub: HubResource) -> None:
    for stream in streams(hub.settings()):
        with hub.clear_failures():
            report = sweep(hub.settings(), stream, config.days)
        changed = (
            f"{len(report.changed):,} of {report.days:,} days have changed" if report.changed else "nothing has changed"
        )
        context.log.info(f"{stream.name}: {report.documents:,} documents read in {report.seconds:.1f} s: {changed}")
        context.add_output_metadata({f"{stream.name}/{name}": value for name, value in report.to_metadata().items()})


@dg.job(
    name=SWEEP_JOB,
    description="Compare the documents in MongoDB with those that were read, by digest. Days that differ are asked for by the sensor.",
)
def sweep_job() -> None:
    sweep_documents()


def build_ledger_job():
    """Count."""
    return dg.define_asset_job(
        LEDGER_JOB,
        selection=dg.AssetSelection.checks(checks.complete),
        description="Let MongoDB count its documents by day, and compare with what was read, for all of history.",
    )


def build_completeness(settings: DefinitionSettings, ledger: object) -> dg.Definitions:
    """The jobs, and their schedules, which are on from the start."""
    return dg.Definitions(
        jobs=[ledger, sweep_job],
        schedules=[
            catching_up("ledger_hourly", LEDGER_JOB, settings.ledger_cron, "Lets MongoDB count its documents by day."),
            catching_up(
                "sweep_nightly", SWEEP_JOB, settings.sweep_cron,
                f"Compares the documents of the last {RECENT_DAYS} days by digest.",
                config={"ops": {sweep_documents.name: {"config": {"days": RECENT_DAYS}}}},
            ),
            catching_up("sweep_weekly", SWEEP_JOB, settings.sweep_all_cron, "Compares all documents by digest."),
        ],
    )  # fmt: skip
