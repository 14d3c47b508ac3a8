"""Jobs: what is launched as one run."""

import dagster as dg

READINGS_JOB = "readings"
LEDGER_JOB = "ledger"


def build_readings_job(
    load: dg.AssetsDefinition, rollups: list[dg.AssetsDefinition], complete: dg.AssetChecksDefinition
):
    """Load, roll up and check: the main job. `complete` asks MongoDB about all of history, and has a job of its own."""
    return dg.define_asset_job(
        READINGS_JOB,
        selection=dg.AssetSelection.assets(load, *rollups) - dg.AssetSelection.checks(complete),
        description="Load reading events from MongoDB, refresh the rollups, check both.",
    )
