"""Nothing is missed: the ledger's count and the sweeps, as jobs with schedules of their own."""

import dagster as dg
from pydantic import Field

from assets import checks
from assets.engine import HubResource
from hub.loading.sweep import sweep
from hub.settings import DefinitionSettings
from hub.streams.declared import streams
from pipelines.jobs import LEDGER_JOB

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
            _schedule("ledger_hourly", ledger, settings.ledger_cron, "Lets MongoDB count its documents by day."),
            _schedule(
                "sweep_nightly", sweep_job, settings.sweep_cron,
                f"Compares the documents of the last {RECENT_DAYS} days by digest.",
                {"ops": {sweep_documents.name: {"config": {"days": RECENT_DAYS}}}},
            ),
            _schedule("sweep_weekly", sweep_job, settings.sweep_all_cron, "Compares all documents by digest."),
        ],
    )  # fmt: skip


def _schedule(
    name: str, job: object, cron: str, description: str, config: dict[str, object] | None = None
) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        description=description,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        run_config=config,
    )
