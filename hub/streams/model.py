"""What a stream is: a collection, how its documents become rows, and the names of all that follows from it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import string

DEFAULT_FRESH = dt.timedelta(hours=26)


class Mode(enum.StrEnum):
    """How a load treats rows whose document has left MongoDB."""

    UPSERT = "upsert"
    """They stay: MongoDB may forget (TTL indexes do), the hub does not."""
    MIRROR = "mirror"
    """They go, so that the days equal the source."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A dimension or measure: its column, and the dotted path of the field that it comes from."""

    name: str
    path: str


@dataclasses.dataclass(frozen=True)
class Stream:
    """One stream. Everything that is called after it takes its name from here.

    `start` is its first UTC day; earlier times are dead letters. Raw rows older than `keep` are dropped, None keeps
    them for ever. It may be quiet for `fresh`, None for as long as it likes. `updated_at` is a field that producers
    touch with every change, where there is one.
    """

    name: str
    database: str
    collection: str
    time_fields: tuple[str, ...]
    """The first that is present and not null counts."""
    dimensions: tuple[Column, ...]
    measures: tuple[Column, ...]
    start: dt.date
    updated_at: str | None = None
    mode: Mode = Mode.UPSERT
    keep: dt.timedelta | None = None
    fresh: dt.timedelta | None = DEFAULT_FRESH
    compress_after: dt.timedelta = dt.timedelta(days=30)

    @property
    def table(self) -> str:
        """The hypertable of its rows."""
        return f"{self.name}_analytics"

    @property
    def rejects(self) -> str:
        """The table of its dead letters."""
        return f"{self.name}_rejects"

    @property
    def days(self) -> str:
        """The table of its books: what the newest load of each day came to."""
        return f"{self.name}_days"

    @property
    def ledger(self) -> str:
        """The table of what MongoDB counts for each day, and of the days that are asked for."""
        return f"{self.name}_ledger"

    @property
    def ids(self) -> str:
        """The table of notes about the ids of each chunk."""
        return f"{self.name}_ids"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that come from the document's fields, as COPY and comparisons have them."""
        mapped = (column.name for column in (*self.dimensions, *self.measures))
        return ("mongo_id", "event_timestamp", *mapped, "payload", "meta")

    def sql(self, template: str) -> str:
        """A statement of a `.sql` file, with this stream's names in place of `$table`, `$rejects`, `$days` and so on."""
        values = [name for name in self.columns if name not in ("mongo_id", "event_timestamp")]
        return string.Template(template).substitute(
            stream=self.name,
            table=self.table,
            rejects=self.rejects,
            days=self.days,
            ledger=self.ledger,
            ids=self.ids,
            ids_version=f"{self.ids}_version",
            columns=", ".join(self.columns),
            values=", ".join(values),
            measures=", ".join(column.name for column in self.measures),
            excluded=", ".join(f"excluded.{name}" for name in values),
            present=", ".join(f"present.{name}" for name in values),
            staged=", ".join(f"staged.{name}" for name in values),
        )

    def first_kept(self, start: dt.date, end: dt.date, now: dt.datetime) -> dt.date:
        """The first day of a half-open range that retention leaves whole; `end` where it is none of them."""
        oldest = self.oldest_kept(now)
        return min(max(start, oldest.date()), end) if oldest else start

    def oldest_kept(self, now: dt.datetime) -> dt.datetime | None:
        """Start of the first UTC day that retention leaves whole; None where nothing is ever dropped."""
        if self.keep is None:
            return None
        day = (now.astimezone(dt.UTC) - self.keep).date() + dt.timedelta(days=1)
        return dt.datetime.combine(day, dt.time(), dt.UTC)
