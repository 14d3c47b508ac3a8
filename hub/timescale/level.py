"""Which of the three levels a database offers, detected from the database itself."""

from __future__ import annotations

import enum

from hub.timescale.connection import Connection


class Level(enum.IntEnum):
    """What the rollups are built on. The names and columns that users see are the same on each level."""

    TIMESCALE = 1
    APACHE = 2
    PLAIN = 3

    @property
    def title(self) -> str:
        return {
            Level.TIMESCALE: "TimescaleDB (Timescale licence): continuous aggregates",
            Level.APACHE: "TimescaleDB (Apache licence): hypertables, rollup tables",
            Level.PLAIN: "plain PostgreSQL: tables, rollup tables",
        }[self]

    @property
    def hypertables(self) -> bool:
        return self is not Level.PLAIN

    @property
    def continuous_aggregates(self) -> bool:
        return self is Level.TIMESCALE


def detect(connection: Connection) -> Level:
    """The level of the connected database: is the extension created, and under which licence."""
    row = connection.execute(
        "SELECT current_setting('timescaledb.license', true) FROM pg_extension WHERE extname = 'timescaledb'"
    ).fetchone()
    if row is None:
        return Level.PLAIN
    return Level.TIMESCALE if row[0] == "timescale" else Level.APACHE


def timescale_version(connection: Connection) -> str | None:
    """Version of the TimescaleDB extension, None where it is not created."""
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    return None if row is None else str(row[0])
