"""The streams that there are: the built-in one, as the settings shape it."""

from __future__ import annotations

import datetime as dt

from hub.settings import DefinitionSettings
from hub.streams.model import Column, Stream


def streams(settings: DefinitionSettings) -> tuple[Stream, ...]:
    """Every declared stream."""
    return (reading(settings),)


def reading(settings: DefinitionSettings) -> Stream:
    """The built-in stream of reading events."""
    keep = settings.reading_retention_days
    return Stream(
        name="reading",
        database=settings.mongo_db_name,
        collection=settings.mongo_collection,
        time_fields=settings.reading_time_field,
        dimensions=(Column("source", "source"), Column("event_type", "event_type")),
        measures=(Column("value", settings.reading_value_path),),
        start=settings.reading_start_date,
        keep=dt.timedelta(days=keep) if keep else None,
        compress_after=dt.timedelta(days=settings.reading_compress_after_days),
    )
