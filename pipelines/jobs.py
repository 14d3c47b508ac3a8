"""Jobs: what is launched as one run."""

import dagster as dg

READINGS_JOB = "readings"


def build_readings_job(load: dg.AssetsDefinition, rollups: list[dg.AssetsDefinition]):
    """Load, roll up and check: the main job."""
    return dg.define_asset_job(
        READINGS_JOB,
        selection=dg.AssetSelection.assets(load, *rollups),
        description="Load reading events from MongoDB, refresh the rollups, check both.",
    )
