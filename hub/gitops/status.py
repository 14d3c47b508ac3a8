"""What is true now: from the clone, the containers and the lock, with the state file as memory only.

Whoever tells how a deployment is asks here: `hub gitops status`, and a run that ends, for its metrics.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from . import report
from .config import Config
from .containers import Container, look_at_all
from .errors import GitopsError
from .log import Log, Redactor, plain, utc
from .repo import Repo
from .state import State, is_locked, load, lock_path, state_path


def collect(config: Config, log: Log, state: State | None = None) -> dict[str, Any]:
    """The status of one deployment, ready for JSON. `in_step` is true only if nothing at all is amiss.

    A run that ends gives its `state`: it holds the lock, and knows what it is about to write.
    """
    problems: list[str] = []
    if config.env_path:
        log.redact.learn_env_file(config.env_path)
    running = state is None and is_locked(lock_path(config))
    recorded = state is None
    if state is None:
        state = State()
        try:
            state = load(state_path(config))
        except GitopsError as error:
            problems.append(str(error))
    problems += _cannot_remember(config)
    clone = _clone(config, log, state, problems)
    services, docker = _services(config, state, problems)
    if not state.last:
        problems.append("no run has ended yet")
    died = bool(state.run) and not state.run.get("ended") and not running
    if died:
        problems.append(f"the last run was cut short at step {state.run.get('step')}; the next one ends it")
    if state.in_flight and not running:
        flight = state.in_flight
        problems.append(f"a deployment {'back ' if flight.back else ''}to {flight.target[:12]} was begun and not ended")
    good = state.last.get("result") in ("up_to_date", "deployed")
    unwritten = report.bad_end(config) if recorded and good and not running else ""
    if unwritten:
        problems.append(f"a run that could not write its state ended badly: {unwritten}")
    if state.last and not good:
        problems.append(f"the last run: {state.last.get('result')}: {state.last.get('message')}")
    flight_now = state.in_flight
    return {
        "name": config.name,
        "checked_at": utc(),
        "in_step": not problems and not running,
        "running": running,
        "step": state.run.get("step") if running or died else None,
        "branch": config.branch,
        "commit": clone,
        "in_flight": {
            "from": flight_now.origin,
            "to": flight_now.target,
            "back": flight_now.back,
            "attempts": flight_now.attempts,
            "services": flight_now.services,
        }
        if flight_now
        else None,
        "failed_commits": {k: plain(log.redact(v)) for k, v in state.bad.items()},
        "docker": docker,
        "services": services,
        "powers": {
            "taken": state.powers,
            "unnamed": [power for power in state.powers or [] if power not in config.powers],
        },
        "held": {n: w for n, w in state.held.items() if n in services and services[n]["held"]},
        "last_run": {
            **{k: state.last[k] for k in ("result", "kind", "message", "duration") if k in state.last},
            "ended": utc(state.last["ended"]),
        }
        if state.last
        else None,
        "problems": [plain(log.redact(p)) for p in problems],
    }


def _cannot_remember(config: Config) -> list[str]:
    """Why the next run could not write down what it does, if that can be seen without writing."""
    folder = config.state_dir
    try:
        room = os.statvfs(folder)
    except FileNotFoundError:
        return []  # before the first run
    except OSError as error:
        return [f"the state folder {folder} cannot be looked at: {error.strerror}"]
    if not os.access(folder, os.W_OK):
        return [f"the state folder {folder} cannot be written"]
    return [] if room.f_bavail else [f"the disk of the state folder {folder} is full"]


def _clone(config: Config, log: Log, state: State, problems: list[str]) -> dict[str, Any]:
    repo = Repo(config, log)
    found: dict[str, Any] = {
        "head": None,
        "last_good": state.last_good or None,
        "branch_tip": None,
        "dirty": None,
    }
    try:
        repo.check_clone()
        found["head"] = repo.head()
        found["branch_tip"] = repo.remote_head() or None
        found["dirty"] = [] if repo.is_empty_clone() else sorted(map(plain, repo.dirty()))
    except GitopsError as error:
        problems.append(str(error))
        return found
    if found["dirty"]:
        problems.append(f"{len(found['dirty'])} tracked file(s) changed by hand, first {found['dirty'][0]}")
    if state.last_good and found["head"] != state.last_good:
        problems.append(f"the clone is at {found['head'][:12]}, the last good commit is {state.last_good[:12]}")
    if found["branch_tip"] and found["branch_tip"] != found["head"]:
        problems.append(f"the branch is at {found['branch_tip'][:12]}, the clone at {found['head'][:12]}")
    return found


def _services(config: Config, state: State, problems: list[str]) -> tuple[dict[str, dict[str, Any]], str]:
    try:
        containers = look_at_all(config)
    except GitopsError as error:
        problems.append(str(error))
        unknown = {
            n: {"state": "unknown", "up": None, "held": n in state.held, "as_deployed": None} for n in state.deployed
        }
        return unknown, "unavailable"
    found = {}
    for name in sorted({*state.deployed, *containers}):
        entry = _service(containers.get(name, ()), state, name)
        found[name] = entry
        if entry["held"]:
            continue
        if entry["up"] is False:
            problems.append(f"{name} is {entry['state']}")
        if entry["as_deployed"] is False:
            problems.append(f"{name} is not what was deployed last")
    return found, "ok"


def _service(containers: Sequence[Container], state: State, name: str) -> dict[str, Any]:
    container = min(containers, key=lambda c: c.up, default=None)
    deployed = state.deployed.get(name)
    oneshot = bool(deployed) and (deployed or {}).get("oneshot") == "true"
    stopped = container is None or container.status in ("exited", "dead", "paused", "created")
    if container is None:
        up = False
    elif oneshot:
        up = container.status in ("running", "exited") and container.exit_code == 0
    else:
        up = container.up
    same: bool | None = None
    if name in state.deployed and containers:
        same = deployed is not None and all(_as_deployed(c, deployed) for c in containers)
    return {
        "state": container.describe() if container else "absent",
        "up": up,
        "as_deployed": same,
        "held": name in state.held and stopped,
    }


def _as_deployed(container: Container, deployed: dict[str, str]) -> bool:
    """By the image's name and identity, and by Compose's digest of the definition; what was not noted is not compared."""
    had = (deployed.get("image"), deployed.get("image_id"), deployed.get("config_hash"))
    has = (container.image, container.image_id, container.config_hash)
    return had[0] == has[0] and all(old == new for old, new in zip(had[1:], has[1:]) if old and new)  # noqa: B905


def text(status: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"{status['name']}: {'in step' if status['in_step'] else 'NOT in step'}"
        + (f", a run is at step {status['step']}" if status["running"] else "")
    ]
    lines += [f"  commit {str(status['commit']['head'])[:12]} of {status['branch']}"]
    lines += [f"  {n}: {s['state']}{' (held)' if s['held'] else ''}" for n, s in status["services"].items()]
    lines += [f"  not in [powers]: {power}" for power in status["powers"]["unnamed"]]
    lines += [f"  ! {problem}" for problem in status["problems"]]
    return "\n".join(map(plain, lines))


def broken(name: str, error: GitopsError) -> dict[str, Any]:
    """The status of a deployment whose configuration cannot be used: nothing about it is known."""
    return {
        "name": name,
        "checked_at": utc(),
        "in_step": False,
        "running": None,
        "step": None,
        "branch": None,
        "commit": {"head": None, "last_good": None, "branch_tip": None, "dirty": None},
        "in_flight": None,
        "failed_commits": {},
        "docker": "unknown",
        "services": {},
        "powers": {"taken": None, "unnamed": []},
        "held": {},
        "last_run": None,
        "problems": [plain(Redactor()(str(error)))],
    }
