"""What a backup is: the manifest and the records that are kept beside it, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """One file of a backup: path relative to its folder, size in bytes, SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class RollupTotals:
    """What a rollup adds up to: its first count, and all of its sums together.

    `value_sum` is compared with a tolerance: float addition has no fixed order.
    """

    buckets: int
    events: int
    value_sum: float | None
    first: str | None
    last: str | None


@dataclasses.dataclass(frozen=True)
class Job:
    """One background job of TimescaleDB: what it does, to what, and when."""

    id: int
    procedure: str
    relation: str | None
    owner: str
    scheduled: bool
    every: str
    config: str
    fixed: bool


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a database held as of one snapshot; a restored copy must hold exactly the same.

    `tables` are row counts by qualified name, hypertables and the tables below continuous aggregates
    included. `chunks` are (all, compressed) by hypertable. `objects` maps each table, index, view,
    function … to a short digest of its definition.
    """

    tables: dict[str, int]
    rollups: dict[str, RollupTotals]
    chunks: dict[str, tuple[int, int]]
    jobs: tuple[Job, ...]
    objects: dict[str, str]

    @property
    def rows(self) -> int:
        return sum(self.tables.values())


@dataclasses.dataclass(frozen=True)
class DatabaseOptions:
    """What `CREATE DATABASE` needs and a dump does not hold."""

    owner: str
    encoding: str
    provider: str
    collate: str
    ctype: str
    locale: str | None
    settings: tuple[tuple[str, str], ...]
    grants: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class DatabasePart:
    """One dumped database. `folder` is relative to the backup; `bytes_live` is its size on the server."""

    name: str
    folder: str
    server_version: str
    timescaledb: str | None
    extensions: dict[str, str]
    tool: str
    codec: str
    snapshot_at: dt.datetime
    bytes_live: int
    options: DatabaseOptions
    facts: Facts


@dataclasses.dataclass(frozen=True)
class Oddity:
    """A file of a volume that could not be copied as it is: why, and whether that is to be expected."""

    path: str
    what: str
    harmless: bool


@dataclasses.dataclass(frozen=True)
class VolumePart:
    """One archived folder. `bytes_live` counts the data that was read, holes excluded."""

    name: str
    source: str
    file: str
    entries: int
    bytes_live: int
    sqlite: tuple[str, ...]
    oddities: tuple[Oddity, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known of a backup. `sequence` orders backups even when the clock jumps."""

    format: int
    name: str
    sequence: int
    created_at: dt.datetime
    seconds: float
    hub_version: str
    databases: tuple[DatabasePart, ...]
    volumes: tuple[VolumePart, ...]
    roles: str | None
    notes: tuple[str, ...]
    files: tuple[FileEntry, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def bytes_live(self) -> int:
        return sum(part.bytes_live for part in self.databases) + sum(part.bytes_live for part in self.volumes)

    @property
    def rows(self) -> int:
        return sum(part.facts.rows for part in self.databases)

    @property
    def flaws(self) -> tuple[str, ...]:
        """Files that a volume should hold and does not."""
        return tuple(
            f"{part.name}/{oddity.path}: {oddity.what}"
            for part in self.volumes
            for oddity in part.oddities
            if not oddity.harmless
        )


class State(enum.StrEnum):
    """How much a backup can be trusted."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    DAMAGED = "damaged"


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of reading a backup back. `problems` is empty when all is well. Belongs to one manifest.

    `also` names the other backups that were marked, because they share a damaged file.
    """

    manifest_sha256: str
    at: dt.datetime
    seconds: float
    bytes: int
    problems: tuple[str, ...]
    also: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclasses.dataclass(frozen=True)
class DrillRecord:
    """The result of restoring a backup into a scratch database and comparing it with the manifest."""

    manifest_sha256: str
    at: dt.datetime
    seconds: float
    databases: tuple[str, ...]
    rows: int
    differences: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.differences


@dataclasses.dataclass(frozen=True)
class Backup:
    """A complete backup in the store, with what has been recorded about it."""

    name: str
    manifest: Manifest
    manifest_sha256: str
    verification: Verification | None
    drill: DrillRecord | None
    pinned: bool

    @property
    def state(self) -> State:
        if self.verification is None:
            return State.UNVERIFIED
        return State.VERIFIED if self.verification.ok else State.DAMAGED
