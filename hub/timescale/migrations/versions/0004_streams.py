"""Nothing is missed: what MongoDB counts beside what was read, and what is known of each stream."""

from hub.timescale.migrations.sql import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run("0004_streams.sql")
