"""Run the SQL files of a migration."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from hub.timescale.level import detect

_FOLDER = Path(__file__).parent / "versions"


def run(name: str) -> None:
    """Run every statement of `versions/NAME` on the migration's connection."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute((_FOLDER / name).read_text(encoding="utf-8"))


def say(text: str) -> None:
    """Tell the person who upgrades what was done to rows."""
    config = op.get_context().config
    assert config is not None
    config.attributes["said"].append(text)


def run_for_level(stem: str) -> None:
    """Run `STEM.hypertable.sql` where there are hypertables, `STEM.plain.sql` elsewhere."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    run(f"{stem}.{'hypertable' if detect(driver).hypertables else 'plain'}.sql")
