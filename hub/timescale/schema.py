"""Bring a database to the schema of this version: Alembic's migrations, then the declared rollups."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from hub.rollups.apply import apply
from hub.rollups.declared import EVERY_ROLLUP, HYPERTABLES
from hub.rollups.dropped import remember
from hub.rollups.policies import apply_policies, wanted
from hub.rollups.refresh import refresh_all
from hub.settings import Settings
from hub.timescale.connection import Connection, acting_as, connect
from hub.timescale.grants import apply_grants, hand_over
from hub.timescale.level import Level, detect
from hub.timescale.roles import UPGRADE_LOCK, apart, create_extension, refuse_without_owner

_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclasses.dataclass(frozen=True)
class Upgrade:
    """What `upgrade` did: revisions before and after, rollups made or rebuilt, policies set, owners and grants changed."""

    before: str | None
    after: str
    level: Level
    rollups: tuple[str, ...]
    policies: tuple[str, ...]
    rights: int
    said: tuple[str, ...] = ()
    """What migrations did to rows, in sentences."""

    @property
    def changed(self) -> bool:
        return self.before != self.after or bool(self.rollups or self.policies or self.rights)


def newest_revision() -> str:
    """The revision that this version of the hub needs."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert head is not None
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision of the connected database, None before the first upgrade."""
    exists = connection.execute("SELECT to_regclass('public.alembic_version')").fetchone()
    if exists is None or exists[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def upgrade(settings: Settings) -> Upgrade:
    """Apply what is missing. Changes nothing when run again; safe to run twice at once.

    Done as DB_ADMIN_USER, which becomes DB_OWNER for all that it makes. The migrations are one transaction;
    each rollup is one more, and so are the grants, which a rebuilt rollup would lack. Raises HubError.
    """
    with connect(settings.as_admin(), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))
        before = current_revision(connection)
        if before is None:
            create_extension(connection)
        handed: list[str] = []
        if apart(settings):
            refuse_without_owner(connection, settings)
            with connection.transaction():
                handed = hand_over(connection, settings.owner, detect(connection))
        with acting_as(connection, settings.owner) if apart(settings) else contextlib.nullcontext():
            said, rollups, policies = _bring_up(connection, settings, before)
            level = detect(connection)
            granted = apply_grants(connection, settings, level)
            if rollups or said:
                refresh_all(connection, EVERY_ROLLUP)
        changes = len(handed) + granted
        return Upgrade(before, newest_revision(), level, tuple(rollups), tuple(policies), changes, tuple(said))


def _bring_up(connection: Connection, settings: Settings, before: str | None) -> tuple[list[str], list[str], list[str]]:
    """Migrations, rollups and policies; return what was said, the rollups that were built, the policies that changed."""
    said: list[str] = []
    if before != newest_revision():
        connection.autocommit = False
        said = _migrate(connection)
        connection.autocommit = True
    level = detect(connection)
    remember(connection, EVERY_ROLLUP, level)
    rollups = apply(connection, EVERY_ROLLUP, level)
    if not level.continuous_aggregates:
        return said, rollups, []
    policies = wanted(HYPERTABLES, EVERY_ROLLUP, settings.reading_compress_after_days, settings.reading_retention_days)
    return said, rollups, apply_policies(connection, HYPERTABLES, policies)


def _migrate(connection: Connection, revision: str = "head") -> list[str]:
    """Run Alembic, up to a revision, over this very connection: the advisory lock is its session's. Return what the migrations say."""
    config = Config()
    said = config.attributes["said"] = []
    config.set_main_option("script_location", str(_MIGRATIONS))
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connection,
        poolclass=sa.pool.StaticPool,
        pool_reset_on_return=None,
    )
    try:
        with engine.connect() as alembic_connection:
            config.attributes["connection"] = alembic_connection
            command.upgrade(config, revision)
            alembic_connection.commit()
    except sa.exc.DBAPIError as error:
        raise error.orig or error from None
    return said
