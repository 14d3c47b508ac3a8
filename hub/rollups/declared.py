"""The rollups and hypertables of the hub. To add a rollup of your own, add a declaration and run `hub db upgrade`."""

from __future__ import annotations

from hub.metrics.rollups import METRIC_ROLLUPS, SYSTEM_METRICS
from hub.rollups.model import Count, First, Hypertable, Last, Max, Min, Rollup, Sum

READING_ANALYTICS = Hypertable("reading_analytics", time="event_timestamp", segment_by="source")

READING_HOURLY = Rollup(
    name="reading_hourly",
    source="reading_analytics",
    time="event_timestamp",
    bucket="1 hour",
    dimensions=("source", "event_type"),
    measures=(
        Count("events"),
        Count("value_count", of="value"),
        Sum("value_sum", of="value"),
        Min("value_min", of="value"),
        Max("value_max", of="value"),
        First("first_at", of="event_timestamp"),
        Last("last_at", of="event_timestamp"),
    ),
)

READING_DAILY = READING_HOURLY.coarser("reading_daily", bucket="1 day")

HYPERTABLES: tuple[Hypertable, ...] = (READING_ANALYTICS, SYSTEM_METRICS)

# A rollup stands after the one that it is built on.
ROLLUPS: tuple[Rollup, ...] = (READING_HOURLY, READING_DAILY)
# All of them, those of host metrics too: what `hub db upgrade` makes.
EVERY_ROLLUP: tuple[Rollup, ...] = (*ROLLUPS, *METRIC_ROLLUPS)
