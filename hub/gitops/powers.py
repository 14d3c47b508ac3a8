"""What a commit gives its containers over this host, as lines that the deployment's own file allows or does not.

    SERVICE: WHAT        e.g. `system-metrics: mount /:ro`, `web: privileged`, `loki: image grafana/loki`; `*` is the stack

A key of a service or a build that is not known to be harmless is a power: what Compose learns tomorrow is named before
anybody has thought about it. Source of the keys: https://docs.docker.com/reference/compose-file/
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .log import plain
from .repo import Entry, under

_HARMLESS = frozenset(
    [
        "annotations",
        "attach",
        "blkio_config",
        "cap_drop",
        "command",
        "container_name",
        "cpu_count",
        "cpu_percent",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpus",
        "cpuset",
        "depends_on",
        "develop",
        "dns",
        "dns_opt",
        "dns_search",
        "domainname",
        "entrypoint",
        "environment",
        "expose",
        "extra_hosts",
        "group_add",
        "healthcheck",
        "hostname",
        "init",
        "labels",
        "links",
        "mac_address",
        "mem_limit",
        "mem_reservation",
        "mem_swappiness",
        "memswap_limit",
        "pids_limit",
        "platform",
        "ports",
        "profiles",
        "pull_policy",
        "pull_refresh_after",
        "read_only",
        "restart",
        "scale",
        "shm_size",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "storage_opt",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
        "working_dir",
    ]
)
_HARMLESS_BUILD = frozenset(
    [
        "args",
        "dockerfile_inline",
        "extra_hosts",
        "labels",
        "no_cache",
        "platforms",
        "provenance",
        "pull",
        "sbom",
        "shm_size",
        "target",
        "ulimits",
    ]
)
_NAMESPACES = ("cgroup", "ipc", "network_mode", "pid", "userns_mode", "uts")
_OWN_NAMESPACE = ("bridge", "none", "private", "shareable")
_NOTHING: tuple[object, ...] = (None, "", [], {}, False)
_LOGGING = ("", "journald", "json-file", "local", "none")
_LONGEST = 300  # characters; a longer value is known by its digest


@dataclass(frozen=True)
class Place:
    """Where the commit's files lie (`root`: a copy, or the clone itself), where they will (`clone`), and which there are.

    What is below `own` is the agent's, made for this deployment.
    """

    root: Path
    clone: Path
    entries: Sequence[Entry]
    own: tuple[Path, ...] = ()

    def inside(self, path: str) -> str | None:
        """The path within the repository ("" is all of it), or None for one that is, or leads, elsewhere."""
        relative = self._relative(path)
        return None if relative is None or self._leads_to(relative) else relative

    def mount(self, path: str, *, read_only: bool) -> str:
        """How a mount of `path` is to be named, or an empty string for one of the repository's own files.

        A container that writes to tracked files, or sees git's own, decides with what root runs next.
        """
        relative = self._relative(path)
        if relative is None:
            return "" if any(top == Path(path) or top in Path(path).parents for top in self.own) else path
        elsewhere = self._leads_to(relative)
        if elsewhere:
            return elsewhere
        git = relative == "" or relative.lower() == ".git" or relative.lower().startswith(".git/")
        return f"./{relative}" if git or (not read_only and under(self.entries, relative)) else ""

    def _relative(self, path: str) -> str | None:
        for top in (self.root, self.clone):
            relative = os.path.relpath(path, top)
            if path.startswith("/") and relative != ".." and not relative.startswith("../"):
                return "" if relative == "." else relative
        return None

    def _leads_to(self, relative: str) -> str:
        """Where links of the clone's owner lead, out of it, or an empty string."""
        real, top = os.path.realpath(self.clone / relative), os.path.realpath(self.clone)
        return "" if real == top or real.startswith(top + "/") else real


def needed(raw: dict[str, Any], files: dict[str, list[str]], place: Place) -> tuple[str, ...]:
    """The powers that the model takes, sorted. `raw` is as `docker compose config` prints it.

    `files` are the env files and label files by service, which Compose reads for it, as root, and does not print. Each is a
    power: with variables, extends and `..` in it the same words can be made to mean a file anywhere.
    """
    services: dict[str, dict[str, Any]] = raw["services"]
    built = {body.get("image") or f"{raw.get('name')}-{name}" for name, body in services.items() if body.get("build")}
    found = {("*", what) for what in _volumes(raw, place)}
    for name, body in services.items():
        found |= {(name, what) for what in _service(raw, body, built, place)}
        for path in files.get(name, ()):
            found.add((name, f"env_file {_value(place.inside(path) or path)}"))
    return tuple(sorted(f"{_value(name)}: {what}" for name, what in found))


