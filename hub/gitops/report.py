"""Tells others how a run ended: node-exporter's text file, and the notification command."""

from __future__ import annotations

import time

from .command import run
from .config import Config
from .errors import CommandFailed
from .log import Log
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
_HELP = {
    "reading_hub_gitops_last_run_timestamp_seconds": ("gauge", "When the last run ended."),
    "reading_hub_gitops_last_run_duration_seconds": ("gauge", "How long the last run took."),
    "reading_hub_gitops_last_success_timestamp_seconds": (
        "gauge",
        "When a run last found or brought all in step.",
    ),
    "reading_hub_gitops_last_result": ("gauge", "1 for the result of the last run."),
    "reading_hub_gitops_in_step": ("gauge", "1 if the branch, the clone and the stack were in step."),
    "reading_hub_gitops_in_flight": ("gauge", "1 if a deployment was begun and not ended."),
    "reading_hub_gitops_held_services": ("gauge", "Services that a person stopped and the agent leaves so."),
    "reading_hub_gitops_deploys_total": ("counter", "Commits deployed."),
    "reading_hub_gitops_deploy_failures_total": ("counter", "Commits that could not be brought up healthy."),
    "reading_hub_gitops_commit_info": ("gauge", "The last good commit."),
}


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def metrics_text(name: str, state: State) -> str:
    """The metrics of one deployment in Prometheus' text format."""
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
    put("in_step", 1 if result in ("up_to_date", "deployed") else 0)
    put("in_flight", 1 if state.in_flight else 0)
    put("held_services", len(state.held))
    put("deploys_total", state.counters.get("deploys", 0))
    put("deploy_failures_total", state.counters.get("failures", 0))
    if state.last_good:
        put("commit_info", 1, f',commit="{_escape(state.last_good)}"')
    lines = []
    for key, (kind, text) in _HELP.items():
        lines += [f"# HELP {key} {text}", f"# TYPE {key} {kind}"]
        lines += [f"{key}{labels} {value:.3f}".replace(".000", "") for labels, value in rows[key]]
    return "\n".join(lines) + "\n"


def write_metrics(config: Config, state: State, log: Log) -> None:
    """Replace the text file. A failure is logged; it must not turn a good deployment into a bad one."""
    if config.metrics_file is None:
        return
    try:
        write_atomically(config.metrics_file, metrics_text(config.name, state), mode=0o644)
    except OSError as error:
        log.warning("cannot write the metrics", file=config.metrics_file, reason=error.strerror)


def notify(config: Config, state: State, log: Log, subject: str, body: str, key: str) -> None:
    """Hand the message to the notification command on standard input, once for each `key` in a row.

    `key` names the event (its kind and commit): the same refusal at every tick is told once.
    """
    if not config.notify_command or state.notified == key:
        return
    message = log.redact(f"{subject}\n\n{body}\n")
    try:
        run(
            list(config.notify_command),
            timeout=config.notify_timeout,
            stdin=message.encode(),
            kind="notify",
            env={"GITOPS_NAME": config.name, "GITOPS_SUBJECT": log.redact(subject)},
        )
    except CommandFailed as error:
        log.warning("cannot notify; the next run tries again", reason=str(error))
        return
    state.notified = key


def now() -> float:
    """Seconds since the epoch, for records."""
    return time.time()
