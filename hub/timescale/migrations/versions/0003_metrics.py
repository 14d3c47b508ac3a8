"""Host metrics, and what the proxy API keeps: its tokens and the requests that must not run twice."""

from hub.timescale.migrations.sql import run, run_for_level

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run("0003_metrics.sql")
    run_for_level("0003_metrics")
