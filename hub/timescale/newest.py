"""The newest row of a table, asked of its last days first."""

from __future__ import annotations

import datetime as dt

from hub.timescale.connection import Connection

# Without a bound, the planner opens every chunk: 0.5 CPU seconds at 730 of them, and a plain table is read whole.
_DAYS = (2, 40, 400)


def newest(connection: Connection, table: str, time: str) -> dt.datetime | None:
    """The greatest value of the column `time`, None in an empty table."""
    now = dt.datetime.now(dt.UTC)
    for days in _DAYS:
        row = connection.execute(
            f"SELECT max({time}) FROM {table} WHERE {time} >= %s", (now - dt.timedelta(days=days),)
        ).fetchone()
        if row and row[0]:
            break
    else:
        row = connection.execute(f"SELECT max({time}) FROM {table}").fetchone()
    return row[0] if row else None
