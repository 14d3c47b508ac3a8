"""What a commit wants to run: its Compose services, each with a fingerprint of definition, image and content.

`docker compose up -d` does not notice a changed file behind a mount, and a changed build context only by
building. So the tracked files that a service mounts or is built from are part of its fingerprint, by their
hashes in git.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import secret_files
from . import dockerignore, powers
from .command import Finished, run
from .config import Config, check_owner
from .errors import CommandFailed, DeployFailed, Refused
from .repo import Entry, Repo, under

_ROOT = "${REPOSITORY}"  # stands for the tree's place, which differs between the staged copy and the clone
_SMALL = 1024 * 1024  # an untracked mounted file up to this size is hashed (secrets, certificates)
ONESHOT_LABEL = "reading-hub.gitops.oneshot"


@dataclass(frozen=True)
class Service:
    """One service as a commit wants it. `fingerprint` has the keys definition, image and content.

    `builder` is the service whose build makes the image: itself, another one that shares it, or none (it is
    pulled). `volumes` are those that Compose uses and does not make (`external: true`).
    """

    name: str
    image: str
    builder: str
    oneshot: bool
    pulls: bool
    fingerprint: dict[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """Everything that a commit wants to run."""

    commit: str
    services: dict[str, Service]
    powers: tuple[str, ...] = ()


class Compose:
    """Docker Compose over one tree: the clone, or the copy of a commit that is not deployed yet."""

    def __init__(self, config: Config, root: Path, lock: int = -1) -> None:
        self.config = config
        self.root = root
        self._keep_open = (lock,) if lock >= 0 else ()

    def __call__(
        self,
        *args: str,
        check: bool = True,
        kind: str = "compose",
        timeout: float | None = None,
        writes: bool = True,
    ) -> Finished:
        """Run `docker compose ARGS` for the project; by default the child inherits the lock."""
        config = self.config
        argv = ["docker", "compose", "--project-name", config.project, "--ansi", "never"]
        argv += ["--project-directory", str(self.directory)]
        for file in config.files:
            argv += ["--file", str(self.root / file)]
        if config.env_path:
            argv += ["--env-file", str(config.env_path)]
        for profile in config.profiles:
            argv += ["--profile", profile]
        return run(
            [*argv, *args],
            timeout=timeout or config.compose_timeout,
            cwd=self.directory,
            check=check,
            kind=kind,
            label=f"docker compose {args[0]}",
            keep_open=self._keep_open if writes else (),
        )

    @property
    def directory(self) -> Path:
        """The project directory: as configured, else the first Compose file's folder, as Compose has it."""
        if self.config.project_directory:
            return self.root / self.config.project_directory
        return (self.root / self.config.files[0]).parent


def link_env_files(config: Config, tree: Path) -> None:
    """Make the clone's untracked `.env` files visible beside the Compose files of a staged copy.

    Raises ConfigError for one that somebody else can have written.
    """
    folders = {Path("."), Path(config.project_directory or "."), *(Path(f).parent for f in config.files)}
    for folder in folders:
        source = config.path / folder
        if not source.is_dir():
            continue
        for entry in sorted(source.iterdir()):
            wanted = entry.name.startswith(".env") or entry.name.endswith(".env")
            if wanted and entry.is_file() and not os.path.lexists(tree / folder / entry.name):
                check_owner(entry, entry.stat())
                (tree / folder).mkdir(parents=True, exist_ok=True)
                (tree / folder / entry.name).symlink_to(entry)


