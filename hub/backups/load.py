"""Fill a new database from a dump: the order that TimescaleDB needs, its jobs held, and a comparison at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from psycopg import sql as compose

from hub.backups import tools
from hub.backups.dump import Progress, Report
from hub.backups.facts import collect, differences
from hub.backups.model import DatabasePart, Facts
from hub.backups.verify import contents, restorer
from hub.settings import Settings
from hub.timescale.connection import MAINTENANCE, Connection, connect

_CATALOG = re.compile(r"^\d+; \d+ \d+ (TABLE DATA|SEQUENCE SET) _timescaledb_(catalog|config) ")
_ENTRY = re.compile(r"^\d+; ")
_RETENTION = "policy_retention"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a database holds after a restore, and how that differs from the manifest."""

    database: str
    facts: Facts
    differences: tuple[str, ...]


def identifier(name: str) -> compose.Identifier:
    return compose.Identifier(name)


def databases(settings: Settings) -> list[str]:
    """Names of the server's databases."""
    with connect(settings, database=MAINTENANCE) as connection:
        return [row[0] for row in connection.execute("SELECT datname FROM pg_database")]


def create(settings: Settings, part: DatabasePart, name: str) -> None:
    """Create an empty database like the one that was dumped. Raises HubError."""
    options = part.options
    with connect(settings, database=MAINTENANCE, autocommit=True) as connection:
        statement = compose.SQL(
            "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
        ).format(
            identifier(name), identifier(options.owner), compose.Literal(options.encoding),
            compose.Literal(options.collate), compose.Literal(options.ctype),
        )  # fmt: skip
        if options.provider in ("i", "b"):
            kind, word = ("icu", "ICU_LOCALE") if options.provider == "i" else ("builtin", "BUILTIN_LOCALE")
            statement += compose.SQL(" LOCALE_PROVIDER {} {} {}").format(
                compose.SQL(kind), compose.SQL(word), compose.Literal(options.locale or "")
            )
        connection.execute(statement)
        for role, setting in options.settings:
            key, _, value = setting.partition("=")
            change = compose.SQL("SET {} = {}").format(compose.SQL(key), compose.Literal(value))
            if role:
                connection.execute(
                    compose.SQL("ALTER ROLE {} IN DATABASE {} ").format(identifier(role), identifier(name)) + change
                )
            else:
                connection.execute(compose.SQL("ALTER DATABASE {} ").format(identifier(name)) + change)
        if options.grants:
            connection.execute(compose.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier(name)))
        for role, privilege in options.grants:
            grantee = identifier(role) if role else compose.SQL("PUBLIC")
            connection.execute(
                compose.SQL("GRANT {} ON DATABASE {} TO {}").format(compose.SQL(privilege), identifier(name), grantee)
            )


def drop(settings: Settings, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    with connect(settings, database=MAINTENANCE, autocommit=True) as connection:
        connection.execute(compose.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier(name)))


def load(settings: Settings, part: DatabasePart, folder: Path, name: str, *, jobs: int, report: Report) -> Loaded:
    """Restore a dump into the new, empty database `name` and compare it with the manifest.

    No background job has run when this returns, and none will: all are held until `release`.
    """
    command: list[str | Path] = [
        restorer(part).path, "--exit-on-error", "--no-password", "--verbose", f"--dbname={name}",
    ]  # fmt: skip
    source = folder / part.folder

    def run(doing: str, *more: str) -> None:
        done = 0

        def on_line(line: str) -> None:
            nonlocal done
            done += "processing data for table" in line

        tools.run(
            [*command, *more, source], settings, on_line=on_line,
            on_tick=lambda: report(Progress(f"{doing} of {part.name}", tables=done)),
        )  # fmt: skip
        report(Progress(f"{doing} of {part.name}", tables=done))

    with _restoring(settings, part, name), tempfile.TemporaryDirectory() as scratch:
        run("schema", "--section=pre-data")
        for number, (entries, parallel) in enumerate(_data(contents(folder, part))):
            listed = Path(scratch) / f"data{number}"
            listed.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
            run("data", f"--use-list={listed}", f"--jobs={jobs if parallel else 1}")
        run("indexes", "--section=post-data", f"--jobs={jobs}")
    report(Progress(f"comparing {part.name}"))
    with connect(settings, database=name, autocommit=True) as connection:
        facts = collect(connection)
        same_server = connection.info.server_version // 10000 == int(part.server_version.split(".")[0])
        connection.execute("ANALYZE")
    return Loaded(name, facts, tuple(differences(part.facts, facts, same_server=same_server)))


