"""Rows of a table or rollup in the order of a key, a page at a time."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from hub.proxy.database import Connection

Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Listing:
    """What can be listed. The first part of `key` is the time; `key` is unique and a prefix of `columns`.

    `texts` are jsonb columns, which go through as they are, without being parsed here.
    """

    relation: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    texts: frozenset[str] = frozenset()

    def select(self, filters: Sequence[str], *, after: bool) -> sql.Composed:
        """The query for a page, with parameters start, end, limit, the filters, and key_0, key_1, … ."""
        columns = [
            sql.SQL("{}::text").format(sql.Identifier(name)) if name in self.texts else sql.Identifier(name)
            for name in self.columns
        ]
        key = sql.SQL(", ").join(map(sql.Identifier, self.key))
        time = sql.Identifier(self.key[0])
        conditions = [sql.SQL("{} >= %(start)s").format(time), sql.SQL("{} < %(end)s").format(time)]
        conditions += [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in filters]
        if after:
            values = sql.SQL(", ").join(sql.Placeholder(f"key_{number}") for number in range(len(self.key)))
            conditions.append(sql.SQL("({}) > ({})").format(key, values))
        return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT %(limit)s").format(
            sql.SQL(", ").join(columns), sql.Identifier(self.relation), sql.SQL(" AND ").join(conditions), key
        )


@dataclasses.dataclass(frozen=True)
class Page:
    """Rows in order; `last` is the key to go on after, None on the last page."""

    rows: list[tuple[Any, ...]]
    last: Key | None


def page_of(listing: Listing, rows: list[tuple[Any, ...]], limit: int) -> Page:
    """A page of `rows`, of which one more than `limit` was asked for."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], rows[limit - 1][: len(listing.key)])


async def fetch(
    connection: Connection,
    listing: Listing,
    window: tuple[dt.datetime, dt.datetime],
    filters: Mapping[str, str],
    after: Key | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """At most `limit` rows of the half-open window after the key `after`."""
    start = max(window[0], after[0]) if after else window[0]
    parameters: dict[str, Any] = {"start": start, "end": window[1], "limit": limit, **filters}
    parameters |= {f"key_{number}": part for number, part in enumerate(after or ())}
    # Binary: times and floats arrive without being printed and parsed.
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(listing.select(list(filters), after=after is not None), parameters)
        return await cursor.fetchall()
