"""A backup's life: taken under one snapshot, read back, restored beside, swapped in, and undone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from hub.backups import routine, swap
from hub.backups.drill import drill
from hub.backups.facts import collect, differences
from hub.backups.model import State
from hub.backups.restore import Request, prepare, restore
from hub.backups.run import Wanted, take
from hub.backups.sealed import seal
from hub.backups.store import MANIFEST, Store
from hub.backups.verify import verify
from hub.embedded.postgres import EmbeddedPostgres
from hub.errors import HubError, RefusedError
from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.backups import ROOT, count, fill, only, verified


@pytest.fixture
def filled(settings: Settings) -> Settings:
    fill(settings)
    return only(settings)


def forget_kept(settings: Settings) -> None:
    swap.drop_kept(settings, settings.db_name)


def test_a_backup_holds_what_the_database_held(filled: Settings, tmp_path: Path) -> None:
    volume = tmp_path / "grafana_data"
    volume.mkdir()
    (volume / "file").write_text("content")
    backup = verified(filled, Wanted(True, (volume,)))
    (part,) = backup.manifest.databases
    assert part.facts.tables["public.reading_analytics"] == 3000
    assert part.facts.rollups["reading_daily"].events == 3000
    assert part.server_version.startswith("18")
    assert [one.name for one in backup.manifest.volumes] == ["grafana_data"]
    assert "roles.sql" in {entry.path for entry in backup.manifest.files}
    assert backup.state is State.VERIFIED
    assert oct((filled.backup_dir / backup.name).stat().st_mode)[-3:] == "700"


def test_dagsters_database_is_part_of_it(settings: Settings, make_database: Callable[[], str]) -> None:
    instance = settings.model_copy(update={"dagster_db_name": make_database()})
    with connect(instance, database=instance.dagster_db_name) as connection:
        connection.execute("CREATE TABLE runs AS SELECT generate_series(1, 12) AS id")
    backup = verified(instance)
    assert backup.manifest.databases[1].facts.tables == {"public.runs": 12}
    assert drill(instance).differences == ()
    missing = take(settings.model_copy(update={"dagster_db_name": "no_such_database"}), Wanted())
    assert "no_such_database" in " ".join(missing.manifest.notes)


def test_counts_belong_to_the_dumps_snapshot_while_others_write(filled: Settings) -> None:
    stop = threading.Event()

    def write(writer: int) -> None:
        with connect(filled, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute(
                    "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type)"
                    " VALUES (%s, '2026-02-01'::timestamptz + %s * interval '1 hour', 'kobo', 'page')",
                    (f"w{writer}-{number}", number % 500),
                )
                if number % 3 == 0:
                    connection.execute(
                        "DELETE FROM reading_analytics WHERE mongo_id = %s", (f"w{writer}-{number - 1}",)
                    )

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    try:
        names = [verified(filled).name for _ in range(2)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    for name in names:
        assert drill(filled, name).differences == ()


def test_a_restore_replaces_the_database_and_undo_puts_it_back(filled: Settings) -> None:
    verified(filled)
    with connect(filled) as connection:
        connection.execute("DELETE FROM reading_analytics WHERE event_type = 'page'")
        connection.execute("CREATE TABLE later (a int)")
    busy = psycopg.connect(
        host=filled.db_host, port=filled.db_port, user=filled.db_user, dbname=filled.db_name,
        password=filled.db_password.get_secret_value(),
    )  # fmt: skip
    try:
        done = restore(filled, Request())
        assert count(filled) == 3000
        with connect(filled) as connection:
            assert connection.execute("SELECT to_regclass('later')").fetchone() == (None,)
        assert done.swap is not None
        assert done.swap.kept is not None
        with pytest.raises(HubError):  # the kept one takes no connections: nobody goes on writing to it
            count(filled, database=done.swap.kept)
        swap.undo(filled, filled.db_name)
        assert count(filled) == 0
        assert len(swap.kept_databases(filled, filled.db_name)) == 1
    finally:
        busy.close()
        forget_kept(filled)
    assert swap.kept_databases(filled, filled.db_name) == []


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(filled: Settings) -> None:
    backup = verified(filled)
    planned = prepare(filled, Request())
    assert planned.backup.name == backup.name
    assert planned.replaces
    assert "is kept under another name" in planned.steps[-1]
    with connect(filled, database="postgres") as connection:
        names = [row[0] for row in connection.execute("SELECT datname FROM pg_database")]
    assert not [name for name in names if name.startswith(f"{filled.db_name}_")]


def test_a_backup_can_be_restored_beside_under_a_name(filled: Settings, make_database: Callable[[], str]) -> None:
    verified(filled)
    taken = make_database()
    with pytest.raises(RefusedError, match="exists"):
        prepare(filled, Request(into=taken))
    with connect(filled, database="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {taken}")  # type: ignore[arg-type]
    restore(filled, Request(into=taken))
    assert count(filled, database=taken) == 3000


def test_single_tables_come_back_and_their_rollups_are_marked(filled: Settings) -> None:
    verified(filled)
    with connect(filled) as connection:
        connection.execute("DELETE FROM reading_analytics WHERE mongo_id LIKE '%7'")
        connection.execute("INSERT INTO reading_days (day, read, loaded, rejected) VALUES ('2026-05-05', 1, 1, 0)")
        connection.execute("DELETE FROM rollup_dirty")
    with pytest.raises(RefusedError, match="no table 'nonsense'"):
        prepare(filled, Request(tables=("nonsense",)))
    done = restore(filled, Request(tables=("reading_analytics",)))
    assert [(copy.before, copy.after) for copy in done.tables] == [(2700, 3000)]
    assert count(filled) == 3000
    assert count(filled, "reading_days") == 1
    assert count(filled, "rollup_dirty") > 0


def test_a_drill_compares_and_leaves_nothing_behind(filled: Settings) -> None:
    backup = verified(filled)
    record = drill(filled)
    assert record.differences == ()
    assert record.rows == backup.manifest.rows
    found = Store(filled.backup_dir).read(backup.name)
    assert found.drill == record
    with connect(filled, database="postgres") as connection:
        names = [row[0] for row in connection.execute("SELECT datname FROM pg_database")]
    assert not [name for name in names if name.startswith(f"{filled.db_name}_")]


def test_objects_that_a_restore_words_otherwise_are_the_same_and_changed_ones_are_not(filled: Settings) -> None:
    """PostgreSQL prints views and conditions from its parse tree, and not in the words that it would print next time."""
    with connect(filled, autocommit=True) as connection:
        connection.execute("CREATE TABLE shelf (n integer, kind varchar(9) DEFAULT 'a' CHECK (kind IN ('a', 'b')))")
        connection.execute("CREATE INDEX few ON shelf (n) WHERE kind IN ('a', 'b')")
        connection.execute(
            "CREATE VIEW kinds AS SELECT 'x' AS kind UNION ALL SELECT 'y' UNION ALL SELECT kind FROM shelf"
        )
        before = collect(connection)
        verified(filled)
        assert drill(filled).differences == ()
        connection.execute("ALTER TABLE shelf DROP CONSTRAINT shelf_kind_check, ADD CHECK (kind IN ('a', 'c'))")
        connection.execute(
            "CREATE OR REPLACE VIEW kinds AS SELECT 'x' AS kind UNION ALL SELECT 'z' UNION ALL SELECT kind FROM shelf"
        )
        connection.execute("ALTER TABLE shelf ALTER kind SET DEFAULT 'b'")
        changed = differences(before, collect(connection))
    assert [text.partition(":")[0] for text in changed] == [
        "definition of column public.shelf.kind",
        "definition of constraint public.shelf.shelf_kind_check",
        "definition of view public.kinds",
    ]
    older = {name: value.removeprefix("~") for name, value in before.objects.items()}
    assert differences(dataclasses.replace(before, objects=older), before) == []


def test_a_forged_manifest_is_found_by_the_drill_and_by_the_books(filled: Settings) -> None:
    """Forged well: with a seal that fits, so that only the dump and the books know better."""
    backup = routine.run_backup(filled, Wanted())
    assert routine.run_verify(filled, backup.name)[1].ok
    (part,) = backup.manifest.databases
    facts = dataclasses.replace(part.facts, tables=part.facts.tables | {"public.reading_analytics": 2999})
    forged = dataclasses.replace(backup.manifest, databases=(dataclasses.replace(part, facts=facts),))
    (filled.backup_dir / backup.name / MANIFEST).write_bytes(seal(forged))
    assert Store(filled.backup_dir).read(backup.name).state is State.UNVERIFIED
    assert verify(filled, backup.name).ok
    assert drill(filled, backup.name).differences == (
        f"{filled.db_name}: rows of public.reading_analytics: 2,999 in the manifest, 3,000 restored",
    )
    _, result = routine.run_verify(filled, backup.name)
    assert "not the one that was written" in result.problems[0]
    assert Store(filled.backup_dir).read(backup.name).state is State.DAMAGED


def test_the_books_hold_every_run_with_its_digest(filled: Settings) -> None:
    backup = routine.run_backup(filled, Wanted())
    routine.run_verify(filled)
    routine.run_drill(filled)
    routine.run_prune(filled)
    with connect(filled) as connection:
        rows = connection.execute(
            "SELECT kind, state, backup, rows, manifest_sha256 FROM backup_runs ORDER BY id"
        ).fetchall()
    data = (filled.backup_dir / backup.name / MANIFEST).read_bytes()
    assert [row[:2] for row in rows] == [(kind, "done") for kind in ("backup", "verify", "drill", "prune")]
    assert rows[0][2:] == (backup.name, backup.manifest.rows, hashlib.sha256(data).hexdigest())


@pytest.mark.skipif(
    "TEST_DATABASE_URL" in os.environ, reason="a backup of that server needs its version of TimescaleDB"
)
def test_from_a_backup_folder_alone_to_a_working_hub(filled: Settings, tmp_path: Path) -> None:
    """The drill for the day on which the machine is gone: an empty one, the folder, one command."""
    with connect(filled, database="postgres", autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS grafana_reader_of_test")
        connection.execute("CREATE ROLE grafana_reader_of_test LOGIN PASSWORD 'from the old machine'")
        connection.execute("ALTER ROLE grafana_reader_of_test CONNECTION LIMIT 7")
    with connect(filled) as connection:
        connection.execute("GRANT SELECT ON reading_analytics TO grafana_reader_of_test")
    try:
        name = verified(filled).name
    finally:
        with connect(filled) as connection:
            connection.execute("DROP OWNED BY grafana_reader_of_test")
            connection.execute("DROP ROLE grafana_reader_of_test")
    home = tmp_path / "new machine"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT),
        "BACKUP_DIR": str(filled.backup_dir), "HUB_DATA_DIR": str(home / ".hub"), "DAGSTER_DB_NAME": "dagster",
    }  # fmt: skip
    for command in (["restore", "--yes", "--database", filled.db_name], ["backup", "list", "--json", "--verified"]):
        done = subprocess.run(
            [sys.executable, "-m", "hub", *command], cwd=home, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    listed = json.loads(done.stdout)
    assert [(one["name"], one["verified"]) for one in listed] == [(name, True)]
    server = EmbeddedPostgres(home / ".hub" / "postgres")
    server.start()
    try:
        with psycopg.connect(
            host="127.0.0.1", port=server.port, user="grafana_reader_of_test", password="from the old machine",
            dbname=filled.db_name,
        ) as connection:  # fmt: skip
            assert connection.execute("SELECT count(*) FROM reading_analytics").fetchone() == (3000,)
    finally:
        server.stop()


def test_volumes_come_back_and_what_was_there_is_kept(filled: Settings, tmp_path: Path) -> None:
    volume = tmp_path / "grafana_data"
    volume.mkdir()
    (volume / "dashboard").write_text("as it was")
    take(filled, Wanted(False, (volume,)))
    verify(filled)
    (volume / "dashboard").write_text("changed")
    request = Request(volumes={"grafana_data": volume}, with_database=False)
    (back,) = restore(filled, request).volumes
    assert (volume / "dashboard").read_text() == "as it was"
    assert back.kept is not None
    assert (back.kept / "dashboard").read_text() == "changed"
    with pytest.raises(RefusedError, match="no volume 'loki'"):
        prepare(filled, Request(volumes={"loki": volume}, with_database=False))
