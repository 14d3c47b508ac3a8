"""The books of backups, and what has been notified."""

from hub.timescale.migrations.sql import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run("0002_backups.sql")
