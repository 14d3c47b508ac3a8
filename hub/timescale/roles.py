"""The database's roles: made, brought up to date, and kept apart from what is not theirs (docs/roles.md).

An owner that nobody logs in as, a writer for the pipeline, readers for Grafana and the proxy API, and Dagster's
own role with its own database. What each may do with which table is in `hub.timescale.grants`.
"""

from __future__ import annotations

import dataclasses

from psycopg import sql
from pydantic import SecretStr

from hub.errors import DeniedError, RefusedError, SchemaError, SettingsError
from hub.settings import Settings
from hub.timescale.connection import MAINTENANCE, Connection, connect, where
from hub.timescale.grants import apply_grants, hand_over
from hub.timescale.level import detect

# `hub db upgrade` holds the same lock: both change grants.
UPGRADE_LOCK = 0x52454144
_BOOTSTRAP_SUPERUSER = 10
# What PUBLIC may call and a reader must not: they write (large objects; jobs that TimescaleDB then runs).
_WRITING = ("lo_create", "lo_creat", "lo_from_bytea", "lo_import", "add_job")


@dataclasses.dataclass(frozen=True)
class Role:
    """A role to make. `setting` is the name of the setting that it comes from."""

    name: str
    setting: str
    does: str
    password: SecretStr | None = None
    reads_only: bool = False


def declared(settings: Settings) -> tuple[Role, ...]:
    """The roles of the settings. Raises SettingsError where two are one, or a password is missing."""
    admin = settings.as_admin().db_user
    roles = []
    if settings.owner != settings.db_user:
        roles.append(Role(settings.owner, "DB_OWNER", "owns the tables; nobody logs in as it"))
    if settings.db_user != admin:
        does = "writes" if settings.owner != settings.db_user else "owns the tables and writes"
        roles.append(Role(settings.db_user, "DB_USER", does, settings.db_password))
    if settings.dagster_db_user and settings.dagster_db_user not in (settings.db_user, admin):
        does = f"owns the database {settings.dagster_db_name}"
        roles.append(Role(settings.dagster_db_user, "DAGSTER_DB_USER", does, settings.dagster_db_password))
    if settings.grafana_db_password is not None:
        roles.append(
            Role(settings.grafana_db_user, "GRAFANA_DB_USER", "reads", settings.grafana_db_password, reads_only=True)
        )
    if settings.proxy_db_user:
        roles.append(
            Role(settings.proxy_db_user, "PROXY_DB_USER", "reads", settings.proxy_db_password, reads_only=True)
        )
    _refuse_muddle(settings, admin, roles)
    return tuple(roles)


def _refuse_muddle(settings: Settings, admin: str, roles: list[Role]) -> None:
    seen = {admin: "DB_ADMIN_USER" if settings.db_admin_user else "DB_USER"}
    for role in roles:
        if role.name in seen:
            raise SettingsError(f"{role.setting} must not be the same role as {seen[role.name]}: name another one.")
        seen[role.name] = role.setting
        if role.password is None and role.setting != "DB_OWNER":
            password = role.setting.replace("_USER", "_PASSWORD")
            raise SettingsError(f"{password} is not set: set it in .env or the environment.")
    if settings.dagster_db_name == settings.db_name and "DAGSTER_DB_USER" in seen.values():
        raise SettingsError(
            "DAGSTER_DB_NAME must not be DB_NAME where Dagster has a role of its own: name another one."
        )


