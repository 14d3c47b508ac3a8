"""Are the database's roles as they should be? For `hub doctor`; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from hub.settings import Settings
from hub.timescale.connection import Connection
from hub.timescale.grants import access, differences
from hub.timescale.level import detect
from hub.timescale.roles import apart, declared

ROLES, UPGRADE = "run `hub db roles`", "run `hub db upgrade`"


def complaints(connection: Connection, settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do about it. Any role may ask. Raises SettingsError where the settings make no sense."""
    admin = settings.as_admin().db_user
    names = [role.name for role in declared(settings)]
    have: dict[str, bool] = dict(
        connection.execute(
            "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = ANY(%s)", ([*names, settings.db_user],)
        ).fetchall()
    )
    if missing := sorted(set(names) - have.keys()):
        yield f"there is no role {', '.join(missing)}", ROLES
        return
    for name in sorted(have):
        if have[name] and name != admin:
            yield f"{name} is a superuser", ROLES
    if settings.db_user not in (admin, settings.owner):
        right = "SET" if connection.info.server_version >= 160000 else "MEMBER"
        row = connection.execute("SELECT pg_has_role(%s, %s, %s)", (settings.db_user, settings.owner, right)).fetchone()
        if row == (False,):
            yield f"{settings.db_user} cannot refresh rollups: it may not become {settings.owner}", ROLES
    yield from _open_doors(connection)
    level = detect(connection)
    if apart(settings):
        strange = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)"
            " AND pg_get_userbyid(relowner) <> %s ORDER BY 1",
            (list(access(level)), settings.owner),
        ).fetchall()
        if strange:
            yield f"{', '.join(name for (name,) in strange)} not owned by {settings.owner}", UPGRADE
    lacking, superfluous = differences(connection, settings, level)
    for grants, words in ((lacking, "{role} lacks {right}"), (superfluous, "{role} has {right}, which it must not")):
        for relation, column, role, privilege in sorted(grants):
            right = f"{privilege} on {relation}{f'.{column}' if column else ''}"
            yield words.format(role=role or "PUBLIC", right=right), UPGRADE


def _open_doors(connection: Connection) -> Iterator[tuple[str, str]]:
    row = connection.execute(
        "SELECT has_database_privilege('public', current_database(), 'CONNECT'),"
        " has_database_privilege('public', current_database(), 'TEMPORARY'),"
        " has_schema_privilege('public', 'public', 'CREATE')"
    ).fetchone()
    assert row is not None
    for open_, what in zip(row, ("connect", "make temporary tables", "make tables"), strict=True):
        if open_:
            yield f"every role of the server may {what} in this database", ROLES
