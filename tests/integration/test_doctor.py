"""What `hub doctor` sees beside servers that are away: rights that are missing, a disk that is full."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from hub.doctor import Finding, examine
from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.backups import small_disk
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import reading


@pytest.fixture
def settings(settings: Settings, wire: WireServer) -> Settings:
    wire.documents.append(reading())
    return settings


def red(settings: Settings) -> dict[str, Finding]:
    """What is wrong, but for the things that these tests leave out: an index, and an instance of Dagster."""
    found = {finding.name: finding for finding in examine(settings) if not finding.ok}
    return {name: finding for name, finding in found.items() if name not in ("time index", "Dagster instance")}


def test_all_else_is_green(settings: Settings) -> None:
    assert red(settings) == {}


@pytest.mark.parametrize("command", ["find", "listIndexes", "count"])
def test_a_mongodb_user_who_lacks_a_right(settings: Settings, wire: WireServer, command: str) -> None:
    wire.faults = Faults(refuse_commands=[command])
    (finding,) = red(settings).values()
    assert finding.name == "MongoDB"
    assert "lacks a permission" in finding.detail
    assert "Grant it the role `read`" in finding.remedy


def test_a_database_role_that_may_not_write(settings: Settings) -> None:
    reader = f"{settings.db_name}_doctor"
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {reader} LOGIN PASSWORD 'x'")  # type: ignore[call-overload]
        try:
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")  # type: ignore[call-overload]
            found = red(settings.model_copy(update={"db_user": reader, "db_password": SecretStr("x")}))
        finally:
            connection.execute(f"DROP OWNED BY {reader}")  # type: ignore[call-overload]
            connection.execute(f"DROP ROLE {reader}")  # type: ignore[call-overload]
    assert reader in found["role"].detail
    assert "INSERT on reading_analytics" in found["role"].detail
    assert "GRANT" in found["role"].remedy or "hub db" in found["role"].remedy


def test_a_disk_with_little_room(settings: Settings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 40) as disk:
        finding = red(settings.model_copy(update={"hub_data_dir": disk / "hub"}))["disk"]
    assert str(disk) in finding.detail
    assert finding.remedy


def test_a_backup_folder_on_a_disk_that_is_mounted_read_only(settings: Settings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 40) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        finding = red(settings.model_copy(update={"backup_dir": disk / "backups"}))["backup folder"]
    assert "BACKUP_DIR" in finding.remedy
    assert str(disk) in finding.remedy
