"""Nothing is missed: what MongoDB counts beside what was read, and what is known of each stream."""

from alembic import op

from hub.timescale.migrations.sql import run, say

revision = "0004"
down_revision = "0003"

# NaN is greater than every other number in PostgreSQL.
_BEYOND = "value > 1e300 OR value < -1e300"


def upgrade() -> None:
    run("0004_streams.sql")
    _clear_values()


def _clear_values() -> None:
    """Values that a sum cannot hold stay in the documents alone, as loads of this version have it.

    Row by row: an UPDATE by a condition on the value would first decompress the whole columnstore.
    """
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    rows = driver.execute(f"SELECT mongo_id, event_timestamp FROM reading_analytics WHERE {_BEYOND}").fetchall()
    if not rows:
        return
    with driver.cursor() as cursor:
        cursor.executemany(
            "UPDATE reading_analytics SET value = NULL WHERE mongo_id = %s AND event_timestamp = %s", rows
        )
    driver.execute(
        "INSERT INTO rollup_dirty (rollup, bucket) SELECT DISTINCT 'reading_hourly',"
        " date_trunc('hour', time, 'UTC') FROM unnest(%s::timestamptz[]) AS time",
        ([time for _, time in rows],),
    )
    say(
        f"{len(rows):,} values that are not finite or beyond 1e300 are NULL now, for a sum of them stops every rollup."
        " The documents in MongoDB, and payload, still have them."
    )
