"""How an asset gets at the engine: its settings, its errors, its window."""

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping

import dagster as dg
from pydantic import Field

from hub.errors import HubError
from hub.settings import Settings, load_settings

RETRIES = 2
OWNERS = ["team:reading-hub"]


class HubResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The engine's settings, read from the environment and `.env` when a run starts (see hub/settings.py)."""

    retry_seconds: int = Field(20, description="Pause before a step is tried again after a server was away.")

    def settings(self) -> Settings:
        """All settings. Raises SettingsError naming what is missing."""
        return load_settings()

    @contextlib.contextmanager
    def clear_failures(self) -> Iterator[None]:
        """End the step with the hub's own sentence; try again only where that can help.

        A server that is away is worth two more tries; a wrong password is not.
        """
        try:
            yield
        except HubError as error:
            if error.retryable:
                raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=self.retry_seconds) from error
            raise dg.Failure(description=str(error), allow_retries=False) from error


def days_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> tuple[dt.date, dt.date]:
    """First UTC day of the run's partitions, and the day after the last: the whole range of a backfill."""
    window = context.partition_time_window
    return window.start.date(), window.end.date()


def of_the_run(
    context: dg.AssetExecutionContext, key: dg.AssetKey, metadata: Mapping[str, object]
) -> Mapping[str, object]:
    """What belongs to the whole run: metadata of its partition where it has one only, else an observation.

    Dagster repeats the metadata of a result for each partition of the run, and its plots would show a year's total
    for each of its days.
    """
    if len(context.partition_keys) == 1:
        return metadata
    context.log_event(dg.AssetObservation(key, metadata=metadata))
    return {}


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> dg.MarkdownMetadataValue:
    """A Markdown table as metadata."""
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))
