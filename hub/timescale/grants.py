"""Who may do what with which relation: one table for all of them, and making the database agree with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.resources import files

from psycopg import sql

from hub.rollups.apply import function_names, view_names
from hub.rollups.declared import EVERY_ROLLUP
from hub.settings import Settings
from hub.timescale.connection import Connection
from hub.timescale.level import Level

READ = "SELECT"
APPEND = "SELECT, INSERT"
KEEP = "SELECT, INSERT, UPDATE"
WRITE = "SELECT, INSERT, UPDATE, DELETE"
# All columns of a relation: the grant is one on the relation itself.
ALL = ("",)


@dataclasses.dataclass(frozen=True)
class Access:
    """What each role may do with a relation. The owner may do everything, whoever is not named nothing.

    `grafana` and `proxy` are the columns that these may select.
    """

    writer: str
    grafana: tuple[str, ...] = ()
    proxy: tuple[str, ...] = ()


# The whole of it. A test holds it against the catalog: a new table without a line here fails.
_TABLES = {
    "reading_analytics": Access(WRITE, grafana=ALL, proxy=ALL),
    # The documents themselves are for those who mend them. `detail` quotes the value that was wrong.
    "reading_rejects": Access(WRITE, grafana=("mongo_id", "reason", "detail", "event_day", "rejected_at")),
    "reading_days": Access(KEEP, grafana=ALL),
    "reading_ids": Access(WRITE),
    "reading_ids_version": Access(READ),
    "reading_ledger": Access(WRITE, grafana=ALL),
    "stream_state": Access(KEEP, grafana=ALL),
    "ledger_runs": Access(APPEND + ", DELETE", grafana=ALL),
    "rollup_dirty": Access("SELECT, INSERT, DELETE", grafana=ALL),
    "rollup_state": Access("SELECT, UPDATE", grafana=ALL),
    "system_metrics": Access(APPEND, grafana=ALL, proxy=ALL),
    "backup_runs": Access(KEEP, grafana=ALL),
    "notify_state": Access(KEEP),  # its problems may quote anything
    "api_tokens": Access(KEEP, proxy=ALL),
    "api_idempotency": Access(KEEP),
    "alembic_version": Access(READ),
}


def access(level: Level) -> dict[str, Access]:
    """Every relation of the hub and who may do what with it, at this level of the database."""
    # A continuous aggregate is written by its refresh alone, which is the owner's.
    rollup = Access(READ if level.continuous_aggregates else WRITE, grafana=ALL, proxy=ALL)
    return {
        **_TABLES,
        **{declared.name: rollup for declared in EVERY_ROLLUP},
        **{view: Access(READ, grafana=ALL) for view in view_names()},
    }


Grant = tuple[str, str, str, str]
"""Relation, column or '', role or '' for PUBLIC, privilege."""


def wanted(settings: Settings, level: Level, roles: set[str]) -> set[Grant]:
    """The grants that there should be, to those of the settings' roles that are in `roles`."""
    return {grant for grant in _wanted(settings, level) if grant[2] in roles}


def _wanted(settings: Settings, level: Level) -> Iterator[Grant]:
    for relation, one in access(level).items():
        if settings.db_user != settings.owner:
            yield from ((relation, "", settings.db_user, privilege) for privilege in one.writer.split(", "))
        for reader, columns in ((settings.grafana_role, one.grafana), (settings.proxy_db_user, one.proxy)):
            if reader:
                yield from ((relation, column, reader, READ) for column in columns)


def differences(connection: Connection, settings: Settings, level: Level) -> tuple[set[Grant], set[Grant]]:
    """Grants that are missing; and those to roles of the settings, or beside them to PUBLIC, that are too many."""
    named = {settings.grafana_role or "", settings.proxy_db_user or ""}
    if settings.db_user != settings.owner:
        named.add(settings.db_user)
    found = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND NOT rolsuper", (sorted(named),)
    ).fetchall()
    roles = {name for (name,) in found}
    if not roles:
        return set(), set()
    relations = [
        name
        for (name,) in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)",
            (list(access(level)),),
        )
    ]
    statement = (files("hub.timescale") / "sql" / "grants_held.sql").read_text(encoding="utf-8")
    held = {
        (relation, column, role, privilege)
        for relation, column, role, privilege in connection.execute(statement, {"relations": relations})
        if role in {*roles, ""}
    }
    want = {grant for grant in wanted(settings, level, roles) if grant[0] in relations}
    return want - held, held - want


def apply_grants(connection: Connection, settings: Settings, level: Level) -> int:
    """Grant what is missing and revoke what is too much, in one transaction; return how many were changed.

    `connection` must be the owner's or a superuser's. On a hypertable TimescaleDB does the same for its
    chunks, on a continuous aggregate for the tables below it; a role that does not exist yet is left out.
    Only differences are touched, so that nothing is rewritten for thousands of chunks when all is well.
    """
    with connection.transaction():
        missing, superfluous = differences(connection, settings, level)
        for relation, column, role, privilege in sorted(superfluous):
            connection.execute(_statement("REVOKE {} ON {} FROM {}", relation, column, role, privilege))
        for relation, column, role, privilege in sorted(missing):
            connection.execute(_statement("GRANT {} ON {} TO {}", relation, column, role, privilege))
    return len(missing) + len(superfluous)


def _statement(template: str, relation: str, column: str, role: str, privilege: str) -> sql.Composed:
    what: sql.Composable = sql.SQL(privilege)
    if column:
        what += sql.SQL(" ({})").format(sql.Identifier(column))
    whom = sql.Identifier(role) if role else sql.SQL("PUBLIC")
    return sql.SQL(template).format(what, sql.Identifier("public", relation), whom)


def hand_over(connection: Connection, owner: str, level: Level) -> list[str]:
    """Make `owner` the owner of every relation and function of the hub that is somebody else's; return their names.

    TimescaleDB hands the chunks, the columnstore's tables and the background jobs over with each, PostgreSQL sequences. In the
    caller's transaction or none; no row is read.
    """
    rows = connection.execute(
        "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind <> 'S' AND relname = ANY(%s) AND pg_get_userbyid(relowner) <> %s ORDER BY oid",
        (list(access(level)), owner),
    ).fetchall()
    rollups = {rollup.name for rollup in EVERY_ROLLUP}
    for name, kind in rows:
        word = "TABLE" if kind in "rp" else "MATERIALIZED VIEW" if name in rollups else "VIEW"
        connection.execute(
            sql.SQL("ALTER {} {} OWNER TO {}").format(
                sql.SQL(word), sql.Identifier("public", name), sql.Identifier(owner)
            )
        )
    functions = connection.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND proname = ANY(%s) AND pg_get_userbyid(proowner) <> %s",
        ([*function_names(), "distrust_ids"], owner),
    ).fetchall()
    for (name,) in functions:
        connection.execute(
            sql.SQL("ALTER FUNCTION {} OWNER TO {}").format(sql.Identifier("public", name), sql.Identifier(owner))
        )
    return [name for name, *_ in rows + functions]