def make_roles(settings: Settings) -> tuple[str, ...]:
    """Create the roles and databases that the settings name, or bring them up to date; return a line for each.

    Changes nothing when run again but the passwords, which become those of the settings; safe to run twice
    at once. Needs DB_ADMIN_USER to be a superuser. Raises HubError.
    """
    roles, admin, lines = declared(settings), settings.as_admin(), []
    databases = {settings.db_name: settings.owner}
    if settings.dagster_db_name != settings.db_name:
        databases[settings.dagster_db_name] = settings.as_dagster().db_user
    with connect(admin, database=MAINTENANCE, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))
        _refuse_unless_superuser(connection, admin)
        for role in roles:
            made = _make(connection, role)
            if role.setting == "GRAFANA_DB_USER":
                _point_at_dagster(connection, role, settings)
            lines.append(f"{role.name} {role.does}{'' if made else ' (as before)'}")
        if settings.owner != settings.db_user and settings.db_user != admin.db_user:
            _let_refresh(connection, settings.owner, settings.db_user)
        for name, owner in databases.items():
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                words = (sql.Identifier(name), sql.Identifier(owner))
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*words))
                lines.append(f"database {name} made, owned by {owner}")
    with connect(admin, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))
        create_extension(connection)
    for name in databases:
        with connect(admin, database=name, autocommit=True) as connection:
            settle(connection, settings, of_dagster=name != settings.db_name)
    return tuple(lines)


def create_extension(connection: Connection) -> None:
    """Create TimescaleDB where the server offers it."""
    offered = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone()
    if offered:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")


def _refuse_unless_superuser(connection: Connection, admin: Settings) -> None:
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if not (row and row[0]):
        raise DeniedError(
            f"{where(admin)}: {admin.db_user!r} is not a superuser and cannot make roles: set DB_ADMIN_USER and"
            " DB_ADMIN_PASSWORD to one that is."
        )


def _make(connection: Connection, role: Role) -> bool:
    """Create the role or bring it up to date, in one transaction; return whether it is new."""
    name = sql.Identifier(role.name)
    with connection.transaction():
        _log_nothing(connection)
        row = connection.execute("SELECT oid::int8 FROM pg_roles WHERE rolname = %s", (role.name,)).fetchone()
        if row and row[0] == _BOOTSTRAP_SUPERUSER:
            raise RefusedError(
                f"{role.setting} {role.name!r} is the superuser that the server was made with, which PostgreSQL never"
                f" lets become an ordinary role: set {role.setting} to another name."
            )
        verb = sql.SQL("ALTER" if row else "CREATE")
        # LOGIN for the owner too: TimescaleDB starts its jobs as it. It has no password, so that nobody else can.
        connection.execute(
            sql.SQL(
                "{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
            ).format(verb, name, _verifier(connection, role))
        )
        if role.reads_only:
            # A second lock only: whoever has the role can undo it. The grants are the first.
            connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name))
    return row is None


def _point_at_dagster(connection: Connection, role: Role, settings: Settings) -> None:
    """Let the role's sessions know Dagster's address: files of dashboards, whose links need it, hold no settings."""
    address = sql.Literal(settings.dagster_public_url or settings.dagster_url)
    name = sql.Identifier(role.name)
    connection.execute(sql.SQL("ALTER ROLE {} SET reading_hub.dagster_url = {}").format(name, address))


def _verifier(connection: Connection, role: Role) -> sql.Composable:
    """The password as the server stores it, computed here: it is never sent, so that no log can hold it."""
    if role.password is None:
        return sql.SQL("NULL")
    password = role.password.get_secret_value().encode()
    return sql.Literal(connection.pgconn.encrypt_password(password, role.name.encode(), b"scram-sha-256").decode())


def _log_nothing(connection: Connection) -> None:
    """Keep the statements of this transaction out of the server's log: they hold what passwords are checked by."""
    connection.execute(
        "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1;"
        " SET LOCAL log_min_error_statement = 'panic'"
    )


def _let_refresh(connection: Connection, owner: str, writer: str) -> None:
    """Let the writer become the owner by SET ROLE, and have none of the owner's rights until it does.

    Only an owner may refresh a continuous aggregate. With INHERIT FALSE a statement that drops or alters
    something fails for the writer unless it says SET ROLE first, which `hub.rollups.refresh` does for the
    refresh alone.
    """
    options = sql.SQL(" WITH INHERIT FALSE, SET TRUE")
    if connection.info.server_version < 160000:  # there it is an attribute of the role
        connection.execute(sql.SQL("ALTER ROLE {} NOINHERIT").format(sql.Identifier(writer)))
        options = sql.SQL("")
    connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner), sql.Identifier(writer)) + options)


