"""The rollups of the hub. To add one of your own, add a declaration here and run `hub db upgrade`."""

from __future__ import annotations

from hub.rollups.model import Count, First, Last, Max, Min, Rollup, Sum

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

# A rollup stands after the one that it is built on.
ROLLUPS: tuple[Rollup, ...] = (READING_HOURLY, READING_DAILY)
