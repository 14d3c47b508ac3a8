"""Tells others how a run ended: node-exporter's text file, and the notification command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .command import run
from .config import Config, read_safely
from .errors import CommandFailed, ConfigError
from .log import Log, plain, utc
from .state import State, write_atomically

_RESULTS = (
    "up_to_date",
    "deployed",
    "skipped",
    "rolled_back",
    "failed",
    "refused",
    "postponed",
    "misconfigured",
)
CUT_SHORT = "postponed:cut_short"  # the run before did not come to an end
_KEPT = 50  # events that are remembered as told
_HELP = {
    "reading_hub_gitops_last_run_timestamp_seconds": ("gauge", "When the last run ended."),
    "reading_hub_gitops_last_run_duration_seconds": ("gauge", "How long the last run took."),
    "reading_hub_gitops_last_success_timestamp_seconds": (
        "gauge",
        "When a run last found or brought all in step.",
    ),
    "reading_hub_gitops_last_result": ("gauge", "1 for the result of the last run."),
    "reading_hub_gitops_in_step": (
        "gauge",
        "1 if nothing was amiss as the last run ended; 0 while one goes on, and after one that was killed.",
    ),
    "reading_hub_gitops_in_flight": ("gauge", "1 if a deployment was begun and not ended."),
    "reading_hub_gitops_held_services": ("gauge", "Services that a person stopped and the agent leaves so."),
    "reading_hub_gitops_deploys_total": ("counter", "Commits deployed."),
    "reading_hub_gitops_deploy_failures_total": ("counter", "Commits that could not be brought up healthy."),
    "reading_hub_gitops_commit_info": ("gauge", "The last good commit."),
}


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def metrics_text(name: str, state: State, found: dict[str, Any] | None) -> str:
    """The metrics of one deployment in Prometheus' text format: how runs went by `state`, what is true by `found`.

    `found` is what status.collect says; without it nothing is known to be in step.
    """
    last = state.last
    label = f'name="{_escape(name)}"'
    result = str(last.get("result", ""))
    rows: dict[str, list[tuple[str, float]]] = {key: [] for key in _HELP}

    def put(key: str, value: float, more: str = "") -> None:
        rows["reading_hub_gitops_" + key].append((f"{{{label}{more}}}", value))

    put("last_run_timestamp_seconds", float(last.get("ended", 0)))
    put("last_run_duration_seconds", float(last.get("duration", 0)))
    put("last_success_timestamp_seconds", float(last.get("last_success", 0)))
    for word in _RESULTS:
        put("last_result", 1 if word == result else 0, f',result="{word}"')
    put("in_step", 1 if found and found["in_step"] else 0)
    put("in_flight", 1 if state.in_flight else 0)
    put("held_services", len(found["held"] if found else state.held))
    put("deploys_total", state.counters.get("deploys", 0))
    put("deploy_failures_total", state.counters.get("failures", 0))
    if state.last_good:
        put("commit_info", 1, f',commit="{_escape(state.last_good[:64])}"')
    lines = []
    for key, (kind, text) in _HELP.items():
        lines += [f"# HELP {key} {text}", f"# TYPE {key} {kind}"]
        lines += [f"{key}{labels} {value:.3f}".replace(".000", "") for labels, value in rows[key]]
    return "\n".join(lines) + "\n"


def write_metrics(config: Config, state: State, log: Log, found: dict[str, Any] | None) -> None:
    """Replace the text file. A failure is logged; it must not turn a good deployment into a bad one."""
    if config.metrics_file is None:
        return
    try:
        write_atomically(config.metrics_file, metrics_text(config.name, state, found), mode=0o644)
    except OSError as error:
        log.warning("cannot write the metrics", file=config.metrics_file, reason=error.strerror)


def tell(config: Config, log: Log, result: str, message: str, event: str) -> None:
    """Notify of an end that a person should know of: of a failure at once, of being postponed when that lasts.

    `event` names it (kind and commit): until all is well again each is told once. What was told lies in a file of its own: a
    state that cannot be read, or is another run's, is itself a thing to tell.
    """
    place = _place(config)
    told, since, _ = _told(place)
    if result in ("up_to_date", "deployed"):
        place.unlink(missing_ok=True)
        return
    since = (since or time.time()) if result == "postponed" else 0.0
    lasting = since > 0 and time.time() - since >= config.postponed_after
    last = "" if event in ("postponed:busy", CUT_SHORT) else event  # those are about another run
    remembered = _remember(place, told, since, last, log)
    if result == "skipped" or (result == "postponed" and remembered and not lasting) or event in told:
        return
    subject = f"Deployment of {config.name} {result.replace('_', ' ')}" + (f" since {utc(since)}" if lasting else "")
    if _notify(config, log, subject, plain(log.redact(message))):
        _remember(place, [*told, event][-_KEPT:], since, last, log)


def bad_end(config: Config) -> str:
    """How the last run ended (result and kind), unless it ended well: known also where the state could not be written."""
    return _told(_place(config))[2]


def _place(config: Config) -> Path:
    return config.state_dir / f"{config.name}.told"


def _told(place: Path) -> tuple[list[str], float, str]:
    """The events told since all was well, since when runs have been postponed (0: they are not), and the last bad end."""
    try:
        raw = json.loads(read_safely(place))
        return [str(event) for event in raw["told"]], float(raw["postponed_since"]), str(raw["last"])
    except (ConfigError, ValueError, LookupError, TypeError, RecursionError):
        return [], 0.0, ""


def _remember(place: Path, told: list[str], since: float, last: str, log: Log) -> bool:
    text = json.dumps({"told": told, "postponed_since": since, "last": last})
    try:
        write_atomically(place, text + "\n", mode=0o600)
    except OSError as error:
        log.warning("cannot remember what was told; the next run tells it again", file=place, reason=error.strerror)
        return False
    return True


def _notify(config: Config, log: Log, subject: str, body: str) -> bool:
    """Hand the message to the notification command on standard input; whether it took it. Our texts have one line each."""
    if not config.notify_command:
        return True
    try:
        run(
            list(config.notify_command),
            timeout=config.notify_timeout,
            stdin=f"{subject}\n\n{body}\n".encode(),
            kind="notify",
            env={"GITOPS_NAME": config.name, "GITOPS_SUBJECT": subject},
        )
    except CommandFailed as error:
        log.warning("cannot notify; the next run tries again", reason=str(error))
        return False
    return True
