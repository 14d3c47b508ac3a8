"""Syncs that must not run twice: a key, used again, gives the run that it started."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib

from hub.proxy.dagster import Dagster
from hub.proxy.database import Database
from hub.proxy.problems import Problem
from hub.proxy.tokens import Token

_KEY_TAG = "reading_hub/idempotency_key"
_BY_TAG = "reading_hub/requested_by"


@dataclasses.dataclass(frozen=True)
class Started:
    """The run of a sync; `repeated` says that an earlier request with the same key started it."""

    run_id: str
    repeated: bool


async def start(
    database: Database, dagster: Dagster, token: Token, first: dt.date, last: dt.date, key: str | None
) -> Started:
    """Launch the readings job for the days, both included, once for each key of a token.

    A request that comes while another one with its key is under way waits for it on the key's row. If the
    proxy dies between the launch and the row, the run is found again by its tag. Raises Problem.
    """
    tags = {_BY_TAG: f"{token.name} ({token.id})"[:255]}
    if key is None:
        return Started(await dagster.launch(first, last, tags), repeated=False)
    request = hashlib.sha256(f"{first}/{last}".encode()).digest()
    tag = hashlib.sha256(f"{token.id}/{key}".encode()).hexdigest()
    async with database.write() as connection:
        mine = await connection.execute(
            "INSERT INTO api_idempotency (token_id, key, request) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (token.id, key, request),
        )
        if not mine.rowcount:
            found = await connection.execute(
                "SELECT request, run_id FROM api_idempotency WHERE token_id = %s AND key = %s", (token.id, key)
            )
            row = await found.fetchone()
            if row is None or row[1] is None:
                raise Problem(409, "Another request with this Idempotency-Key has just failed. Try again.")
            if bytes(row[0]) != request:
                raise Problem(422, "Idempotency-Key: it was used for other days already")
            return Started(str(row[1]), repeated=True)
        earlier = await dagster.find(_KEY_TAG, tag)
        run_id = earlier or await dagster.launch(first, last, {**tags, _KEY_TAG: tag})
        await connection.execute(
            "UPDATE api_idempotency SET run_id = %s WHERE token_id = %s AND key = %s", (run_id, token.id, key)
        )
        return Started(run_id, repeated=earlier is not None)
