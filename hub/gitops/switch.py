"""The part of a run that touches what is running: the tree, the containers, and the way back.

From `forward` on, the state holds an InFlight record; it goes only when the stack is wholly on one commit
again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from . import dagster, images, stack, tree
from .command import run
from .config import Config
from .containers import look, wait_healthy
from .errors import CommandFailed, DeployFailed, GitopsError, Postponed
from .log import Log, plain
from .plan import Plan, make
from .repo import Repo
from .state import InFlight, State


class RolledBack(DeployFailed):
    """The commit failed; the last good one is running again."""

    result = "rolled_back"


class Switch:
    """Replaces the running commit by another. `step` records a step on disk before it is taken."""

    def __init__(
        self, config: Config, log: Log, lock: int, state: State, repo: Repo, step: Callable[[str], None]
    ) -> None:
        self.config = config
        self.log = log
        self.lock = lock
        self.state = state
        self.repo = repo
        self.step = step

    # -- forward ---------------------------------------------------------------------------------------------

    def forward(self, plan: Plan, model: stack.Model, fresh: bool) -> None:
        """Deploy `plan`. Raises RolledBack or DeployFailed when the commit is not healthy."""
        before = dict(self.state.deployed)
        self._begin(InFlight(plan.origin, plan.target), plan)
        self.step("move")
        try:
            if fresh:
                tree.fill(self.repo, plan.target)
            elif plan.origin != plan.target:
                tree.move(self.repo, plan.origin, plan.target)
        except GitopsError as error:
            self._undo_move(plan, before, fresh, error)
        self._replace_or_go_back(plan, model)

    def _undo_move(
        self, plan: Plan, before: dict[str, dict[str, str] | None], fresh: bool, error: GitopsError
    ) -> NoReturn:
        """No container was touched yet: put the tree back and forget the attempt."""
        if not fresh and isinstance(error, CommandFailed):
            try:
                tree.repair(self.repo, plan.target, plan.origin, after_kill=False)
            except GitopsError as second:
                self.log.error("the tree is between two commits; the next run goes on", reason=str(second))
                raise Postponed("move", f"cannot move the tree to {plan.target[:12]}: {error}") from error
        self.state.in_flight = None
        self.state.deployed = before
        if isinstance(error, CommandFailed):
            raise Postponed(
                "move", f"cannot move the tree to {plan.target[:12]}, it stays as it was: {error}"
            ) from error
        raise error

    def resume(self) -> None:
        """End what an earlier run began and did not end."""
        flight = self.state.in_flight
        assert flight is not None
        self.log.warning(
            "an earlier run did not end; ending it now",
            direction="back" if flight.back else "forward",
            target=flight.target[:12],
            attempt=flight.attempts + 1,
        )
        if flight.back:
            self._repair(flight)
            self._return()
        flight.attempts += 1
        self._repair(flight)
        if flight.attempts > self.config.attempts:
            self._go_back(f"{flight.attempts - 1} runs were cut short while deploying it")
        model = stack.read(self.config, self.repo, self.config.path, flight.target)
        plan = make(self.config, self.state, flight.origin, model, look(self.config))
        if plan.drain and not flight.touched:
            try:
                dagster.drain(self.config, self.log, on_unreachable="proceed")
            except Postponed:
                flight.attempts -= 1
                raise
        self._begin(flight, plan)
        self._replace_or_go_back(plan, model)
        self.state.last_good = flight.target

    def _repair(self, flight: InFlight) -> None:
        if self.repo.is_empty_clone():
            tree.drop_stale_locks(self.repo)
            tree.fill(self.repo, flight.target)
        else:
            tree.repair(self.repo, flight.origin, flight.target)

    def _begin(self, flight: InFlight, plan: Plan) -> None:
        flight.services = sorted({*flight.services, *plan.replace, *plan.remove})
        self.state.in_flight = flight
        for name in [*plan.replace, *plan.remove]:
            self.state.deployed[name] = None

    def _replace_or_go_back(self, plan: Plan, model: stack.Model) -> None:
        try:
            self._replace(plan, model)
        except (CommandFailed, DeployFailed) as error:
            self._go_back(str(error))
        self.state.count("deploys")
        self.log.info("deployed", commit=plan.target[:12], services=len(plan.replace))

    def _replace(self, plan: Plan, model: stack.Model, prefix: str = "") -> None:
        """Replace the plan's containers and wait for their health; afterwards nothing is in flight."""
        flight = self.state.in_flight
        assert flight is not None
        if not plan.idle:
            flight.touched = True
            self.step(prefix + "up")
            self._remove(plan)
            if plan.replace:
                force = [] if plan.adopting else ["--force-recreate"]
                for name in stack.write_secrets(self.config, self.config.path, self.lock):
                    self.log.info("secret written", name=name)
                compose = stack.Compose(self.config, self.config.path, self.lock)
                compose("up", "--detach", "--no-deps", "--no-build", *force, *sorted(plan.replace), kind="up")
            self.step(prefix + "health")
            wait_healthy(self.config, self.log, plan.watch)
        running = look(self.config)
        for name in plan.replace:
            service, container = model.services[name], running.get(name)
            self.state.deployed[name] = {
                **service.fingerprint,
                "oneshot": str(service.oneshot).lower(),
                "config_hash": container.config_hash if container else "",
                "image_id": container.image_id if container else "",
            }
        for name in [n for n in self.state.deployed if n not in model.services]:
            del self.state.deployed[name]
        self.state.in_flight = None
        if not flight.back:
            self.state.last_good = plan.target
        self.step(prefix + "finish")

    def _remove(self, plan: Plan) -> None:
        """Stop and remove the containers of services that the commit no longer defines."""
        for name in plan.remove:
            label = "label=com.docker.compose."
            ids = run(
                [
                    "docker",
                    "ps",
                    "--all",
                    "--quiet",
                    "--no-trunc",
                    "--filter",
                    f"{label}project={self.config.project}",
                    "--filter",
                    f"{label}service={name}",
                ],
                timeout=60,
                kind="up",
            ).text.split()
            if ids:
                run(["docker", "stop", *ids], timeout=120, kind="up", keep_open=(self.lock,))
                run(["docker", "rm", *ids], timeout=120, kind="up", keep_open=(self.lock,))
                self.log.info("removed", service=name)

    # -- back ------------------------------------------------------------------------------------------------

    def _go_back(self, reason: str) -> NoReturn:
        """The commit in flight failed: remember that for good, and return to the last good one."""
        flight = self.state.in_flight
        assert flight is not None
        failed, good = flight.target, self.state.last_good
        reason = plain(self.log.redact(reason))
        self.state.count("failures")
        self.log.error("the deployment failed", commit=failed[:12], reason=reason)
        if failed == good or not good:
            if failed != good:
                self.state.mark_bad(failed, reason)
            self.state.in_flight = None
            self.step("failed")
            left = (
                "it is the last good commit; the next run tries again"
                if failed == good
                else "there is no earlier good one"
            )
            raise DeployFailed("deploy", f"{failed[:12]} is not healthy and {left}: {reason}")
        self.state.mark_bad(failed, reason)
        self.state.in_flight = InFlight(failed, good, True, failed, reason, flight.services, 1, flight.touched)
        self.step("back-move")
        tree.move(self.repo, failed, good)
        self._return()

    def _return(self) -> NoReturn:
        """The tree is at the last good commit again: so shall be the containers."""
        flight = self.state.in_flight
        assert flight is not None
        good, failed, reason = flight.target, flight.failed, flight.reason
        model = stack.read(self.config, self.repo, self.config.path, good)
        plan = make(self.config, self.state, failed, model, look(self.config))
        self._begin(flight, plan)
        self.step("back-images")
        try:
            images.bring_back(self.config, self.state, self.log, model, plan.replace, self.lock)
            self._replace(plan, model, "back-")
        except (CommandFailed, DeployFailed) as error:
            self.state.in_flight = None
            self.step("failed")
            raise DeployFailed(
                "broken",
                f"{failed[:12]} failed ({reason}) and {good[:12]} did not come back healthy: {error}; "
                "the next run tries again",
            ) from error
        raise RolledBack("deploy", f"{failed[:12]} failed and is not tried again, {good[:12]} is running: {reason}")