def _service(raw: dict[str, Any], body: dict[str, Any], built: set[str], place: Place) -> Iterator[str]:
    image = body.get("image")
    if image and not body.get("build") and image not in built:
        yield f"image {_value(_repository(image))}"
    for key, value in body.items():
        if value in _NOTHING or key in _HARMLESS or key.startswith("x-") or key in ("image", "env_file", "label_file"):
            continue
        if key in _NAMESPACES:
            if value not in _OWN_NAMESPACE and not str(value).startswith("service:"):
                yield f"{key} {_value(value)}"
        elif key == "privileged":
            yield key
        elif key == "volumes":
            yield from _mounts(value, built, place)
        elif key in ("configs", "secrets"):
            yield from _files(raw, key, value, place)
        elif key == "networks":
            yield from _networks(raw, value)
        elif key == "build":
            yield from _build(raw, value if isinstance(value, dict) else {"context": value}, place)
        elif key == "cap_add":
            yield from (f"cap_add {_value(str(one).upper().replace('CAP_', '', 1))}" for one in value)
        elif key == "devices":
            yield from (f"device {_value(one.get('source') if isinstance(one, dict) else one)}" for one in value)
        elif key == "security_opt":
            safe = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")
            yield from (f"security_opt {_value(one)}" for one in value if one not in safe)
        elif key == "deploy":
            reserved = ((value.get("resources") or {}).get("reservations") or {}) if isinstance(value, dict) else {}
            yield from (
                f"{kind} {_value(reserved[kind])}" for kind in ("devices", "generic_resources") if reserved.get(kind)
            )
        elif key in ("post_start", "pre_stop"):
            yield from (f"privileged {key}" for one in value if one.get("privileged"))
        elif key == "logging":
            if value.get("driver", "") not in _LOGGING:
                yield f"logging {_value(value.get('driver'))}"
        elif not _harmless(key, value):
            yield f"{key} {_value(value)}"


def _harmless(key: str, value: Any) -> bool:
    """Whether a key that can be a power is none with this value."""
    if key == "oom_score_adj":
        return isinstance(value, int) and value >= 0
    return key == "volumes_from" and not any(str(one).startswith("container:") for one in value)


def _mounts(volumes: list[dict[str, Any]], built: set[str], place: Place) -> Iterator[str]:
    for volume in volumes:
        kind, source = volume.get("type"), str(volume.get("source") or "")
        if kind == "bind":
            read_only = bool(volume.get("read_only"))
            named = place.mount(source, read_only=read_only)
            shared = (volume.get("bind") or {}).get("propagation") in ("shared", "rshared")
            if named or shared:
                yield f"mount {_value(named or source)}{':ro' if read_only else ''}{':shared' if shared else ''}"
        elif kind == "image":
            if source not in built:
                yield f"image {_value(_repository(source))}"
        elif kind not in ("volume", "tmpfs"):
            yield f"mount {_value(volume)}"


def _files(raw: dict[str, Any], key: str, used: list[Any], place: Place) -> Iterator[str]:
    """Files of the host that come in as a config or a secret."""
    top = raw.get(key) or {}
    for item in used:
        source = top.get(item.get("source") if isinstance(item, dict) else item) or {}
        named = place.mount(str(source["file"]), read_only=True) if source.get("file") else ""
        if named:
            yield f"mount {_value(named)}:ro"


def _networks(raw: dict[str, Any], used: Any) -> Iterator[str]:
    top = raw.get("networks") or {}
    for name in used:
        network = top.get(name) or {}
        if network.get("external") or network.get("driver", "bridge") not in ("", "bridge"):
            yield f"network {_value(network.get('name') or name)}"


def _volumes(raw: dict[str, Any], place: Place) -> Iterator[str]:
    """Volumes that are others', or in truth a place of the host."""
    for key, volume in (raw.get("volumes") or {}).items():
        volume = volume or {}
        name, options = str(volume.get("name") or key), volume.get("driver_opts") or {}
        if volume.get("driver", "local") not in ("", "local"):
            yield f"volume {_value(name)} driver {_value(volume['driver'])}"
        if options:
            yield f"volume {_value(name)} {_value(options)}"
        if volume.get("external") or not name.startswith(f"{raw.get('name')}_"):
            yield f"volume {_value(name)}"


def _build(raw: dict[str, Any], build: dict[str, Any], place: Place) -> Iterator[str]:
    context = str(build.get("context") or place.root)
    dockerfile = os.path.normpath(os.path.join(context, str(build.get("dockerfile") or "Dockerfile")))
    if place.inside(context) is None:
        yield f"build {_value(context)}"
    elif "dockerfile_inline" not in build and place.inside(dockerfile) is None:
        yield f"build {_value(dockerfile)}"
    for key, value in build.items():
        if value in _NOTHING or key in _HARMLESS_BUILD or key.startswith("x-") or key in ("context", "dockerfile"):
            continue
        if key == "additional_contexts":
            for other in map(str, value.values()):
                if other.startswith("docker-image://"):
                    yield f"image {_value(_repository(other[len('docker-image://') :]))}"
                elif not other.startswith("service:") and place.inside(other) is None:
                    yield f"build {_value(other)}"
        elif key == "secrets":
            yield from _files(raw, key, value, place)
        elif key == "network" and value in ("default", "none"):
            continue
        else:
            yield f"build {key} {_value(value)}"


def _repository(image: str) -> str:
    """An image's name without tag and digest, which change with every update."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _value(value: object) -> str:
    """A value on one line; two that differ never look the same."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) > _LONGEST:
        text = f"{text[:100]}… sha256:{hashlib.sha256(os.fsencode(text)).hexdigest()}"
    return plain(json.dumps(text) if text != text.strip() or text[:1] in ('"', "") else text)
