"""What a rollup is: a source table, a bucket, dimensions and measures, and the SQL that follows from them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from typing import ClassVar

_UNITS = {"minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
# TimescaleDB's time_bucket counts from this Monday; so do we on every level.
ORIGIN = dt.datetime(2000, 1, 3, tzinfo=dt.UTC)


def digest(text: str) -> str:
    """Hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Measure:
    """One aggregated column. `raw` is its SQL over source rows, `combined` over finer buckets of its own."""

    name: str
    of: str | None = None

    function: ClassVar[str]
    combine: ClassVar[str]
    type: ClassVar[str] = "double precision"

    @property
    def raw(self) -> str:
        return f"{self.function}({self.of or '*'})"

    @property
    def combined(self) -> str:
        return f"{self.combine}({self.name})"


class Count(Measure):
    """Number of rows, or of rows where the column `of` is not null."""

    function, combine, type = "count", "sum", "bigint"

    @property
    def combined(self) -> str:
        return f"sum({self.name})::bigint"  # sum(bigint) is numeric


class Sum(Measure):
    """Sum of a double precision column."""

    function, combine = "sum", "sum"


class Min(Measure):
    """Least value of a double precision column."""

    function, combine = "min", "min"


class Max(Measure):
    """Greatest value of a double precision column."""

    function, combine = "max", "max"


class First(Measure):
    """Earliest time."""

    function, combine, type = "min", "min", "timestamptz"


class Last(Measure):
    """Latest time."""

    function, combine, type = "max", "max", "timestamptz"


@dataclasses.dataclass(frozen=True)
class Hypertable:
    """A table of raw rows. At level 1, chunks past a configurable age go to the columnstore, by `segment_by`."""

    name: str
    time: str
    segment_by: str


@dataclasses.dataclass(frozen=True)
class Rollup:
    """A rollup with the columns `bucket`, the dimensions and the measures.

    `bucket` is a count and a unit, such as '1 hour': minutes, hours, days or weeks, in UTC.
    `parent` is the finer rollup that this one is built on, None for one built on a table. Rows of a
    `streamed` one come all the time: at level 1 its open bucket is left to real-time aggregation.
    """

    name: str
    source: str
    time: str
    bucket: str
    dimensions: tuple[str, ...]
    measures: tuple[Measure, ...]
    parent: Rollup | None = None
    streamed: bool = False

    def coarser(self, name: str, *, bucket: str) -> Rollup:
        """A rollup of this one in larger buckets (hierarchical). Raises ValueError unless they fit."""
        child = dataclasses.replace(self, name=name, source=self.name, time="bucket", bucket=bucket, parent=self)
        if child.seconds % self.seconds or child.seconds <= self.seconds:
            raise ValueError(f"a bucket of {bucket} is no multiple of {self.name}'s {self.bucket}")
        return child

    @property
    def seconds(self) -> int:
        """Length of a bucket in seconds."""
        count, unit = self.bucket.split()
        return int(count) * _UNITS[unit.rstrip("s")]

    @property
    def table(self) -> str:
        """The raw table below this rollup and its parents."""
        return self.parent.table if self.parent else self.source

    @property
    def finest(self) -> Rollup:
        """The rollup below this one that is built on the table: this one itself, or one of its parents."""
        return self.parent.finest if self.parent else self

    @property
    def columns(self) -> tuple[str, ...]:
        return ("bucket", *self.dimensions, *(measure.name for measure in self.measures))

    def floor(self, time: dt.datetime) -> dt.datetime:
        """Start of the bucket that holds `time`."""
        length = dt.timedelta(seconds=self.seconds)
        return time - (time - ORIGIN) % length

    def ceil(self, time: dt.datetime) -> dt.datetime:
        """`time` if a bucket starts there, otherwise the start of the next one."""
        start = self.floor(time)
        return start if start == time else start + dt.timedelta(seconds=self.seconds)

    def bucket_sql(self, *, time_bucket: bool) -> str:
        """The bucket of a source row: TimescaleDB's time_bucket, or PostgreSQL's date_bin with its origin."""
        if time_bucket:
            return f"time_bucket(INTERVAL '{self.bucket}', {self.time})"
        return f"date_bin(INTERVAL '{self.bucket}', {self.time}, TIMESTAMPTZ '{ORIGIN.isoformat()}')"

    def select(self, *, time_bucket: bool, where: str = "") -> str:
        """The query that the rollup is the result of."""
        measures = ", ".join(
            f"{measure.combined if self.parent else measure.raw} AS {measure.name}" for measure in self.measures
        )
        groups = ", ".join(str(number + 1) for number in range(1 + len(self.dimensions)))
        columns = ", ".join((f"{self.bucket_sql(time_bucket=time_bucket)} AS bucket", *self.dimensions, measures))
        condition = f" WHERE {where}" if where else ""
        return f"SELECT {columns} FROM {self.source}{condition} GROUP BY {groups}"

    @property
    def signature(self) -> str:
        """A digest of all that the stored rows depend on, parents included."""
        return digest(json.dumps([self.select(time_bucket=False), self.parent.signature if self.parent else None]))
