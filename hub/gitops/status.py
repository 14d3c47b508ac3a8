"""What is true now: from the clone, the containers and the lock, with the state file as memory only."""

from __future__ import annotations

from typing import Any

from .config import Config
from .containers import Container, look
from .errors import GitopsError
from .log import Log, Redactor, utc
from .repo import Repo
from .state import State, is_locked, load
from .sync import lock_path, state_path


def collect(config: Config, log: Log) -> dict[str, Any]:
    """The status of one deployment, ready for JSON. `in_step` is true only if nothing at all is amiss."""
    problems: list[str] = []
    if config.env_path:
        log.redact.learn_env_file(config.env_path)
    running = is_locked(lock_path(config))
    state = State()
    try:
        state = load(state_path(config))
    except GitopsError as error:
        problems.append(str(error))
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
    if state.last and state.last.get("result") not in ("up_to_date", "deployed"):
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
        "failed_commits": {k: log.redact(v) for k, v in state.bad.items()},
        "docker": docker,
        "services": services,
        "held": {n: w for n, w in state.held.items() if n in services and services[n]["held"]},
        "last_run": {
            **{k: state.last[k] for k in ("result", "kind", "message", "duration") if k in state.last},
            "ended": utc(state.last["ended"]),
        }
        if state.last
        else None,
        "problems": [log.redact(p) for p in problems],
    }


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
        found["dirty"] = [] if repo.is_empty_clone() else sorted(repo.dirty())
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
        containers = look(config)
    except GitopsError as error:
        problems.append(str(error))
        unknown = {
            n: {"state": "unknown", "up": None, "held": n in state.held, "as_deployed": None} for n in state.deployed
        }
        return unknown, "unavailable"
    found = {}
    for name in sorted({*state.deployed, *containers}):
        container = containers.get(name)
        entry = _service(container, state, name)
        found[name] = entry
        if entry["held"]:
            continue
        if entry["up"] is False:
            problems.append(f"{name} is {entry['state']}")
        if entry["as_deployed"] is False:
            problems.append(f"{name} is not what was deployed last")
    return found, "ok"


def _service(container: Container | None, state: State, name: str) -> dict[str, Any]:
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
    if name in state.deployed and container is not None:
        same = deployed is not None and container.image == deployed.get("image")
        known = (deployed or {}).get("config_hash")
        if same and known and container.config_hash:
            same = known == container.config_hash
    return {
        "state": container.describe() if container else "absent",
        "up": up,
        "as_deployed": same,
        "held": name in state.held and stopped,
    }


def text(status: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"{status['name']}: {'in step' if status['in_step'] else 'NOT in step'}"
        + (f", a run is at step {status['step']}" if status["running"] else "")
    ]
    lines += [f"  commit {str(status['commit']['head'])[:12]} of {status['branch']}"]
    lines += [f"  {n}: {s['state']}{' (held)' if s['held'] else ''}" for n, s in status["services"].items()]
    lines += [f"  ! {problem}" for problem in status["problems"]]
    return "\n".join(lines)


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
        "held": {},
        "last_run": None,
        "problems": [Redactor()(str(error))],
    }