def read(config: Config, repo: Repo, root: Path, commit: str) -> Model:
    """The model of `commit`, whose files lie in `root`. Raises Refused if Compose does not accept them."""
    if config.env_path and not config.env_path.is_file():
        raise Refused(
            "env",
            f"the environment file {config.env_path} is missing; copy .env.example there and fill it in",
        )
    if config.env_path:
        check_owner(config.env_path, config.env_path.stat())
    for file in config.files:
        if not (root / file).is_file():
            raise Refused("compose", f"commit {commit[:12]} has no {file}; correct [compose] files or the branch")
    try:
        files = _env_files(config, root)  # first: they are to be checked before Compose reads them
        raw = Compose(config, root)("config", "--format", "json", writes=False, timeout=120).json()
        services = dict(raw["services"])
    except CommandFailed as error:
        raise Refused("compose", f"Compose does not accept commit {commit[:12]}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refused("compose", f"`docker compose config` of {commit[:12]} printed no services: {error!r}") from error
    oneshot = _oneshots(config, services)
    entries = repo.tree(commit)
    taken = powers.needed(raw, files, powers.Place(root, config.path, entries))
    found = {n: _service(config, raw, n, body, root, entries, n in oneshot) for n, body in services.items()}
    found = {n: s for n, s in _with_builders(found).items() if _replicas(services[n])}
    return Model(commit, found, taken)


def _env_files(config: Config, root: Path) -> dict[str, list[str]]:
    """The env files and label files of each service, which Compose names only where it does not read them.

    Raises ConfigError for one that somebody else can have written, Refused for one that has no end.
    """
    raw = Compose(config, root)("config", "--no-interpolate", "--format", "json", writes=False, timeout=120).json()
    found: dict[str, list[str]] = {}
    for name, body in raw["services"].items():
        for key in ("env_file", "label_file"):
            listed = body.get(key) or []
            for item in [listed] if isinstance(listed, str) else listed:
                path = os.path.join(Compose(config, root).directory, item["path"] if isinstance(item, dict) else item)
                if os.path.isfile(path):
                    check_owner(Path(path), os.stat(path))
                elif os.path.exists(path):
                    raise Refused("env", f"{key} {path} of {name} is no file; correct it")
                found.setdefault(name, []).append(os.path.normpath(path))
    return found


def write_secrets(config: Config, root: Path, lock: int) -> list[str]:
    """Write the values of `x-secrets` to the files where Compose looks for them; the names of those that changed.

    Raises DeployFailed where that cannot be done.
    """
    raw = Compose(config, root, lock)("config", "--format", "json", timeout=120).json()
    try:
        values = secret_files.wanted(raw)
        folders = {Path(raw["secrets"][name]["file"]).parent for name in values}
        if len(folders) > 1 or any(Path(raw["secrets"][name]["file"]).name != name for name in values):
            raise secret_files.SecretFilesError(
                "the files of x-secrets must be named like them, in one folder: correct `secrets` of the Compose file"
            )
        return [name for folder in folders for name in secret_files.write(folder, values)]
    except (secret_files.SecretFilesError, OSError, KeyError, TypeError) as error:
        raise DeployFailed("secrets", f"the secrets cannot be written: {error}") from error


def _replicas(body: dict[str, Any]) -> int:
    """How many containers are wanted. A service that wants none is to Docker like one that is not there."""
    deploy = body.get("deploy") or {}
    return int(body.get("scale", deploy.get("replicas", 1)))


def _with_builders(services: dict[str, Service]) -> dict[str, Service]:
    """Let services that only use an image which another one builds change when that build changes."""
    builders = {s.image: s for s in services.values() if s.builder}
    found = {}
    for name, service in services.items():
        builder = builders.get(service.image)
        if builder is not None and not service.builder:
            both = service.fingerprint["content"] + builder.fingerprint["content"]
            content = hashlib.sha256(both.encode()).hexdigest()
            fingerprint = {**service.fingerprint, "content": content}
            service = replace(service, builder=builder.name, pulls=False, fingerprint=fingerprint)
        found[name] = service
    return found


def _oneshots(config: Config, services: dict[str, Any]) -> set[str]:
    """Services meant to end: configured, labelled, or awaited with service_completed_successfully."""
    found = set(config.oneshot)
    for name, body in services.items():
        if str((body.get("labels") or {}).get(ONESHOT_LABEL, "")).lower() == "true":
            found.add(name)
        for other, terms in (body.get("depends_on") or {}).items():
            if isinstance(terms, dict) and terms.get("condition") == "service_completed_successfully":
                found.add(other)
    return found


def _service(
    config: Config,
    raw: dict[str, Any],
    name: str,
    body: dict[str, Any],
    root: Path,
    entries: list[Entry],
    oneshot: bool,
) -> Service:
    builds = bool(body.get("build"))
    image = body.get("image") or f"{config.project}-{name}"
    definition = {k: v for k, v in body.items() if k not in ("develop", "build")}
    build = dict(body["build"]) if isinstance(body.get("build"), dict) else body.get("build")
    shared = {part: _used(raw, part, body) for part in ("networks", "volumes", "configs", "secrets")}
    values = raw.get("x-secrets") or {}
    shared["x-secrets"] = {secret: values[secret] for secret in shared["secrets"] if secret in values}
    content = hashlib.sha256()
    for label, lines in _content(raw, body, root, entries):
        content.update(f"{label}\0{len(lines)}\0".encode())
        for line in lines:
            content.update(os.fsencode(line) + b"\0")
    text = json.dumps([definition, build, shared], sort_keys=True).replace(json.dumps(str(root))[1:-1], _ROOT)
    return Service(
        name,
        image,
        name if builds else "",
        oneshot,
        body.get("pull_policy") not in ("never", "build") and not builds,
        {
            "definition": hashlib.sha256(text.encode()).hexdigest(),
            "image": image,
            "content": content.hexdigest(),
        },
        tuple(v.get("name") or key for key, v in shared["volumes"].items() if v and v.get("external")),
    )


def _names(part: str, body: dict[str, Any]) -> list[str]:
    """The top-level networks, volumes, configs or secrets that a service uses."""
    used = body.get(part) or []
    if isinstance(used, dict):
        return sorted(used)
    return sorted(str(item["source"]) for item in used if isinstance(item, dict) and item.get("source"))


def _used(raw: dict[str, Any], part: str, body: dict[str, Any]) -> dict[str, Any]:
    top = raw.get(part) or {}
    return {name: top[name] for name in _names(part, body) if name in top}


def _content(
    raw: dict[str, Any], body: dict[str, Any], root: Path, entries: list[Entry]
) -> list[tuple[str, list[str]]]:
    """(label, lines) of every file that the service mounts or is built from and that lies in the tree."""
    found: list[tuple[str, list[str]]] = []
    for volume in body.get("volumes") or []:
        if isinstance(volume, dict) and volume.get("type") == "bind":
            found.append((f"mount {volume.get('target')}", _lines(str(volume.get("source")), root, entries)))
    for part in ("configs", "secrets"):
        for name, item in _used(raw, part, body).items():
            if part == "secrets" and name in (raw.get("x-secrets") or {}):
                continue  # we write it ourselves, in `write_secrets`; its value is part of the definition
            if isinstance(item, dict) and item.get("file"):
                found.append((f"{part} {name}", _lines(str(item["file"]), root, entries)))
    build = body.get("build")
    if isinstance(build, str):
        build = {"context": build}
    if isinstance(build, dict):
        dockerfile = str(build.get("dockerfile") or "Dockerfile")
        contexts = {"context": str(build.get("context") or "."), **(build.get("additional_contexts") or {})}
        for label, context in contexts.items():
            found.append((f"build {label}", _context(str(context), dockerfile, root, entries)))
    return found


def _relative(place: str, root: Path) -> str | None:
    """The place within the tree, or None for one outside it."""
    relative = os.path.relpath(place, root) if place.startswith("/") else os.path.normpath(place)
    return None if relative == ".." or relative.startswith("../") else ("" if relative == "." else relative)


def _lines(place: str, root: Path, entries: list[Entry]) -> list[str]:
    relative = _relative(place, root)
    tracked = [] if relative is None else under(entries, relative)
    if tracked:
        return [f"{e.mode} {e.sha} {e.path}" for e in tracked]
    path = Path(place)
    if relative is None and path.is_absolute() is False:
        return []
    try:
        if path.is_file() and path.stat().st_size <= _SMALL:  # folders outside git are data, not definition
            return [hashlib.sha256(path.read_bytes()).hexdigest()]
    except OSError as error:
        raise Refused(
            "compose", f"the mounted file {path} cannot be read: {error.strerror}; correct its rights"
        ) from error
    return []


def _context(context: str, dockerfile: str, root: Path, entries: list[Entry]) -> list[str]:
    relative = _relative(context, root) if "://" not in context else None
    if relative is None:
        return []
    own = (
        os.path.normpath(os.path.join(relative, dockerfile))
        if not dockerfile.startswith("/")
        else _relative(dockerfile, root)
    )
    folder = root / relative
    special = folder / f"{dockerfile}.dockerignore"
    rules = special if special.is_file() else folder / ".dockerignore"
    ignored = dockerignore.parse(rules.read_text(encoding="utf-8", errors="replace") if rules.is_file() else "")
    cut = len(relative) + 1 if relative else 0
    kept = [e for e in under(entries, relative) if e.path == own or not ignored(e.path[cut:])]
    if own and all(e.path != own for e in kept):
        kept += [e for e in entries if e.path == own]
    return [f"{e.mode} {e.sha} {e.path}" for e in kept]
