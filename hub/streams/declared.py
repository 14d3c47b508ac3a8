"""The streams that there are: the built-in one, as the settings shape it."""

from __future__ import annotations

import datetime as dt
import difflib

from hub.errors import SettingsError
from hub.settings import DefinitionSettings
from hub.streams.model import Column, Stream


def streams(settings: DefinitionSettings) -> tuple[Stream, ...]:
    """Every declared stream."""
    return (reading(settings),)


def named(settings: DefinitionSettings, name: str | None) -> tuple[Stream, ...]:
    """The stream of this name, or all without one. Raises SettingsError for a name that is none."""
    every = streams(settings)
    found = tuple(stream for stream in every if name in (None, stream.name))
    if not found:
        names = [stream.name for stream in every]
        near = difflib.get_close_matches(name or "", names, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There is {', '.join(names)}."
        raise SettingsError(f"there is no stream {name!r}. {hint}")
    return found


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
