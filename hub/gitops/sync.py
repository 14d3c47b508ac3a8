"""One run of the agent: look, decide, replace, wait for health, and go back if that fails.

Every step is written to the state file before it is taken. A run that finds an unended one first ends it:
forward when the commit may still be good, back when it had failed. Until the step `move` nothing that runs
is touched.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

from . import backup_gate, dagster, images, links, report, signing, stack, status, tree
from .config import Config
from .containers import Container, look
from .errors import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, CommandFailed, DeployFailed, GitopsError, Refused
from .log import Log, plain
from .plan import Plan, make
from .repo import Repo
from .state import Lock, State, boot_id, load, lock_path, save, state_path
from .switch import Switch


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    result: str
    kind: str
    message: str
    code: int
    plan: list[str] = field(default_factory=list)


class Agent:
    """A run for one deployment, inside its lock."""

    def __init__(self, config: Config, log: Log, lock: int, state: State) -> None:
        self.config = config
        self.log = log
        self.lock = lock
        self.state = state
        self.repo = Repo(config, log, lock)
        self.stage = config.state_dir / f"{config.name}.stage"
        self.tip = ""
        self.switch = Switch(config, log, lock, state, self.repo, self.step)
        for place in (config.path / ".env", config.env_path):
            if place is not None:
                log.redact.learn_env_file(place)

    # -- records ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Put the state on disk."""
        save(state_path(self.config), self.state)

    def step(self, name: str) -> None:
        """Record, then announce, the step about to be taken."""
        self.state.run["step"] = name
        self.save()
        self.log.info("step", step=name)

    # -- the run ---------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Do what is to be done. Raises GitopsError for every end but a good one."""
        died = bool(self.state.run) and not self.state.run.get("ended")
        self.state.run = {"pid": os.getpid(), "started": time.time()}
        self.step("start")
        self._clear_stage()
        if not self.config.path.exists() or not any(self.config.path.iterdir()):
            self.step("clone")
            self.repo.clone()
        self.repo.check_clone()
        if died:
            for name in tree.drop_stale_locks(self.repo):
                self.log.warning("removed a lock that a killed run left", file=name)
        resumed = self.state.in_flight is not None
        if resumed:
            self.step("recover")
            self.switch.resume()
        fresh = self.repo.is_empty_clone()
        if not fresh:
            self.repo.check_clean()
        outcome = self._follow(fresh)
        if resumed and outcome.result == "up_to_date":
            return Outcome("deployed", "ok", "ended an interrupted deployment; " + outcome.message, EXIT_OK)
        return outcome

    def _follow(self, fresh: bool) -> Outcome:
        head = self.repo.head()
        self.step("fetch")
        tip = self.tip = self.repo.fetch()
        self.step("verify")
        if tip in self.state.bad and (head in self.state.bad or head != self.state.last_good):
            return self._skipped(head, tip)
        target = head if tip in self.state.bad else tip
        self.check(head, target)
        outcome = self._deploy(head, target, fresh)
        if tip in self.state.bad and outcome.result == "up_to_date":
            return self._skipped(head, tip)
        return outcome

    def _skipped(self, head: str, tip: str) -> Outcome:
        return Outcome(
            "skipped",
            "bad_commit",
            f"{tip[:12]} failed before ({self.state.bad[tip]}); staying at {head[:12]} until a new commit",
            EXIT_OK,
        )

    def check(self, head: str, target: str) -> None:
        """Everything about the commit itself that must hold before its files are looked at; whose it is comes first."""
        if target != self.state.last_good:
            for commit in signing.check(self.repo, self.state.last_good, target):
                self.log.info("signature verified", commit=commit[:12])
        if target != head:
            self.repo.check_target(head, target)
            self.repo.check_in_the_way(head, target)
            self.repo.check_space(target)
        else:
            self.repo.check_target(target, target)

    def survey(self, head: str, target: str) -> tuple[stack.Model, Plan, dict[str, Container]]:
        """The target's model, read from a copy beside the clone, what it would change, and what runs."""
        self.repo.export(target, self.stage)
        links.check(target, self.stage / "tree", self.repo.tree(target))
        stack.link_env_files(self.config, self.stage / "tree")
        model = stack.read(self.config, self.repo, self.stage / "tree", target)
        running = look(self.config)
        return model, make(self.config, self.state, head, model, running), running

    def _deploy(self, head: str, target: str, fresh: bool) -> Outcome:
        self.step("stage")
        model, plan, running = self.survey(head, target)
        self.step("plan")
        for line in plan.lines():
            self.log.info(line)
        self._check_powers(head, model, running)
        self.state.held = dict(plan.held)
        if plan.idle and head == target and not fresh:
            self._note_images(running)
            self._settle(model)
            return Outcome("up_to_date", "ok", f"{target[:12]} is deployed", EXIT_OK, plan.lines())
        if not self.state.last_good and plan.adopting and head != target and running:
            self.state.last_good = head  # what runs was there before us: the best that is known to go back to
        if plan.databases:
            self.step("backup")
            backup = backup_gate.check(self.config, plan.databases)
            self.log.info("a verified backup is there", backup=backup)
        self.step("build")
        self._build(model, plan, running)
        if plan.drain:
            self.step("drain")
            dagster.drain(self.config, self.log, on_unreachable=self.config.drain_on_unreachable)
        self._clear_stage()
        self.switch.forward(plan, model, fresh)
        self._settle(model)
        return Outcome("deployed", "ok", f"{target[:12]} is deployed", EXIT_OK, plan.lines())

    def _check_powers(self, head: str, model: stack.Model, running: dict[str, Container]) -> None:
        """Refuse powers that the deployment's file does not allow; those that run already are reported."""
        there, new = self.powers(head, model, running)
        if new:
            raise Refused("powers", powers_message(self.config, model.commit, new))
        if there:
            self.log.warning("powers that run and that [powers] does not name", powers=len(there), first=there[0])

    def powers(self, head: str, model: stack.Model, running: dict[str, Container]) -> tuple[list[str], list[str]]:
        """What the model takes and the file does not allow: that which runs already, and what is new."""
        unnamed = [power for power in model.powers if power not in self.config.powers]
        if not unnamed:
            return [], []
        had = self.state.powers
        if had is None:
            had = self._powers_of(self.state.last_good or (head if running and not self.state.deployed else ""), model)
        return [p for p in unnamed if p in had], [p for p in unnamed if p not in had]

    def _powers_of(self, commit: str, model: stack.Model) -> list[str]:
        """Those of a commit that was deployed by an agent, or a person, who did not note them."""
        if commit in ("", model.commit):
            return list(model.powers) if commit else []
        folder = self.stage / "before"
        self.repo.export(commit, folder)
        stack.link_env_files(self.config, folder / "tree")
        try:
            return list(stack.read(self.config, self.repo, folder / "tree", commit).powers)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _build(self, model: stack.Model, plan: Plan, running: dict[str, Container]) -> None:
        try:
            tree_copy = self.stage / "tree"
            images.prepare(self.config, self.state, self.log, model, plan.replace, running, tree_copy, self.lock)
        except CommandFailed as error:
            count = self.state.build_attempts.get(plan.target, 0) + 1
            self.state.build_attempts = {plan.target: count}
            if count >= self.config.attempts and plan.target != self.state.last_good:
                reason = plain(self.log.redact(str(error)))
                self.state.mark_bad(plan.target, f"its images could not be made {count} times: {reason}")
                self.state.count("failures")
            raise DeployFailed(
                "build", f"the images of {plan.target[:12]} could not be made ({count}): {error}"
            ) from error

    def _note_images(self, running: dict[str, Container]) -> None:
        """Learn which images run as deployed, where an agent before this one did not note them."""
        for name, had in self.state.deployed.items():
            container = running.get(name)
            if had and container and "image_id" not in had and container.config_hash == had.get("config_hash"):
                had["image_id"] = container.image_id

    def _settle(self, model: stack.Model) -> None:
        self.state.last_good = model.commit
        self.state.powers = list(model.powers)
        self.state.boot_id = boot_id()
        self._clear_stage()

    def _clear_stage(self) -> None:
        shutil.rmtree(self.stage, ignore_errors=True)


