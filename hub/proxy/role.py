"""The role that the proxy reads with: it may log in and select, and nothing else."""

from __future__ import annotations

from psycopg import sql

from hub.errors import SettingsError
from hub.rollups.declared import EVERY_ROLLUP
from hub.settings import Settings
from hub.timescale.connection import Connection

_RELATIONS = ("reading_analytics", "system_metrics", "api_tokens", *(rollup.name for rollup in EVERY_ROLLUP))


def make_reader(connection: Connection, settings: Settings) -> str:
    """Create PROXY_DB_USER or bring it up to date, in one transaction; return its name.

    Grants on a continuous aggregate go when it is rebuilt: run it again after `hub db upgrade`.
    Raises SettingsError unless both settings are there.
    """
    if not settings.proxy_db_user or settings.proxy_db_password is None:
        raise SettingsError("PROXY_DB_USER and PROXY_DB_PASSWORD are not set: set them in .env or the environment.")
    if settings.proxy_db_user == settings.db_user:
        raise SettingsError("PROXY_DB_USER must not be DB_USER: that one may write.")
    role = sql.Identifier(settings.proxy_db_user)
    password = sql.Literal(settings.proxy_db_password.get_secret_value())
    with connection.transaction():
        # Statements with a password are in the server's log where it logs them all; not from us.
        if _superuser(connection):
            connection.execute("SET LOCAL log_statement = 'none'")
        there = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (settings.proxy_db_user,)).fetchone()
        verb = sql.SQL("ALTER" if there else "CREATE")
        connection.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, password))
        connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(role))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(settings.db_name), role))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
        relations = sql.SQL(", ").join(map(sql.Identifier, _RELATIONS))
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(relations, role))
    return settings.proxy_db_user


def _superuser(connection: Connection) -> bool:
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return bool(row and row[0])
