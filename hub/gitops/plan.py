"""Compares what a commit wants with what is deployed and what runs: the list of things to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .config import Config
from .containers import Container, stopped_on_purpose
from .stack import Model
from .state import State, boot_id


@dataclass(frozen=True)
class Plan:
    """What one deployment would do. `replace` and `held` give the reason for each service."""

    origin: str
    target: str
    replace: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)
    drain: bool = False
    watch: dict[str, bool] = field(default_factory=dict)
    adopting: bool = False

    @property
    def idle(self) -> bool:
        """Whether no container would be touched."""
        return not self.replace and not self.remove

    def lines(self) -> list[str]:
        """For people."""
        moved = (
            "stays" if self.origin == self.target else f"moves {self.origin[:12] or 'nothing'} -> {self.target[:12]}"
        )
        out = [f"tree: {moved}"]
        out += [f"replace {name}: {why}" for name, why in sorted(self.replace.items())]
        out += [f"remove {name}: no longer wanted" for name in self.remove]
        out += [f"leave {name}: {why} on purpose" for name, why in sorted(self.held.items())]
        out += [f"needs a verified backup: the image of {name} changes" for name in self.databases]
        out += ["waits for running Dagster runs"] if self.drain else []
        return out if len(out) > 1 or self.origin != self.target else ["nothing to do"]


def make(config: Config, state: State, origin: str, model: Model, running: Mapping[str, Container]) -> Plan:
    """The plan that brings `running` to `model`. Pure but for the boot's identity."""
    rebooted = bool(state.boot_id) and state.boot_id != boot_id()
    held: dict[str, str] = {}
    for name, service in model.services.items():
        why = stopped_on_purpose(
            name,
            running.get(name),
            oneshot=service.oneshot,
            known=_known(state, name, running),
            was_held=name in state.held,
            rebooted=rebooted,
        )
        if why:
            held[name] = why
    lasting = {n for n in state.deployed if n in model.services and not model.services[n].oneshot}
    if lasting and lasting <= set(held):  # `docker compose down`: leave all of it down
        held.update({n: held.get(n, "the stack is down") for n in model.services})
    replace: dict[str, str] = {}
    for name, service in model.services.items():
        if name in held:
            continue
        why = _difference(state.deployed.get(name), service.fingerprint, known=name in state.deployed)
        container = running.get(name)
        if not why and not service.oneshot and rebooted and (container is None or container.status == "exited"):
            why = "not running since the reboot"
        if why:
            replace[name] = why
    databases = [
        name
        for name in config.database_services
        if name in replace and _image_changes(state, running.get(name), model, name)
    ]
    remove = [] if not state.deployed else [n for n in state.deployed if n not in model.services and n in running]
    watch = {n: model.services[n].oneshot for n in replace}
    watch.update(
        {
            n: False
            for n, c in running.items()
            if n in model.services and n not in held and c.up and not model.services[n].oneshot
        }
    )
    return Plan(
        origin=origin,
        target=model.commit,
        replace=replace,
        held=held,
        remove=sorted(remove),
        databases=databases,
        drain=bool(config.dagster_url) and bool(set(config.dagster_services) & {*replace, *remove}),
        watch=watch,
        adopting=not state.deployed,
    )


def _known(state: State, name: str, running: Mapping[str, Container]) -> bool:
    """Whether we left the service running, or found it: only such a one can be stopped by a person.

    While a service is being replaced its entry is None, so what our own kill leaves stopped is never taken for that.
    """
    if name in state.deployed:
        return state.deployed[name] is not None
    return name in running


def _difference(had: dict[str, str] | None, wanted: dict[str, str], *, known: bool) -> str:
    if had is None:
        return "an interrupted deployment left it unknown" if known else "new"
    changed = [key for key in ("image", "definition", "content") if had.get(key) != wanted.get(key)]
    if "image" in changed:
        return f"image {had.get('image')} -> {wanted.get('image')}"
    return {"definition": "definition changed", "content": "mounted or built content changed"}.get(
        changed[0] if changed else "", ""
    )


def _image_changes(state: State, container: Container | None, model: Model, name: str) -> bool:
    """Whether data written by one image would meet another one. Reality first, memory if nothing runs."""
    service, had = model.services[name], state.deployed.get(name)
    if service.builder:
        return container is not None or had is not None
    if container is not None:
        return container.image != service.image
    return had is not None and had.get("image") != service.image
