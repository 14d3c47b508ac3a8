"""What the agent remembers between runs: one small JSON file, replaced atomically, and one kernel lock.

Every step is on disk before it is taken, so that the next run after a kill or a reboot knows what was begun.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .config import Config, check_owner, read_safely
from .errors import ConfigError, Postponed

VERSION = 1
_LOOK = 0.3  # seconds; `status` holds the lock for an instant, which must not turn a run away
_WITHIN: dict[str, tuple[type, ...]] = {
    "deployed": (dict, type(None)),
    "counters": (int,),
    "bad": (str,),
    "held": (str,),
    "kept_images": (str,),
    "build_attempts": (int,),
}
_BAD_KEPT = 50  # failed commits remembered; the branch's tip is always the newest of them


@dataclass
class InFlight:
    """A move of the tree and the services that has begun and not ended.

    `origin` and `target` are commits; `back` says that this is the return to the last good commit after
    `failed` failed; `services` are being replaced, so what runs in their name is unknown until the end;
    `touched` is set before the first of them is.
    """

    origin: str
    target: str
    back: bool = False
    failed: str = ""
    reason: str = ""
    services: list[str] = field(default_factory=list)
    attempts: int = 1
    touched: bool = False


@dataclass
class State:
    """The memory of one deployment. `deployed` maps a service to its fingerprint, None while unknown.

    `powers` are those of the last good commit, None where an agent wrote this that did not know them.
    """

    version: int = VERSION
    last_good: str = ""
    deployed: dict[str, dict[str, str] | None] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    kept_images: dict[str, str] = field(default_factory=dict)
    build_attempts: dict[str, int] = field(default_factory=dict)
    in_flight: InFlight | None = None
    boot_id: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    powers: list[str] | None = None

    def mark_bad(self, commit: str, reason: str) -> None:
        """Remember that `commit` failed, so that it is never tried again."""
        self.bad.pop(commit, None)
        self.bad[commit] = reason[:500]
        for old in list(self.bad)[:-_BAD_KEPT]:
            del self.bad[old]

    def count(self, name: str) -> None:
        """One more of `name`, for the metrics."""
        self.counters[name] = self.counters.get(name, 0) + 1


def state_path(config: Config) -> Path:
    """Where the deployment's state lies."""
    return config.state_dir / f"{config.name}.json"


def lock_path(config: Config) -> Path:
    """Where the deployment's lock lies."""
    return config.state_dir / f"{config.name}.lock"


def load(path: Path) -> State:
    """The state at `path`, a fresh one if there is none; ConfigError if it cannot be trusted."""
    if not os.path.lexists(path):
        return State()
    check_owner(path.parent, os.stat(path.parent))
    text = read_safely(path)
    try:
        raw = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ConfigError(
            "state", f"{path} cannot be read ({error}); move it away and the next run adopts what is running"
        ) from error
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        found = raw.get("version") if isinstance(raw, dict) else type(raw).__name__
        raise ConfigError(
            "state", f"{path} has version {found!r}, this agent writes {VERSION}; move it away to start over"
        )
    try:
        state = State(**_checked(State(), raw))
        if state.in_flight is not None:
            state.in_flight = InFlight(**_checked(InFlight("", ""), state.in_flight))
    except TypeError as error:
        raise ConfigError(
            "state", f"{path} makes no sense ({error}); move it away and the next run adopts what is running"
        ) from error
    return state


def _checked(example: State | InFlight, raw: object) -> dict[str, Any]:
    """What is known of `raw`, each value of the type that it has in `example`. Raises TypeError."""
    if not isinstance(raw, dict):
        raise TypeError(f"{type(raw).__name__} where an object is wanted")
    values = {f.name: raw[f.name] for f in fields(example) if f.name in raw}
    for name, value in values.items():
        wanted = getattr(example, name)
        if wanted is not None and type(value) is not type(wanted):
            raise TypeError(f"{name} is {type(value).__name__}, not {type(wanted).__name__}")
        if name in _WITHIN and not all(isinstance(inner, _WITHIN[name]) for inner in value.values()):
            raise TypeError(f"{name} holds something else than it should")
    return values


def save(path: Path, state: State) -> None:
    """Replace the state file; after this returns it survives a power cut."""
    write_atomically(path, json.dumps(asdict(state), indent=1, sort_keys=True) + "\n", mode=0o600)


def write_atomically(path: Path, text: str, mode: int) -> None:
    """Write beside, fsync, rename, fsync the folder; on any error the old file stays."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)  # whatever somebody put there: a link, or a pipe that would hold us
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def boot_id() -> str:
    """The kernel's identity of this boot, or an empty string where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Lock:
    """One agent at a time for a deployment: flock on a file, released by the kernel whatever happens to us.

    The descriptor is handed to children that change things (git reset, docker compose up): when the agent is
    killed and such a child lives on, the lock stays taken until the child is done, and no second run can
    meet it half-way.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def __enter__(self) -> Lock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_owner(self.path.parent, os.stat(self.path.parent))
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError("state", f"cannot open the lock {self.path}: {error.strerror}; run as root") from error
        deadline = time.monotonic() + _LOOK
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                os.close(descriptor)
                raise Postponed(
                    "busy", f"another run, or a child it left, holds {self.path}; wait for its end"
                ) from error
            self.descriptor = descriptor
            return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        self.descriptor = -1


def is_locked(path: Path) -> bool:
    """Whether a run is going on now. Takes the lock for an instant in shared mode, never creates the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
