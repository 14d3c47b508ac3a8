"""TimescaleDB's background policies (level 1): what is wanted, and making it so.

Dagster refreshes the rollups by what loads have touched. The refresh policies are a safety net beside
that, for rows that reach the tables by another way.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

from hub.rollups.model import Hypertable, Rollup
from hub.timescale.connection import Connection

# How far back the refresh policies look. Retention may never reach this far: a refresh of buckets whose
# raw rows are gone erases them. READING_RETENTION_DAYS is 90 or more.
REFRESH_DAYS = 30


@dataclasses.dataclass(frozen=True)
class Policy:
    """A wanted background job. `intervals` are the times in its configuration, by TimescaleDB's names."""

    relation: str
    procedure: str
    intervals: tuple[tuple[str, dt.timedelta], ...]
    add: str
    remove: str


def refresh_policy(rollup: Rollup) -> Policy:
    """Refresh the last month of a continuous aggregate, but not the bucket that is still open."""
    bucket = dt.timedelta(seconds=rollup.seconds)
    start = max(dt.timedelta(days=REFRESH_DAYS), 3 * bucket)
    return Policy(
        rollup.name,
        "policy_refresh_continuous_aggregate",
        (("start_offset", start), ("end_offset", bucket)),
        "SELECT add_continuous_aggregate_policy(%(relation)s, start_offset => %(start_offset)s,"
        " end_offset => %(end_offset)s, schedule_interval => %(end_offset)s)",
        "SELECT remove_continuous_aggregate_policy(%(relation)s, if_exists => true)",
    )


def columnstore_policy(table: Hypertable, after: dt.timedelta) -> Policy:
    """Move chunks of this age to the columnstore."""
    return Policy(
        table.name,
        "policy_compression",
        (("compress_after", after),),
        "CALL add_columnstore_policy(%(relation)s, after => %(compress_after)s)",
        "CALL remove_columnstore_policy(%(relation)s, if_exists => true)",
    )


def retention_policy(table: Hypertable, after: dt.timedelta) -> Policy:
    """Drop chunks of this age."""
    return Policy(
        table.name,
        "policy_retention",
        (("drop_after", after),),
        "SELECT add_retention_policy(%(relation)s, drop_after => %(drop_after)s)",
        "SELECT remove_retention_policy(%(relation)s, if_exists => true)",
    )


def wanted(
    tables: Sequence[Hypertable],
    rollups: Sequence[Rollup],
    compress_after_days: int,
    retention_days: int | None,
) -> list[Policy]:
    """All policies of the declarations and settings. Retention is for the readings, and off unless set."""
    policies = [refresh_policy(rollup) for rollup in rollups]
    policies += [columnstore_policy(table, dt.timedelta(days=compress_after_days)) for table in tables]
    if retention_days:
        policies += [
            retention_policy(table, dt.timedelta(days=retention_days))
            for table in tables
            if table.name == "reading_analytics"
        ]
    return policies


def apply_policies(connection: Connection, tables: Sequence[Hypertable], policies: Sequence[Policy]) -> list[str]:
    """Add, change and remove policies until they are what is wanted; return what was changed."""
    changed = []
    for table in tables:
        if _enable_columnstore(connection, table):
            changed.append(f"columnstore of {table.name}")
    for policy in policies:
        have = current(connection, policy.relation, policy.procedure)
        if have != dict(policy.intervals):
            parameters = {"relation": policy.relation, **dict(policy.intervals)}
            if have is not None:
                connection.execute(policy.remove, parameters)
            connection.execute(policy.add, parameters)
            changed.append(f"{policy.procedure} of {policy.relation}")
    kept = {(policy.relation, policy.procedure) for policy in policies}
    for table in tables:
        superfluous = retention_policy(table, dt.timedelta(0))
        if (table.name, superfluous.procedure) not in kept and current(connection, table.name, superfluous.procedure):
            connection.execute(superfluous.remove, {"relation": table.name})
            changed.append(f"{superfluous.procedure} of {table.name}")
    return changed


def current(connection: Connection, relation: str, procedure: str) -> dict[str, dt.timedelta] | None:
    """The intervals of the job that runs `procedure` on a hypertable or continuous aggregate, None without one."""
    row = connection.execute(
        "SELECT jobs.config FROM timescaledb_information.jobs AS jobs"
        " LEFT JOIN timescaledb_information.continuous_aggregates AS aggregates"
        "   ON aggregates.materialization_hypertable_name = jobs.hypertable_name"
        " WHERE jobs.proc_name = %s AND coalesce(aggregates.view_name, jobs.hypertable_name) = %s",
        (procedure, relation),
    ).fetchone()
    if row is None:
        return None
    names = ("start_offset", "end_offset", "compress_after", "drop_after")
    intervals = {}
    for name in names:
        if row[0].get(name) is not None:
            value = connection.execute("SELECT %s::interval", (row[0][name],)).fetchone()
            assert value is not None
            intervals[name] = value[0]
    return intervals


def _enable_columnstore(connection: Connection, table: Hypertable) -> bool:
    row = connection.execute(
        "SELECT compression_enabled FROM timescaledb_information.hypertables WHERE hypertable_name = %s",
        (table.name,),
    ).fetchone()
    if row is None or row[0]:
        return False
    connection.execute(
        f"ALTER TABLE {table.name} SET (timescaledb.enable_columnstore,"
        f" timescaledb.segmentby = '{table.segment_by}', timescaledb.orderby = '{table.time} DESC')"
    )
    return True
