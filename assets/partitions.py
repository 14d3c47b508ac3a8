"""A partition is a UTC day of event time."""

import datetime as dt

import dagster as dg


def daily(start: dt.date) -> dg.DailyPartitionsDefinition:
    """Days from `start` to today: today is there while it is still filling up."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), end_offset=1)
