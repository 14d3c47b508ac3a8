"""What the tests of backups share: a filled database, children to kill, small disks."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.backups.model import Backup
from hub.backups.run import Wanted, take
from hub.backups.store import Store
from hub.backups.verify import verify
from hub.rollups.declared import ROLLUPS
from hub.rollups.refresh import refresh_all
from hub.settings import Settings
from hub.timescale.connection import connect

ROOT = Path(__file__).resolve().parents[2]
PLAIN = Wanted(databases=True)


def fill(settings: Settings, rows: int = 3000, *, start: str = "2026-01-01", wide: int = 0) -> None:
    """Readings, one a minute, with payloads of `wide` more characters that do not compress; rollups up to date."""
    with connect(settings, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload, meta)"
            " SELECT %(prefix)s || g, %(start)s::timestamptz + g * interval '1 minute', 'kobo', 'page', g %% 7 + 0.1,"
            " jsonb_build_object('n', g, 'noise', left((SELECT string_agg(md5(random()::text || g || i), '')"
            " FROM generate_series(1, %(wide)s / 32) i), %(wide)s)), '{}'"
            " FROM generate_series(1, %(rows)s) g",
            {"prefix": f"{start}-", "start": start, "rows": rows, "wide": wide},
        )
        for rollup in ROLLUPS[:1]:
            connection.execute(
                "INSERT INTO rollup_dirty (rollup, bucket)"  # type: ignore[arg-type]
                f" SELECT DISTINCT '{rollup.name}', {rollup.bucket_sql(time_bucket=False)} FROM {rollup.source}"
            )
        refresh_all(connection, ROLLUPS)


def count(settings: Settings, table: str = "reading_analytics", database: str | None = None) -> int:
    """Rows of a table."""
    with connect(settings, database=database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


def verified(settings: Settings, wanted: Wanted = PLAIN) -> Backup:
    """A backup that was taken and verified."""
    name = take(settings, wanted).name
    assert verify(settings, name).problems == ()
    return Store(settings.backup_dir).read(name)


def only(settings: Settings) -> Settings:
    """The same settings without a database for Dagster: the server's is shared by all tests."""
    return settings.model_copy(update={"dagster_db_name": settings.db_name})


def child(settings: Settings, code: str) -> subprocess.Popen[bytes]:
    """A Python process that runs `code` with `settings` loaded from its environment."""
    program = f"from hub.settings import load_settings\nsettings = load_settings()\n{code}"
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own at `place`; skips the test where none can be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def nothing_partial(settings: Settings) -> None:
    """Whatever has a backup's name is complete, and reads back."""
    store = Store(settings.backup_dir)
    backups, bad = store.backups()
    assert bad == {}
    assert backups
    assert sorted(backup.name for backup in backups) == store.names()
    for backup in backups:
        assert verify(settings, backup.name).problems == ()
