"""What a database holds, asked within one snapshot, and the differences between two such answers."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from hub.backups.model import DatabaseOptions, Facts, Job, RollupTotals
from hub.rollups.declared import EVERY_ROLLUP
from hub.rollups.model import Count, Sum
from hub.timescale.connection import Connection

_SAME_SUM = 1e-9
# Definitions that PostgreSQL prints from its parse tree. Parsed again, by a restore, they come out in other words: with
# more aliases (`'x'::text AS text` in a UNION) and casts elsewhere (`varchar IN (…)`). What is left without those is the same.
_REWORDED = ("view ", "constraint ", "index ", "policy ", "column ", "trigger ")
_WORDING = re.compile(
    r"""::(?:character\ varying|bit\ varying|double\ precision|(?:timestamp|time)(?:\(\d\))?\ with(?:out)?\ time\ zone
          |"(?:[^"]|"")+"|[\w.]+)(?:\([\d,]+\))?(?:\[\])*
      |\ AS\ (?:"(?:[^"]|"")+"|\w+)
      |[()\s]""",
    re.VERBOSE,
)


def sql(name: str) -> str:
    return (files("hub.backups") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def rows(connection: Connection, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The result of `sql/NAME.sql`."""
    return connection.execute(sql(name), parameters or None).fetchall()


def has_timescaledb(connection: Connection) -> bool:
    return connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone() is not None


def tables(connection: Connection, timescaledb: bool) -> list[str]:
    """Qualified names of the tables whose rows are counted."""
    materialized = [name for (name,) in rows(connection, "materialized")] if timescaledb else []
    return [name for (name,) in rows(connection, "tables", materialized=materialized)]


def collect(connection: Connection, *, on_table: Callable[[str], None] | None = None) -> Facts:
    """All facts, as of the connection's snapshot. Reads every table once, to count it."""
    timescaledb = has_timescaledb(connection)
    counts = {}
    for name in tables(connection, timescaledb):
        if on_table:
            on_table(name)
        counts[name] = int(_one(connection, f"SELECT count(*) FROM {name}")[0])
    chunks: dict[str, tuple[int, int]] = {}
    jobs: tuple[Job, ...] = ()
    if timescaledb:
        chunks = {name: (total, compressed) for name, total, compressed in rows(connection, "chunk_counts")}
        jobs = tuple(Job(*row) for row in rows(connection, "jobs"))
    objects = {name: _fingerprint(name, definition or "") for name, definition in rows(connection, "objects")}
    return Facts(counts, _totals(connection), chunks, jobs, objects)


def _fingerprint(name: str, definition: str) -> str:
    """Sixteen digits that change with the definition; `~` in front says that its wording does not count."""
    reworded = name.startswith(_REWORDED)
    text = _WORDING.sub("", definition) if reworded else definition
    return "~" * reworded + hashlib.sha256(text.encode()).hexdigest()[:16]


def options(connection: Connection) -> tuple[DatabaseOptions, int, dict[str, str]]:
    """What the connected database was created with, its size in bytes, and its extensions."""
    (row,) = rows(connection, "options")
    owner, encoding, provider, collate, ctype, locale, size, settings, grants, extensions = row
    made = DatabaseOptions(
        owner, encoding, provider, collate, ctype, locale,
        tuple((role, setting) for role, setting in settings),
        tuple((role, privilege) for role, privilege in grants),
    )  # fmt: skip
    return made, size, extensions


def _totals(connection: Connection) -> dict[str, RollupTotals]:
    totals = {}
    for rollup in EVERY_ROLLUP:
        if _one(connection, "SELECT to_regclass(%s)", rollup.name)[0] is None:
            continue
        counts = [f"sum({measure.name})" for measure in rollup.measures if isinstance(measure, Count)]
        # As numeric, which no sum of doubles overflows.
        sums = [f"coalesce(sum({measure.name}::numeric), 0)" for measure in rollup.measures if isinstance(measure, Sum)]
        events = f"coalesce({counts[0]}, 0)::bigint" if counts else "0"
        values = f"{' + '.join(sums)}" if sums else "NULL::float8"
        query = f"SELECT count(*), {events}, {values}, min(bucket)::text, max(bucket)::text FROM {rollup.name}"
        buckets, count, value, first, last = _one(connection, query)
        # JSON has no words for what is not finite: of such a sum only the counts are compared.
        total = None if value is None or not math.isfinite(float(value)) else float(value)
        totals[rollup.name] = RollupTotals(buckets, count, total, first, last)
    return totals


def _one(connection: Connection, query: str, *parameters: Any) -> tuple[Any, ...]:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return row


def differences(want: Facts, have: Facts, *, same_server: bool = True) -> list[str]:
    """What `have`, a restored copy, lacks or has otherwise; empty when it is the same.

    Whether a job is switched on is not compared: restored jobs are held. Definitions are compared only
    between servers of one major version, because each major version words them in its own way.
    """
    found = _compare("rows of", want.tables, have.tables)
    for name, total in want.rollups.items():
        other = have.rollups.get(name)
        if other is None or not _equal(total, other):
            found.append(f"rollup {name}: {total} in the manifest, {other or 'nothing'} restored")
    found += _compare("chunks of", want.chunks, have.chunks)
    found += _compare("job", _jobs(want), _jobs(have))
    if same_server:
        # Manifests from before `~` hold the wording: of those objects, only whether they are there can be compared.
        old = {name: value for name, value in want.objects.items() if name.startswith(_REWORDED) and value[0] != "~"}
        restored = {name: old.get(name, value) for name, value in have.objects.items()}
        found += _compare("definition of", want.objects, restored)
    return found


def _jobs(facts: Facts) -> dict[str, tuple[object, ...]]:
    return {
        str(job.id): (job.procedure, job.relation, job.owner, job.every, job.config, job.fixed) for job in facts.jobs
    }


def _equal(one: RollupTotals, other: RollupTotals) -> bool:
    exact = (one.buckets, one.events, one.first, one.last) == (other.buckets, other.events, other.first, other.last)
    if one.value_sum is None or other.value_sum is None:
        return exact and one.value_sum is other.value_sum
    return exact and (
        math.isclose(one.value_sum, other.value_sum, rel_tol=_SAME_SUM) or str(one.value_sum) == str(other.value_sum)
    )


def _compare(what: str, want: dict[str, Any], have: dict[str, Any]) -> list[str]:
    return [
        f"{what} {name}: {_shown(want, name)} in the manifest, {_shown(have, name)} restored"
        for name in sorted(want.keys() | have.keys())
        if want.get(name) != have.get(name)
    ]


def _shown(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name, "nothing")
    return f"{value:,}" if isinstance(value, int) else str(value)
