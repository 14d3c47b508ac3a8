"""What really runs: the project's containers as Docker describes them, and the wait for their health."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .command import run
from .config import Config
from .errors import CommandFailed, DeployFailed, Postponed
from .log import Log

_ASKED_TO_STOP = (
    0,
    130,
    137,
    143,
)  # exit codes of SIGINT, SIGKILL and SIGTERM, or of a program that heeds them
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Container:
    """One container of the project."""

    id: str
    service: str
    status: str
    health: str
    exit_code: int
    oom: bool
    restarts: int
    restart_policy: str
    started_at: str
    image: str
    image_id: str
    config_hash: str

    @property
    def up(self) -> bool:
        """Running, and healthy if it says anything about that."""
        return self.status == "running" and self.health in ("", "healthy")

    def describe(self) -> str:
        """e.g. `running (unhealthy)` or `exited (1)`."""
        if self.status in ("exited", "dead"):
            return f"{self.status} ({self.exit_code})"
        return f"{self.status} ({self.health})" if self.health else self.status


def look(config: Config) -> dict[str, Container]:
    """The project's containers by service; of several replicas the one that is worst off speaks for the service.

    Raises Postponed if the Docker daemon does not answer.
    """
    return {name: min(found, key=lambda c: c.up) for name, found in look_at_all(config).items()}


def look_at_all(config: Config) -> dict[str, list[Container]]:
    """Every container of the project by service. Raises Postponed if the Docker daemon does not answer."""
    try:
        for _ in range(3):  # a container may go between the two calls
            ids = run(
                [
                    "docker",
                    "ps",
                    "--all",
                    "--quiet",
                    "--no-trunc",
                    "--filter",
                    f"label=com.docker.compose.project={config.project}",
                ],
                timeout=60,
                kind="docker",
            ).text.split()
            if not ids:
                return {}
            done = run(["docker", "inspect", *ids], timeout=60, kind="docker", check=False)
            if done.code == 0:
                found = (_container(item) for item in done.json() if isinstance(item, dict))
                return _by_service(c for c in found if c is not None)
    except (CommandFailed, ValueError) as error:
        raise Postponed("docker", f"cannot ask Docker about project {config.project}: {error}") from error
    raise Postponed("docker", f"the containers of project {config.project} keep changing: {done.complaint()}")


def _container(item: dict[str, object]) -> Container | None:
    def part(key: str) -> dict[str, object]:
        value = item.get(key)
        return value if isinstance(value, dict) else {}

    config, state, host = part("Config"), part("State"), part("HostConfig")
    labels = config.get("Labels")
    labels = labels if isinstance(labels, dict) else {}
    if str(labels.get("com.docker.compose.oneoff", "False")).lower() == "true":
        return None
    health, policy = state.get("Health"), host.get("RestartPolicy")
    return Container(
        id=str(item.get("Id", "")),
        service=str(labels.get("com.docker.compose.service", "")),
        status=str(state.get("Status", "")),
        health=str(health.get("Status", "")) if isinstance(health, dict) and health.get("Status") != "none" else "",
        exit_code=int(str(state.get("ExitCode") or 0)),
        oom=bool(state.get("OOMKilled")),
        restarts=int(str(item.get("RestartCount") or 0)),
        restart_policy=str(policy.get("Name", "")) if isinstance(policy, dict) else "",
        started_at=str(state.get("StartedAt", "")),
        image=str(config.get("Image", "")),
        image_id=str(item.get("Image", "")),
        config_hash=str(labels.get("com.docker.compose.config-hash", "")),
    )


def _by_service(containers: Iterable[Container]) -> dict[str, list[Container]]:
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.service, []).append(container)
    return found


def stopped_on_purpose(
    service: str,
    container: Container | None,
    *,
    oneshot: bool,
    known: bool,
    was_held: bool,
    rebooted: bool,
) -> str:
    """Why a service is to be left stopped, or an empty string.

    Docker does not tell a `docker stop` from an exit. A container that is gone, paused, or ended as one
    asked to end counts as stopped by a person, unless the agent itself was replacing it, or a reboot stopped
    it and no restart policy brought it back.
    """
    if not known:
        return ""
    if container is None:
        return "removed"
    if container.status == "paused":
        return "paused"
    if container.status not in ("exited", "dead") or oneshot:
        return ""
    if was_held:
        return "stopped"
    if container.oom or container.exit_code not in _ASKED_TO_STOP:
        return ""
    if rebooted and container.restart_policy not in ("always", "unless-stopped"):
        return ""
    return "stopped"


def wait_healthy(config: Config, log: Log, oneshots: Mapping[str, bool]) -> None:
    """Wait until every service in `oneshots` (name → is it meant to end) is well and stays so.

    All of them must be well for `health_stable` seconds without a break or a restart, within
    `health_timeout`. Raises DeployFailed, naming those that are not and what they are instead.
    """
    deadline = time.monotonic() + config.health_timeout
    since: float | None = None
    marks: dict[str, tuple[str, str, int]] = {}
    flaps = 0
    while True:
        found = look(config)
        now = time.monotonic()  # after the look: one that takes long must not count as time that all was well
        sick = {n: _ailment(found.get(n), once) for n, once in oneshots.items()}
        sick = {n: why for n, why in sick.items() if why}
        fresh = {n: (c.id, c.started_at, c.restarts) for n, c in found.items() if n in oneshots}
        if sick or (marks and fresh != marks):
            flaps += since is not None
            since = None
        if not sick and since is None:
            since = now
        marks = fresh
        if since is not None and not sick and time.monotonic() - since >= config.health_stable:
            log.info("healthy", services=len(oneshots), flaps=flaps)
            return
        final = [n for n in sick if oneshots[n] and found.get(n) is not None and found[n].status == "exited"]
        if final or now >= deadline:
            what = ", ".join(f"{n} is {why}" for n, why in sorted(sick.items())) or f"went up and down {flaps} times"
            limit = "" if final else f" after {config.health_timeout:g} s"
            raise DeployFailed("health", f"not healthy{limit}: {what}; see docker compose logs")
        time.sleep(config.health_interval)


def _ailment(container: Container | None, oneshot: bool) -> str:
    if container is None:
        return "absent"
    if oneshot and container.status == "exited" and container.exit_code == 0:
        return ""
    if oneshot and container.status == "running":
        return "still running"
    return "" if container.up and not oneshot else container.describe()
