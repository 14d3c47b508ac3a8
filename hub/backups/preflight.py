"""Before anything is touched: can this server, with these tools, take this backup?"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import psycopg

from hub.backups.model import Backup, DatabasePart
from hub.backups.verify import contents
from hub.errors import RefusedError
from hub.settings import Settings
from hub.timescale.connection import MAINTENANCE, Connection, connect, login, where

# Indexes are built anew and need room to sort.
_HEADROOM = 1.2
_ROLE = re.compile(r'^CREATE ROLE (?P<name>"(?:[^"]|"")+"|\S+);$')


def check(settings: Settings, backup: Backup, part: DatabasePart, folder: Path) -> list[str]:
    """Everything that a restore of `part` needs; return remarks. Raises RefusedError naming what is missing."""
    contents(folder, part)  # the tool is there, new enough, and knows the codec
    remarks, missing = [], []
    with connect(settings, database=MAINTENANCE, autocommit=True) as connection:
        missing += _server(connection, part)
        missing += _extensions(connection, part)
        missing += _rights(connection, settings, backup, folder)
        free = free_bytes(connection)
        need = int(part.bytes_live * _HEADROOM)
        if free is None:
            remarks.append(
                f"the server's free space cannot be seen from here; about {need / 2**20:,.0f} MiB are needed"
            )
        elif free < need:
            missing.append(
                f"its disk has {free / 2**20:,.0f} MiB free and {need / 2**20:,.0f} MiB are needed: free some"
                " (old databases that an earlier restore kept go with `hub restore --drop-kept`)"
            )
    if missing:
        raise RefusedError(
            f"backup {backup.name} cannot be restored to {where(settings)}: {'; '.join(missing)}. Nothing was touched."
        )
    return remarks


def _server(connection: Connection, part: DatabasePart) -> list[str]:
    have, need = connection.info.server_version // 10000, int(part.server_version.split(".")[0])
    if have < need:
        return [f"the server is PostgreSQL {have} and the backup is of {need}: start a server of {need} or newer"]
    return []


def _extensions(connection: Connection, part: DatabasePart) -> list[str]:
    missing = []
    for name, version in part.extensions.items():
        offered = [
            row[0]
            for row in connection.execute(
                "SELECT version FROM pg_available_extension_versions WHERE name = %s", (name,)
            )
        ]
        if not offered:
            missing.append(f"the extension {name} is not installed on the server: install {name} {version}")
        elif name == "timescaledb" and version not in offered:
            major = part.server_version.split(".")[0]
            missing.append(
                f"TimescaleDB {version} is needed exactly, the server offers {', '.join(sorted(offered))}: use the"
                f" image timescale/timescaledb:{version}-pg{major}, restore, and update the extension afterwards"
            )
    return missing


def _rights(connection: Connection, settings: Settings, backup: Backup, folder: Path) -> list[str]:
    row = connection.execute(
        "SELECT rolsuper, rolcreatedb OR rolsuper, rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    superuser, may_create, may_create_roles = row
    missing, who = [], f"{login(settings)} {settings.db_user}"
    if not may_create:
        missing.append(f"{who} may not create databases: set DB_ADMIN_USER to a superuser")
    new = missing_roles(connection, backup, folder)
    if new and not may_create_roles:
        missing.append(
            f"the roles {', '.join(new)} do not exist and {who} may not create them: set DB_ADMIN_USER to a superuser"
        )
    if not superuser and any(part.options.owner != settings.db_user for part in backup.manifest.databases):
        missing.append(f"{who} is neither a superuser nor the owner in the backup: set DB_ADMIN_USER to a superuser")
    return missing


def missing_roles(connection: Connection, backup: Backup, folder: Path) -> list[str]:
    """Roles of the backup that the server does not have."""
    have = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    return [name for name in _role_statements(backup, folder) if name not in have]


def create_roles(connection: Connection, backup: Backup, folder: Path) -> list[str]:
    """Create the roles that are missing, as they were; roles that exist are left as they are."""
    statements = _role_statements(backup, folder)
    made = missing_roles(connection, backup, folder)
    with connection.transaction():
        for name in made:
            connection.execute(statements[name][0])
        for name in made:
            for statement in statements[name][1:]:
                connection.execute(statement)
    return made


def _role_statements(backup: Backup, folder: Path) -> dict[str, list[str]]:
    """By role, the statements of pg_dumpall about it: one a line, CREATE ROLE first, memberships last."""
    if backup.manifest.roles is None:
        return {}
    lines = (folder / backup.manifest.roles).read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    quoted: dict[str, str] = {}
    for line in lines:
        if match := _ROLE.match(line):
            name = match["name"]
            quoted[name] = name[1:-1].replace('""', '"') if name.startswith('"') else name
            found[quoted[name]] = [line]
    for line in lines:
        for text, name in quoted.items():
            if line.startswith((f"ALTER ROLE {text} ", f"COMMENT ON ROLE {text} ")):
                found[name].append(line)
            elif line.startswith("GRANT ") and f" TO {text} " in line.replace(";", " "):
                # Who granted it may not exist here, and does not matter.
                found[name].append(re.sub(r" GRANTED BY .*;$", ";", line))
    return found


def free_bytes(connection: Connection) -> int | None:
    """Free bytes on the disk of the server's data: seen from here, or asked of `df` there; None if neither can be."""
    try:
        row = connection.execute(
            "SELECT current_setting('data_directory'), rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    assert row is not None
    data = Path(row[0])
    pid = data / "postmaster.pid"
    try:
        if connection.info.host in ("127.0.0.1", "localhost", "::1") and pid.read_text().splitlines()[3] == str(
            connection.info.port
        ):
            return shutil.disk_usage(data).free
    except (OSError, IndexError):
        pass
    return _df(connection, str(data)) if row[1] else None


def _df(connection: Connection, data: str) -> int | None:
    program = f"df -Pk -- {shlex.quote(data)}".replace("'", "''")
    try:
        with connection.transaction():
            connection.execute("CREATE TEMPORARY TABLE _df (line text) ON COMMIT DROP")
            connection.execute(f"COPY _df FROM PROGRAM '{program}'")
            lines = connection.execute("SELECT line FROM _df").fetchall()
        return int(lines[-1][0].split()[3]) * 1024
    except (psycopg.Error, IndexError, ValueError):
        return None
