"""Look at the host: one payload for each kind of metric. A kind that fails does not take the others down."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hub.metrics import host
from hub.metrics.model import Sample

log = logging.getLogger(__name__)

Payload = dict[str, Any]


class Sampler:
    """Takes samples of this host. Percentages and rates are those of the time since the sample before."""

    def __init__(self, *, root: Path = Path("/"), hostname: str | None = None) -> None:
        self.root = root
        self.hostname = hostname or host.hostname(root)
        self.system = host.system(root)
        self.kinds: dict[str, Callable[[], Payload]] = {
            "cpu": self._cpu,
            "memory": self._memory,
            "disk": self._disk,
            "network": self._network,
            "uptime": self._uptime,
        }
        self._cpu_before = psutil.cpu_times()
        self._rates = _Rates()
        self._failing: dict[str, str] = {}

    def sample_rates_over(self, seconds: float, stop: threading.Event) -> None:
        """Let some time pass, so that the next sample has percentages and rates to tell."""
        self.sample(dt.datetime.now(dt.UTC))
        stop.wait(seconds)

    def sample(self, at: dt.datetime) -> list[Sample]:
        """One sample of each kind, all with the time `at`. What fails is logged when it begins to."""
        samples = []
        for kind, look in self.kinds.items():
            try:
                samples.append(Sample(at, self.hostname, self.system, kind, look()))
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                if self._failing.get(kind) != problem:
                    log.warning("no %s metrics: %s", kind, problem)
                self._failing[kind] = problem
            else:
                if self._failing.pop(kind, None):
                    log.info("%s metrics are back", kind)
        return samples

    def _cpu(self) -> Payload:
        before, self._cpu_before = self._cpu_before, psutil.cpu_times()
        load = os.getloadavg()
        payload: Payload = {
            **cpu_shares(before._asdict(), self._cpu_before._asdict()),
            "cores": psutil.cpu_count() or 1,
            "load_1m": round(load[0], 2),
            "load_5m": round(load[1], 2),
            "load_15m": round(load[2], 2),
        }
        if temperatures := _temperatures():
            payload |= {"temperature": max(temperatures.values()), "temperatures": temperatures}
        return payload

    def _memory(self) -> Payload:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return {
            "total": memory.total,
            "available": memory.available,
            "used": memory.total - memory.available,
            "percent": memory.percent,
            "swap_total": swap.total,
            "swap_used": swap.used,
            "swap_percent": swap.percent,
        }

    def _disk(self) -> Payload:
        mounts: dict[str, Payload] = {}
        for mount in host.mounts(self.root):
            try:
                mounts[mount.name] = usage(mount)
            except OSError as error:
                log.debug("%s cannot be read: %s", mount.name, error)
        if not mounts:
            raise OSError("no file system can be read")
        fullest = max(mounts, key=lambda name: mounts[name]["percent"])
        payload: Payload = {
            "total": sum(mount["total"] for mount in mounts.values()),
            "used": sum(mount["used"] for mount in mounts.values()),
            "percent": mounts[fullest]["percent"],
            "fullest": fullest,
            "mounts": mounts,
        }
        if counters := psutil.disk_io_counters():
            payload |= {"read_bytes": counters.read_bytes, "write_bytes": counters.write_bytes}
            payload["read_rate"] = self._rates.per_second("disk read", counters.read_bytes)
            payload["write_rate"] = self._rates.per_second("disk write", counters.write_bytes)
        return payload

    def _network(self) -> Payload:
        counters = psutil.net_io_counters(pernic=True)
        found: dict[str, Payload] = {}
        for name in sorted(host.interfaces(list(counters))):
            counter = counters[name]
            found[name] = {
                "bytes_received": counter.bytes_recv,
                "bytes_sent": counter.bytes_sent,
                "packets_received": counter.packets_recv,
                "packets_sent": counter.packets_sent,
                "errors": counter.errin + counter.errout,
                "drops": counter.dropin + counter.dropout,
                "receive_rate": self._rates.per_second(f"{name} receive", counter.bytes_recv),
                "send_rate": self._rates.per_second(f"{name} send", counter.bytes_sent),
            }
        totals = {
            name: sum(interface[name] for interface in found.values())
            for name in ("bytes_received", "bytes_sent", "errors", "drops")
        }
        rates: Payload = {}
        for name in ("receive_rate", "send_rate"):
            known = [interface[name] for interface in found.values() if interface[name] is not None]
            rates[name] = round(sum(known), 1) if known else None
        return {**totals, **rates, "interfaces": found}

    def _uptime(self) -> Payload:
        booted = psutil.boot_time()
        return {
            "seconds": round(time.time() - booted),
            "booted_at": dt.datetime.fromtimestamp(booted, dt.UTC).isoformat(),
            "processes": len(psutil.pids()),
        }


def cpu_shares(before: dict[str, float], after: dict[str, float]) -> dict[str, float | None]:
    """Percent of the processor time between two readings of its counters; None where no time passed."""
    # guest time is contained in user time; counting it again would make more than 100 %.
    passed = {name: max(after[name] - before.get(name, 0), 0) for name in after if not name.startswith("guest")}
    total = sum(passed.values())
    idle = passed.get("idle", 0) + passed.get("iowait", 0)
    parts = {name: passed.get(name, 0) for name in ("user", "system", "iowait", "steal")}
    shares = {"percent": total - idle, **parts}
    return {name: round(100 * share / total, 2) if total else None for name, share in shares.items()}


def usage(mount: host.Mount) -> Payload:
    """Bytes and inodes of a file system; `percent` is of what ordinary users can have, as df has it."""
    state = os.statvfs(mount.path)
    total, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
    used = total - state.f_bfree * state.f_frsize
    inodes = 100 * (1 - state.f_ffree / state.f_files) if state.f_files else 0.0
    return {
        "device": mount.device,
        "fstype": mount.fstype,
        "total": total,
        "used": used,
        "free": free,
        "percent": round(100 * used / (used + free), 2) if used + free else 0.0,
        "inodes_percent": round(inodes, 2),
    }


def _temperatures() -> dict[str, float]:
    """Degrees Celsius by sensor; empty on machines that have none or do not tell."""
    sensors: dict[str, list[Any]] = getattr(psutil, "sensors_temperatures", dict)()
    return {
        f"{chip}/{sensor.label or number}": sensor.current
        for chip, found in sensors.items()
        for number, sensor in enumerate(found)
        if -50 < sensor.current < 200  # broken sensors read 65261 or -128
    }


class _Rates:
    """Rates of counters that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before: dict[str, tuple[float, int]] = {}

    def per_second(self, name: str, value: int) -> float | None:
        """Growth per second since the last call, None at the first one and after a counter began anew."""
        now = self._clock()
        then, before = self._before.get(name, (now, value))
        self._before[name] = (now, value)
        return round((value - before) / (now - then), 1) if now > then and value >= before else None
