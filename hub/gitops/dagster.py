"""Waits until no Dagster run is going on, by asking the webserver's GraphQL endpoint."""

from __future__ import annotations

import http.client
import json
import queue
import threading
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
TIMEOUT = 10.0  # seconds for a question and its whole answer
_LARGEST = 4 * 1024 * 1024


class Unreachable(Exception):
    """The webserver did not give a usable answer."""


def active_runs(url: str, timeout: float) -> list[str]:
    """`JOB RUN_ID` of every run that is starting, started or being cancelled. Raises Unreachable.

    `timeout` seconds bound the whole of it: the sockets' own limits begin anew with every byte that arrives, so that a server
    which drips its answer would hold us for days.
    """
    answers: queue.Queue[list[str] | Unreachable] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(_ask(url, timeout))
        except Unreachable as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=timeout)
    except queue.Empty as error:
        raise Unreachable(f"{url} gave no whole answer within {timeout:g} s") from error
    if isinstance(found, Unreachable):
        raise found
    return found


def _ask(url: str, timeout: float) -> list[str]:
    request = urllib.request.Request(
        url.rstrip("/") + "/graphql",
        data=json.dumps({"query": QUERY}).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = json.loads(answer.read(_LARGEST))
        found = body["data"]["runsOrError"]
        if found["__typename"] == "Runs":
            return [f"{str(run['jobName'])[:100]} {str(run['runId'])[:8]}" for run in found["results"]]
        told = f"{str(found['__typename'])[:100]}: {str(found.get('message'))[:200]}"
    # URLError and timeouts are OSErrors; an answer may be anything, nested without end and not HTTP too.
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        http.client.HTTPException,
    ) as error:
        raise Unreachable(f"{url} gave no answer: {getattr(error, 'reason', None) or repr(error)[:200]}") from error
    raise Unreachable(f"{url} answered {told}")


def drain(config: Config, log: Log, *, on_unreachable: str) -> None:
    """Wait until no run is active. Raises Postponed when the time is up or nobody answers, as configured."""
    deadline = time.monotonic() + config.drain_timeout
    waited = False
    while True:
        try:
            runs = active_runs(config.dagster_url, TIMEOUT)
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
