"""Reading events, dead letters, and the books that loads and rollups keep."""

from hub.timescale.migrations.sql import run, run_for_level

revision = "0001"
down_revision = None


def upgrade() -> None:
    run("0001_readings.sql")
    run_for_level("0001_readings")
