"""Which parts of this machine count: its name and system, its real mounts, its real network interfaces."""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

# Read-only images (snaps, live systems) are always full, and nobody can do anything about it.
_IMAGES = {"squashfs", "iso9660", "udf", "erofs", "cramfs"}
_BOOT = ("/boot", "/efi")


@dataclasses.dataclass(frozen=True)
class Mount:
    """A file system. `name` is where the host has it, `path` where this process finds it."""

    name: str
    path: Path
    device: str
    fstype: str


def hostname(root: Path) -> str:
    """The host's name, also from within a container that has the host's root at `root`."""
    if root != Path("/"):
        for line in _lines(root / "etc/hostname"):
            return line
    return socket.gethostname()


def system(root: Path) -> str:
    """The operating system in words: the distribution's own name and the kernel."""
    release = dict(line.split("=", 1) for line in _lines(root / "etc/os-release") if "=" in line)
    name = release.get("PRETTY_NAME", "").strip("\"'")
    return f"{name or platform.system()} ({platform.system()} {platform.release()})"


def mounts(root: Path) -> list[Mount]:
    """The host's file systems, each device once, without pseudo, image and boot ones; `/` always counts."""
    partitions = psutil.disk_partitions(all=False)
    listed = [Mount(part.mountpoint, Path(part.mountpoint), part.device, part.fstype) for part in partitions]
    return choose_mounts(listed, root)


def choose_mounts(listed: Iterable[Mount], root: Path) -> list[Mount]:
    """Of the mounts of this process those that are the host's, by the host's names, sorted by name."""
    chosen: dict[str, Mount] = {}
    for mount in sorted(listed, key=lambda mount: (len(mount.name), mount.name)):
        if not mount.path.is_relative_to(root) or mount.fstype in _IMAGES:
            continue
        name = str(Path("/") / mount.path.relative_to(root))
        if mount.path.is_file():  # a container's /etc/hosts is a mount of its own
            continue
        if any(Path(name).is_relative_to(boot) for boot in _BOOT):
            continue
        # A device that is mounted twice (a bind mount) counts once, where its path is shortest.
        chosen.setdefault(mount.device, dataclasses.replace(mount, name=name))
    found = {mount.name: mount for mount in chosen.values()}
    if "/" not in found:  # an overlay or a network root is a pseudo file system to psutil
        found["/"] = Mount("/", root, "root", "unknown")
    return [found[name] for name in sorted(found)]


def interfaces(names: Sequence[str], classes: Path = Path("/sys/class/net")) -> set[str]:
    """Those of the interfaces that are hardware. In a container, where none is, all but loopback."""
    real = {name for name in names if "/devices/virtual/" not in os.path.realpath(classes / name)}
    real &= {name for name in names if (classes / name).exists()}
    return real or {name for name in names if name != "lo" and not name.startswith("lo0")}


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return []
