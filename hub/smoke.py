"""One reading through the whole stack: MongoDB → Dagster → rollup → a Grafana panel, and its run's lines in Loki.

It runs within the stack (`make smoke`), against what runs there, and takes its reading away again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from bson.objectid import ObjectId
from pymongo.errors import PyMongoError

from hub import mongo
from hub.errors import HubError, UnavailableError
from hub.proxy import tokens
from hub.rollups.declared import ROLLUPS
from hub.rollups.refresh import mark_dirty, refresh_all
from hub.settings import Settings
from hub.streams.declared import reading
from hub.timescale.connection import connect

SOURCE = "hub-smoke"
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where the services are, as seen from within the stack."""

    proxy: str = "http://proxy:8085"
    grafana: str = "http://grafana:3000"
    loki: str = "http://loki:3100"


def run(
    settings: Settings,
    grafana_password: str,
    say: Callable[[str], None],
    addresses: Addresses = Addresses(),
    *,
    patience_seconds: float = 180,
) -> None:
    """Send a reading through the stack, and say each step that worked. Raises HubError naming the one that did not."""
    now = dt.datetime.now(dt.UTC)
    patience = _Patience(patience_seconds)
    with _token(settings) as token, _reading(settings, now) as identifier, httpx.Client(timeout=30) as http:
        say(f"MongoDB has the reading {identifier}")
        api = _Api(http, addresses.proxy, token)
        run_id = api.sync(now.date(), key=str(identifier))
        state = patience.until("the run ends", lambda: _ended(api.run(run_id)))
        if state != "SUCCESS":
            raise HubError(f"the run {run_id} ended as {state}: look at it in Dagster's UI.")
        say(f"Dagster has loaded it: run {run_id}")
        if not api.rollup_has_it(now):
            raise HubError(f"the run {run_id} succeeded, but the rollup has no reading of source {SOURCE!r}.")
        say("the hourly rollup counts it, by the API")
        panel = _panel(http, addresses.grafana, grafana_password, now)
        say(f"Grafana draws it: panel {panel!r}")
        lines = patience.until("Loki has the run's lines", lambda: _lines(http, addresses.loki, run_id, now))
        say(f"Loki has {lines} lines of the run")