def sync(config: Config, log: Log) -> Outcome:
    """One whole run: lock, work, record, metrics, notification. Never raises GitopsError."""
    started = time.time()
    try:
        with Lock(lock_path(config)) as lock:
            return _locked(config, log, lock.descriptor, started)
    except GitopsError as error:  # the lock is another run's: so are state and metrics
        return _told(config, log, Outcome(error.result, error.kind, str(error), error.code), "", started)


def _locked(config: Config, log: Log, lock: int, started: float) -> Outcome:
    try:
        state = load(state_path(config))
    except GitopsError as error:
        outcome = Outcome(error.result, error.kind, str(error), error.code)
        report.write_metrics(config, State(last=_last(outcome, log, started, 0)), log, None)
        return _told(config, log, outcome, "", started)
    report.write_metrics(config, state, log, None)  # so it stays if this run is killed
    if state.run and not state.run.get("ended"):  # once is nothing; runs that are all killed would tell nobody
        step = state.run.get("step")
        report.tell(config, log, "postponed", f"runs are cut short, the last one at step {step}", report.CUT_SHORT)
    agent = Agent(config, log, lock, state)
    try:
        outcome = agent.run()
    except GitopsError as error:
        outcome = Outcome(error.result, error.kind, str(error), error.code)
    except OSError as error:  # a full or broken disk under the state or the copy
        where = f" {error.filename}" if error.filename else ""
        outcome = Outcome("failed", "disk", f"{error.strerror}{where}; free space and run again", EXIT_FAILED)
    return _told(config, log, _record(agent, outcome, started), agent.tip, started)


