"""Bring single tables back: from a restored copy beside into the live database, in one transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from psycopg import sql as compose

from hub.backups.model import DatabasePart
from hub.errors import HubError, RefusedError
from hub.rollups.declared import EVERY_ROLLUP
from hub.settings import Settings
from hub.timescale.connection import Connection, connect


@dataclasses.dataclass(frozen=True)
class TableCopy:
    """Rows of a table before and after."""

    table: str
    before: int
    after: int


def refuse_unknown(part: DatabasePart, tables: Sequence[str]) -> None:
    """Raise RefusedError for a table that the backup does not hold as one."""
    for name in tables:
        if qualified(name) in part.facts.tables:
            continue
        if name in part.facts.rollups:
            raise RefusedError(
                f"{name} is a continuous aggregate: it follows from its table. Restore that one,"
                " or everything with --into"
            )
        known = ", ".join(
            sorted(table.removeprefix("public.") for table in part.facts.tables if table.startswith("public."))
        )
        raise RefusedError(f"the backup has no table {name!r}; it has {known}")


def qualified(name: str) -> str:
    return name if "." in name else f"public.{name}"


def copy_tables(
    settings: Settings, source: str, target: str, tables: Sequence[str], part: DatabasePart
) -> list[TableCopy]:
    """Replace the rows of `tables` in database `target` by those in `source`, all of them or none.

    What is built on them is marked, so that the next refresh recomputes it.
    """
    with connect(settings, database=source) as old, connect(settings, database=target) as live:
        copies = []
        # Rows in the columnstore may all have to go.
        live.execute("SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0")
        for name in tables:
            table = compose.Identifier(*qualified(name).split(".", 1))
            _mark(live, name)
            before = live.execute(compose.SQL("DELETE FROM {}").format(table)).rowcount
            columns = [column for column in _columns(old, qualified(name)) if column in _columns(live, qualified(name))]
            listed = compose.SQL(", ").join(map(compose.Identifier, columns))
            with (
                old.cursor().copy(
                    compose.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(listed, table)
                ) as reading,
                live.cursor().copy(
                    compose.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, listed)
                ) as writing,
            ):
                for data in reading:
                    writing.write(data)
            row = live.execute(compose.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
            assert row is not None
            if row[0] != part.facts.tables[qualified(name)]:
                raise HubError(
                    f"{name} has {row[0]:,} rows after the copy in place of {part.facts.tables[qualified(name)]:,}"
                )
            _mark(live, name)
            copies.append(TableCopy(name, before, row[0]))
        return copies


def _columns(connection: Connection, table: str) -> list[str]:
    """Columns that can be written to."""
    return [
        row[0]
        for row in connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = ''",
            (table,),
        )
    ]


def _mark(connection: Connection, table: str) -> None:
    """Mark every bucket of the rollups on `table` that has rows now."""
    for rollup in EVERY_ROLLUP:
        if qualified(rollup.source) == qualified(table) and rollup.parent is None:
            connection.execute(
                "INSERT INTO rollup_dirty (rollup, bucket)"
                f" SELECT DISTINCT '{rollup.name}', {rollup.bucket_sql(time_bucket=False)} FROM {rollup.source}"
            )
