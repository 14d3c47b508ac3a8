"""Dump one database: pg_dump in directory format under our snapshot, with the facts of that snapshot."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from hub.backups import catalog, tools
from hub.backups.facts import collect, options
from hub.backups.model import DatabaseOptions, DatabasePart, Facts
from hub.backups.snapshot import Snapshot, snapshot
from hub.errors import DeniedError, HubError
from hub.settings import Settings
from hub.timescale.connection import Connection, connect, explain, login, where
from hub.timescale.level import timescale_version

_ATTEMPTS = 5
_PG_LOCK_WAIT = 3000  # milliseconds; then the whole protocol starts over


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a backup is: what it is doing, bytes written, tables done."""

    doing: str
    bytes: int = 0
    tables: int = 0

    def __str__(self) -> str:
        size = f", {self.bytes / 2**20:,.1f} MiB" if self.bytes else ""
        tables = f", {self.tables:,} tables" if self.tables else ""
        return f"{self.doing}{size}{tables}"


Report = Callable[[Progress], None]


def dump(settings: Settings, folder: Path, *, jobs: int, report: Report) -> DatabasePart:
    """Dump the database of `settings` into the new folder `folder/NAME`. Raises HubError.

    Waits for no lock longer than a few seconds; what holds one makes the attempt start over.
    """
    with connect(settings) as connection:
        major = connection.info.server_version // 10000
    pg_dump = tools.find("pg_dump", at_least=major, because=f"{where(settings)} is version {major}")
    target = folder / settings.db_name
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with snapshot(settings, say=lambda text: report(Progress(text))) as held:
                return _dump(settings, held, pg_dump, target, jobs, report)
        except tools.LockTimeoutError:
            if attempt == _ATTEMPTS:
                raise
            shutil.rmtree(target, ignore_errors=True)
            report(Progress(f"a table was locked by something else; trying again ({attempt} of {_ATTEMPTS})"))
    raise AssertionError("unreachable")


def _dump(
    settings: Settings, held: Snapshot, pg_dump: tools.Tool, target: Path, jobs: int, report: Report
) -> DatabasePart:
    codec = tools.codec(pg_dump)
    command: list[str | Path] = [
        pg_dump.path, "--format=directory", f"--jobs={jobs}", f"--snapshot={held.name}", "--verbose", "--no-password",
        f"--lock-wait-timeout={_PG_LOCK_WAIT}", f"--file={target}", f"--dbname={settings.db_name}",
    ]  # fmt: skip
    if codec == "zstd":
        command.append("--compress=zstd")
    done = 0

    def on_line(line: str) -> None:
        nonlocal done
        done += "dumping contents of table" in line

    def on_tick() -> None:
        report(Progress(f"dumping {settings.db_name}", _size(target), done))

    began = dt.datetime.now(dt.UTC)
    with ThreadPoolExecutor(1, "facts") as side:
        asked = side.submit(_ask, held.connection)
        try:
            tools.run(command, settings, on_line=on_line, on_tick=on_tick)
        except HubError:
            # A question that failed takes the snapshot with it: then that is the failure to tell.
            if asked.done() and isinstance(error := asked.exception(), psycopg.Error):
                raise explain(error, settings) from error
            held.connection.cancel_safe(timeout=5)
            raise
        except BaseException:
            held.connection.cancel_safe(timeout=5)
            raise
        try:
            made, size, extensions, version, extension, facts = asked.result()
        except psycopg.Error as error:
            raise explain(error, settings) from error
    catalog.compress(target, codec)
    report(Progress(f"dumped {settings.db_name}", _size(target), done))
    return DatabasePart(
        settings.db_name, f"databases/{settings.db_name}", version, extension, extensions, pg_dump.version, codec,
        began, size, made, facts,
    )  # fmt: skip


def _ask(connection: Connection) -> tuple[DatabaseOptions, int, dict[str, str], str, str | None, Facts]:
    made, size, extensions = options(connection)
    version = connection.info.parameter_status("server_version") or ""
    return made, size, extensions, version, timescale_version(connection), collect(connection)


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in folder.iterdir())
    except OSError:
        return 0


def dump_roles(settings: Settings, target: Path) -> str:
    """Write the server's roles to `target`; return a note on what is missing from them, or nothing.

    Password hashes are part of it where the role may read them. Raises HubError.
    """
    with connect(settings) as connection:
        major = connection.info.server_version // 10000
    pg_dumpall = tools.find("pg_dumpall", at_least=major, because=f"{where(settings)} is version {major}")
    command: list[str | Path] = [
        pg_dumpall.path, "--roles-only", "--no-password", f"--file={target}", f"--database={settings.db_name}",
    ]  # fmt: skip
    try:
        tools.run(command, settings)
        note = ""
    except DeniedError:
        tools.run([*command, "--no-role-passwords"], settings)
        note = f"roles without their passwords: {login(settings)} {settings.db_user} may not read them"
    target.chmod(0o600)
    return note
