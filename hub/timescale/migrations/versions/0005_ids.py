"""What ids the chunks of a hypertable hold, so that a document's other rows are found without opening every chunk."""

from hub.timescale.migrations.sql import run, run_for_level

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run("0005_ids.sql")
    run_for_level("0005_ids")
