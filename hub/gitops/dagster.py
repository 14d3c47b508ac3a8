"""Waits until no Dagster run is going on, by asking the webserver's GraphQL endpoint."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

from .config import Config
from .errors import Postponed
from .log import Log

QUERY = """query GitopsActiveRuns {
  runsOrError(filter: {statuses: [STARTING, STARTED, CANCELING]}, limit: 100) {
    __typename
    ... on Runs { results { runId jobName status } }
    ... on PythonError { message }
    ... on InvalidPipelineRunsFilterError { message }
  }
}"""
_LARGEST = 4 * 1024 * 1024


class Unreachable(Exception):
    """The webserver did not give a usable answer."""


def active_runs(url: str, timeout: float = 10) -> list[str]:
    """`JOB RUN_ID` of every run that is starting, started or being cancelled. Raises Unreachable."""
    request = urllib.request.Request(
        url.rstrip("/") + "/graphql",
        data=json.dumps({"query": QUERY}).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = json.loads(answer.read(_LARGEST))
        found = body["data"]["runsOrError"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # URLError and timeouts are OSErrors
        raise Unreachable(f"{url} gave no answer: {getattr(error, 'reason', None) or error!r}") from error
    if found.get("__typename") != "Runs":
        raise Unreachable(f"{url} answered {found.get('__typename')}: {str(found.get('message'))[:200]}")
    return [f"{run.get('jobName')} {str(run.get('runId'))[:8]}" for run in found.get("results", [])]


def drain(config: Config, log: Log, *, on_unreachable: str) -> None:
    """Wait until no run is active. Raises Postponed when the time is up or nobody answers, as configured."""
    deadline = time.monotonic() + config.drain_timeout
    waited = False
    while True:
        try:
            runs = active_runs(config.dagster_url)
        except Unreachable as error:
            if on_unreachable == "proceed":
                log.warning("cannot ask Dagster for its runs; going on", reason=str(error))
                return
            raise Postponed(
                "drain",
                f"cannot ask Dagster for its runs ({error}); start it, or set on_unreachable = proceed",
            ) from error
        if not runs:
            return
        if not waited:
            log.info("waiting for Dagster runs", runs=len(runs), first=runs[0])
            waited = True
        if time.monotonic() >= deadline:
            if config.drain_on_timeout == "proceed":
                log.warning("Dagster runs did not end in time; going on", runs=len(runs), first=runs[0])
                return
            raise Postponed(
                "drain",
                f"{len(runs)} Dagster run(s) did not end within {config.drain_timeout:g} s, first {runs[0]}; "
                "the next run tries again",
            )
        time.sleep(config.drain_interval)