def _data(listing: str) -> list[tuple[list[str], bool]]:
    """The entries of the data section: TimescaleDB's own tables first and one by one, then the others."""
    lines = [line for line in listing.splitlines() if _ENTRY.match(line)]
    data = [line for line in lines if re.match(r"^\d+; \d+ \d+ (TABLE DATA|SEQUENCE SET|BLOBS|BLOB DATA) ", line)]
    catalog = [line for line in data if _CATALOG.match(line)]
    others = [line for line in data if not _CATALOG.match(line)]
    return [(entries, parallel) for entries, parallel in ((catalog, False), (others, True)) if entries]


@contextlib.contextmanager
def _restoring(settings: Settings, part: DatabasePart, name: str) -> Iterator[None]:
    """TimescaleDB of the very version, in restoring mode for the block; every job is held when it ends."""
    if part.timescaledb is None:
        yield
        return
    with connect(settings, database=name, autocommit=True) as connection:
        connection.execute(
            compose.SQL("CREATE EXTENSION timescaledb VERSION {}").format(compose.Literal(part.timescaledb))
        )
    with connect(settings, database=name, autocommit=True) as connection:
        connection.execute("SELECT timescaledb_pre_restore()")
    yield
    with connect(settings, database=name, autocommit=True) as connection:
        # Still in restoring mode, where the scheduler does not look: a job that was due would run at once.
        hold_jobs(connection)
        connection.execute("SELECT timescaledb_post_restore()")


def hold_jobs(connection: Connection) -> None:
    """Switch off every job of users."""
    connection.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE job_id >= 1000"
    )


def release_jobs(connection: Connection, part: DatabasePart) -> list[str]:
    """Give each job the schedule that it had, from one interval on; return remarks on those that stay off.

    A retention policy that would drop restored rows stays off: that is for a person to decide.
    """
    remarks = []
    for job in part.facts.jobs:
        if not job.scheduled:
            continue
        if job.procedure.endswith(_RETENTION) and (doomed := _doomed(connection, job.id)):
            remarks.append(
                f"the retention policy of {job.relation} (job {job.id}) would drop {doomed:,} restored chunks and stays"
                f" off; to switch it on: SELECT alter_job({job.id}, scheduled => true)"
            )
            continue
        connection.execute(
            "SELECT alter_job(%s, scheduled => true,"
            " next_start => now() + greatest(%s::interval, interval '5 minutes'))",
            (job.id, job.every),
        )
    return remarks


def _doomed(connection: Connection, job: int) -> int:
    row = connection.execute(
        "SELECT count(*) FROM timescaledb_information.jobs j"
        " JOIN timescaledb_information.chunks c USING (hypertable_schema, hypertable_name)"
        " WHERE j.job_id = %s AND c.range_end < now() - (j.config ->> 'drop_after')::interval",
        (job,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def scratch_name(base: str, kind: str) -> str:
    """A name for a database beside `base`, with the time in it, 63 characters at most."""
    now = f"{dt.datetime.now(dt.UTC):%Y%m%dt%H%M%S%f}"
    return f"{_stem(base, kind)}_{kind}_{now}"


def of_kind(names: list[str], base: str, kind: str) -> list[str]:
    """Those databases that `scratch_name` has named, oldest first."""
    pattern = re.compile(rf"{re.escape(_stem(base, kind))}_{kind}_\d{{8}}t\d{{12}}")
    return sorted(name for name in names if pattern.fullmatch(name))


def _stem(base: str, kind: str) -> str:
    return base[: 63 - len(kind) - len("__20260305t120000000000")]
