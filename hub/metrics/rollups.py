"""The rollups of host metrics: a row for each host and bucket, with the columns that dashboards draw.

An average is kept with the sum and the count that it was made of, so that an hour's is exact although it
is made of five-minute buckets with different numbers of samples. What has no fixed number of parts, mounts
and interfaces, is kept as the newest state in the bucket; its counters give exact differences over time.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hub.rollups.model import Count, Hypertable, Max, Measure, Rollup, Sum

SYSTEM_METRICS = Hypertable("system_metrics", time="time", segment_by="host, metric_type")


@dataclasses.dataclass(frozen=True)
class Average(Measure):
    """Mean of a double precision expression. `parts` are the columns with its sum and count."""

    parts: tuple[str, str] = ("", "")

    function: ClassVar[str] = "avg"

    @property
    def combined(self) -> str:
        return f"sum({self.parts[0]}) / nullif(sum({self.parts[1]}), 0)"


@dataclasses.dataclass(frozen=True)
class Newest(Measure):
    """The newest value of a jsonb expression that is not null."""

    type: ClassVar[str] = "jsonb"

    @property
    def raw(self) -> str:
        return f"(array_agg({self.of} ORDER BY time DESC) FILTER (WHERE {self.of} IS NOT NULL))[1]"

    @property
    def combined(self) -> str:
        return f"(array_agg({self.name} ORDER BY bucket DESC) FILTER (WHERE {self.name} IS NOT NULL))[1]"


def _number(kind: str, field: str) -> str:
    return f"CASE metric_type WHEN '{kind}' THEN (payload->>'{field}')::double precision END"


def _object(kind: str, field: str) -> str:
    return f"CASE metric_type WHEN '{kind}' THEN payload->'{field}' END"


def _level(name: str, kind: str, field: str) -> tuple[Measure, ...]:
    """Count, sum, average and maximum of what goes up and down."""
    of = _number(kind, field)
    parts = (f"{name}_sum", f"{name}_count")
    return (
        Count(f"{name}_count", of=of),
        Sum(f"{name}_sum", of=of),
        Average(f"{name}_avg", of=of, parts=parts),
        Max(f"{name}_max", of=of),
    )


SYSTEM_METRICS_5M = Rollup(
    name="system_metrics_5m",
    source="system_metrics",
    time="time",
    bucket="5 minutes",
    dimensions=("host",),
    measures=(
        Count("samples"),
        *_level("cpu_percent", "cpu", "percent"),
        *_level("load_1m", "cpu", "load_1m"),
        Max("cpu_cores", of=_number("cpu", "cores")),
        Max("temperature_max", of=_number("cpu", "temperature")),
        *_level("memory_used", "memory", "used"),
        Max("memory_total", of=_number("memory", "total")),
        Max("memory_percent_max", of=_number("memory", "percent")),
        Max("swap_used_max", of=_number("memory", "swap_used")),
        Max("swap_total", of=_number("memory", "swap_total")),
        Max("disk_used_max", of=_number("disk", "used")),
        Max("disk_total", of=_number("disk", "total")),
        Max("disk_percent_max", of=_number("disk", "percent")),
        *_level("disk_read_rate", "disk", "read_rate"),
        *_level("disk_write_rate", "disk", "write_rate"),
        Newest("disk_mounts", of=_object("disk", "mounts")),
        *_level("receive_rate", "network", "receive_rate"),
        *_level("send_rate", "network", "send_rate"),
        Newest("interfaces", of=_object("network", "interfaces")),
        Max("uptime_seconds", of=_number("uptime", "seconds")),
    ),
    streamed=True,
)

SYSTEM_METRICS_HOURLY = SYSTEM_METRICS_5M.coarser("system_metrics_hourly", bucket="1 hour")

METRIC_ROLLUPS: tuple[Rollup, ...] = (SYSTEM_METRICS_5M, SYSTEM_METRICS_HOURLY)