class _Patience:
    """One deadline for all that has to be waited for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def until(self, what: str, found: Callable[[], Any]) -> Any:
        """What `found` returns as soon as it is not empty. Raises UnavailableError past the deadline."""
        while not (value := found()):
            if time.monotonic() > self._end:
                raise UnavailableError(f"waited in vain until {what}. `make ps` and `make logs` show what is wrong.")
            time.sleep(1)
        return value


@contextlib.contextmanager
def _token(settings: Settings) -> Iterator[str]:
    """A token of the API for as long as the block lasts."""
    with connect(settings) as connection:
        token = tokens.create(connection, SOURCE, {"read", "sync"}, days=1)
    identifier, _ = tokens.parse(token) or ("", "")
    try:
        yield token
    finally:
        with connect(settings) as connection:
            tokens.revoke(connection, identifier)


@contextlib.contextmanager
def _reading(settings: Settings, now: dt.datetime) -> Iterator[ObjectId]:
    """A reading in MongoDB; afterwards it is in neither database any more."""
    stream = reading(settings)
    field = stream.time_fields[0]
    identifier = ObjectId()
    document = {"_id": identifier, field: now, "source": SOURCE, "event_type": "smoke", "payload": {"value": 1.0}}
    with mongo.collection(settings, stream) as documents:
        try:
            documents.insert_one(document)
        except PyMongoError as error:
            raise HubError(
                f"{mongo.where(settings, stream)} does not take a reading ({error}): the smoke test needs a MONGO_URI that may write."
            ) from error
        try:
            yield identifier
        finally:
            documents.delete_one({"_id": identifier})
            with connect(settings, autocommit=True) as connection:
                hourly = ROLLUPS[0]
                with connection.transaction():
                    connection.execute(f"DELETE FROM {stream.table} WHERE mongo_id = %s", (str(identifier),))
                    mark_dirty(connection, hourly, {hourly.floor(now)})
                refresh_all(connection, ROLLUPS)


class _Api:
    """The proxy API."""

    def __init__(self, http: httpx.Client, address: str, token: str) -> None:
        self._http, self._address, self._headers = http, address, {"Authorization": f"Bearer {token}"}

    def sync(self, day: dt.date, key: str) -> str:
        answer = self._ask(
            "POST", "/api/sync/readings", json={"from": str(day), "to": str(day)}, headers={"Idempotency-Key": key}
        )
        return str(answer["run_id"])

    def run(self, run_id: str) -> str:
        return str(self._ask("GET", f"/api/runs/{run_id}")["status"])

    def rollup_has_it(self, now: dt.datetime) -> bool:
        hour = now.replace(minute=0, second=0, microsecond=0)
        window = {"from": hour.isoformat(), "to": (hour + dt.timedelta(hours=1)).isoformat()}
        answer = self._ask("GET", "/api/readings/rollup", params={"bucket": "hour", "source": SOURCE, **window})
        return any(bucket["events"] >= 1 for bucket in answer["data"])

    def _ask(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        headers = {**self._headers, **given.pop("headers", {})}
        return _json(_request(self._http, method, self._address + path, headers=headers, **given))


def _ended(status: str) -> str | None:
    return status if status in _ENDED else None


def _panel(http: httpx.Client, address: str, password: str, now: dt.datetime) -> str:
    """The title of a panel of the dashboard *Reading* whose query returns the reading. Raises HubError if none does."""
    login = httpx.BasicAuth("admin", password)
    dashboard = _json(_request(http, "GET", f"{address}/api/dashboards/uid/rh-reading", auth=login))["dashboard"]
    window = {"from": str(int((now.timestamp() - 86400) * 1000)), "to": str(int((now.timestamp() + 3600) * 1000))}
    for panel in dashboard["panels"]:
        queries = [
            {
                **target,
                "rawSql": _with_all(target["rawSql"], dashboard["templating"]["list"]),
                "intervalMs": 3_600_000,
                "maxDataPoints": 500,
            }
            for target in panel.get("targets", [])
            if "rawSql" in target
        ]
        if not queries:
            continue
        answer = http.post(f"{address}/api/ds/query", json={**window, "queries": queries}, auth=login)
        if answer.is_success and SOURCE in answer.text:
            return str(panel["title"])
    raise HubError("no panel of Grafana's dashboard Reading returns the reading, although the rollup has it.")


def _with_all(sql: str, variables: list[dict[str, Any]]) -> str:
    """The query with each variable of the dashboard at All, as the browser would send it."""
    every = {variable["name"]: variable["allValue"] for variable in variables if "allValue" in variable}
    for name, value in every.items():
        sql = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", value.replace("\\", r"\\"), sql)
    return sql


def _lines(http: httpx.Client, address: str, run_id: str, now: dt.datetime) -> int:
    """How many lines of the run Loki has."""
    query = {
        "query": f'{{job=~".+"}} |= "{run_id}"',
        "start": str(int((now.timestamp() - 60) * 1e9)),
        "limit": "1000",
    }
    found = _json(_request(http, "GET", f"{address}/loki/api/v1/query_range", params=query))
    return sum(len(stream["values"]) for stream in found["data"]["result"])


def _request(http: httpx.Client, method: str, url: str, **given: Any) -> httpx.Response:
    try:
        answer = http.request(method, url, **given)
    except httpx.HTTPError as error:
        raise UnavailableError(f"{url} does not answer ({error}). Is the stack up? `make ps` shows it.") from error
    if answer.status_code in (401, 403):
        raise HubError(
            f"{url} refused the credentials. Grafana takes GF_SECURITY_ADMIN_PASSWORD at its first start only."
        )
    if not answer.is_success:
        raise HubError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
    return answer


def _json(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.text)
    return found