def _record(agent: Agent, outcome: Outcome, started: float) -> Outcome:
    """Write down how the run ended, and what is true now: both in the state, the latter in the metrics."""
    config, log, state = agent.config, agent.log, agent.state
    state.run["ended"] = time.time()
    if outcome.result in ("up_to_date", "deployed"):
        state.build_attempts = {}
    state.last = _last(outcome, log, started, state.last.get("last_success", 0))
    found = status.collect(config, log, state)
    if found["in_step"]:
        state.last["last_success"] = state.run["ended"]
    elif outcome.code == EXIT_OK and found["problems"]:
        log.warning("not in step", problems=len(found["problems"]), first=found["problems"][0])
    try:
        agent.save()
    except OSError as error:
        log.error("cannot write the state; the next run goes by the one before", reason=error.strerror)
        outcome = Outcome("failed", "disk", f"cannot write {state_path(config)}: {error.strerror}", EXIT_FAILED)
        state.last = _last(outcome, log, started, state.last["last_success"])
        found["in_step"] = False
    report.write_metrics(config, state, log, found)
    return outcome


def _last(outcome: Outcome, log: Log, started: float, last_success: float) -> dict[str, Any]:
    ended = time.time()
    return {
        "result": outcome.result,
        "kind": outcome.kind,
        "message": plain(log.redact(outcome.message)),
        "ended": ended,
        "duration": round(ended - started, 3),
        "last_success": last_success,
    }


def _told(config: Config, log: Log, outcome: Outcome, tip: str, started: float) -> Outcome:
    write = log.info if outcome.code == EXIT_OK else log.error
    write(outcome.message, result=outcome.result, kind=outcome.kind, seconds=round(time.time() - started, 1))
    event = f"{outcome.result}:{outcome.kind}" + ("" if outcome.result == "postponed" else f":{tip}")
    report.tell(config, log, outcome.result, outcome.message, event)
    return outcome


def powers_message(config: Config, commit: str, new: list[str]) -> str:
    """The refusal, with the lines that would allow it."""
    return (
        f"{commit[:12]} takes {len(new)} power(s) over this host that [powers] of {config.name}.ini does not allow; "
        f"if they are meant, add: {'; '.join(new)}"
    )


def plan_only(config: Config, log: Log) -> Outcome:
    """What `sync` would do now: fetches, checks and compares, and changes neither tree, stack nor state."""
    try:
        with Lock(lock_path(config)) as lock:
            agent = Agent(config, log, lock.descriptor, load(state_path(config)))
            try:
                return _plan(agent)
            finally:
                shutil.rmtree(agent.stage, ignore_errors=True)
    except GitopsError as error:
        return Outcome(error.result, error.kind, str(error), error.code)


def _plan(agent: Agent) -> Outcome:
    state, repo = agent.state, agent.repo
    if not repo.exists():
        return Outcome(
            "planned",
            "ok",
            "the clone does not exist yet",
            EXIT_OK,
            [f"clone into {repo.path}, deploy everything"],
        )
    repo.check_clone()
    first = []
    if state.in_flight:
        way = "back to" if state.in_flight.back else "forward to"
        first = [f"first end the interrupted deployment, {way} {state.in_flight.target[:12]}"]
    elif not repo.is_empty_clone():
        repo.check_clean()
    head, tip = repo.head(), repo.fetch()
    if tip in state.bad:
        return Outcome(
            "planned",
            "bad_commit",
            f"{tip[:12]} failed before: {state.bad[tip]}",
            EXIT_OK,
            [*first, "skip it"],
        )
    agent.check(head, tip)
    model, plan, running = agent.survey(head, tip)
    there, new = agent.powers(head, model, running)
    lines = [*first, *map(plain, plan.lines())]
    if there or new:
        lines += [
            "missing in [powers] allow (what runs already is not refused):",
            *(f"    {p}" for p in (*there, *new)),
        ]
    if new:
        return Outcome("refused", "powers", powers_message(agent.config, tip, new), EXIT_REFUSED, lines)
    return Outcome("planned", "ok", f"{head[:12]} -> {tip[:12]}", EXIT_OK, lines)
