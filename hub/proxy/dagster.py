"""Dagster's webserver, asked over GraphQL: launch the readings job, and tell how a run goes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import httpx

from hub.proxy.problems import Problem, unavailable
from hub.settings import Settings

log = logging.getLogger("hub.proxy")

_JOB = {"repositoryLocationName": "reading_hub", "repositoryName": "__repository__", "jobName": "readings"}
_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclasses.dataclass(frozen=True)
class Run:
    """A Dagster run. `first` and `last` are the days that it loads, both included."""

    id: str
    job: str
    status: str
    first: str | None
    last: str | None
    created_at: dt.datetime | None
    started_at: dt.datetime | None
    ended_at: dt.datetime | None


class Dagster:
    """A client of one webserver. Raises Problem 503 when it is away, 502 when it refuses."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.dagster_url.rstrip("/")
        self.public_url = (settings.dagster_public_url or settings.dagster_url).rstrip("/")
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(settings.proxy_timeout_seconds, connect=2))

    async def close(self) -> None:
        await self._client.aclose()

    def link(self, run_id: str) -> str:
        """The run's page in Dagster's UI."""
        return f"{self.public_url}/runs/{run_id}"

    async def version(self) -> str:
        """The webserver's version: it is there and answers."""
        data = await self._ask("query { version }", {})
        return str(data["version"])

    async def launch(self, first: dt.date, last: dt.date, tags: Mapping[str, str]) -> str:
        """Launch one run of the readings job for the days, both included; return its id."""
        every = {**tags, _FIRST: str(first), _LAST: str(last)}
        parameters = {
            "selector": _JOB,
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in every.items()]},
        }
        data = await self._ask(_graphql("launch"), {"parameters": parameters})
        answer = data["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            log.error("refused", extra={"fields": {"dagster": str(answer)}})
            raise Problem(502, f"Dagster did not launch the run ({answer['__typename']}).")
        return str(answer["run"]["runId"])

    async def find(self, tag: str, value: str) -> str | None:
        """The id of the newest run with this tag."""
        data = await self._ask(_graphql("find"), {"filter": {"tags": [{"key": tag, "value": value}]}})
        runs = data["runsOrError"].get("results", [])
        return str(runs[0]["runId"]) if runs else None

    async def run(self, run_id: str) -> Run | None:
        """The run with this id, None where there is none."""
        data = await self._ask(_graphql("run"), {"id": run_id})
        found = data["runOrError"]
        if found["__typename"] == "RunNotFoundError":
            return None
        if found["__typename"] != "Run":
            raise Problem(502, f"Dagster could not tell ({found['__typename']}).")
        tags = {tag["key"]: tag["value"] for tag in found["tags"]}
        times = (_time(found[name]) for name in ("creationTime", "startTime", "endTime"))
        return Run(found["runId"], found["jobName"], found["status"], tags.get(_FIRST), tags.get(_LAST), *times)

    async def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._client.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
            answer.raise_for_status()
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            log.warning("away", extra={"fields": {"dagster": f"{type(error).__name__}: {error}"}})
            raise unavailable("Dagster cannot be reached just now. Try again.", seconds=5) from error
        if told.get("errors"):
            log.error("refused", extra={"fields": {"dagster": str(told["errors"])}})
            raise Problem(502, "Dagster refused the question; the proxy may be of another version.")
        data: dict[str, Any] = told["data"]
        return data


def _graphql(name: str) -> str:
    return (files("hub.proxy") / "graphql" / f"{name}.graphql").read_text(encoding="utf-8")


def _time(seconds: float | None) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else None