def apart(settings: Settings) -> bool:
    """Whether the tables belong to another role than the one that upgrades."""
    return settings.owner != settings.as_admin().db_user


def settle(connection: Connection, settings: Settings, *, of_dagster: bool) -> None:
    """Put owners and grants of the connected database right: the hub's, or Dagster's.

    For `hub db roles`, and for a database that was restored. `connection` is a superuser's, in autocommit mode.
    """
    connection.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))
    owner = settings.as_dagster().db_user if of_dagster else settings.owner
    with connection.transaction():
        if owner != settings.as_admin().db_user:
            _own_database(connection, owner)
        _admit(connection, settings, of_dagster=of_dagster)
        _shut(connection, owner)
        if of_dagster:
            _settle_dagster(connection, settings, owner)
        else:
            level = detect(connection)
            if apart(settings):
                hand_over(connection, owner, level)
            apply_grants(connection, settings, level)
    connection.execute("SELECT pg_advisory_unlock(%s)", (UPGRADE_LOCK,))


def _own_database(connection: Connection, owner: str) -> None:
    row = connection.execute(
        "SELECT datname FROM pg_database WHERE datname = current_database() AND pg_get_userbyid(datdba) <> %s", (owner,)
    ).fetchone()
    if row:
        words = (sql.Identifier(row[0]), sql.Identifier(owner))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(*words))


def _admit(connection: Connection, settings: Settings, *, of_dagster: bool) -> None:
    """CONNECT for those who have business in the database, TEMPORARY for the writer, and neither for PUBLIC."""
    database = sql.Identifier(connection.info.dbname)
    rights: dict[str | None, str] = {settings.grafana_role: "CONNECT"}
    if not of_dagster:
        # Loads stage documents in temporary tables; whoever only reads makes none.
        rights |= {settings.proxy_db_user: "CONNECT", settings.db_user: "CONNECT, TEMPORARY"}
    connection.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))
    for role, right in rights.items():
        if role and _exists(connection, role):
            words = (sql.SQL(right), database, sql.Identifier(role))
            connection.execute(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(*words))


def _shut(connection: Connection, owner: str) -> None:
    """Take from PUBLIC what would let a reader write; only the owner may create things."""
    connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    # The owner of a database has it through pg_database_owner, unless the database came from an old server.
    if connection.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", (owner,)).fetchone() == (False,):
        connection.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(sql.Identifier(owner)))
    for (signature,) in connection.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proname = ANY(%s)"
        " AND p.pronamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace)"
        " AND has_function_privilege('public', p.oid, 'EXECUTE')",
        (list(_WRITING),),
    ).fetchall():
        connection.execute(sql.SQL("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC").format(sql.SQL(signature)))


def _settle_dagster(connection: Connection, settings: Settings, owner: str) -> None:
    """Everything in Dagster's database is Dagster's. Grafana may read it, and what Dagster makes later."""
    if owner != settings.as_admin().db_user:
        rows = connection.execute(
            "SELECT relname, relkind::text FROM pg_class c WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p', 'v', 'm', 'S') AND pg_get_userbyid(relowner) <> %s"
            " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))",
            (owner,),
        ).fetchall()
        for name, kind in rows:
            word = {"v": "VIEW", "m": "MATERIALIZED VIEW", "S": "SEQUENCE"}.get(kind, "TABLE")
            words = (sql.SQL(word), sql.Identifier("public", name), sql.Identifier(owner))
            connection.execute(sql.SQL("ALTER {} {} OWNER TO {}").format(*words))
    if settings.grafana_role and _exists(connection, settings.grafana_role):
        reader = sql.Identifier(settings.grafana_role)
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(reader))
        connection.execute(
            sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA public GRANT SELECT ON TABLES TO {}").format(
                sql.Identifier(owner), reader
            )
        )


def _exists(connection: Connection, role: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None


def refuse_without_owner(connection: Connection, settings: Settings) -> None:
    """Raise SchemaError where the role that the tables are to belong to does not exist."""
    if not _exists(connection, settings.owner):
        raise SchemaError(f"{where(settings)}: there is no role {settings.owner!r} (DB_OWNER). Run `hub db roles`.")
