"""Every night is stored once: links, damage in what is shared, removal, moves, and disks without links."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.backups.digests import Readings
from hub.backups.model import State
from hub.backups.retention import prune
from hub.backups.run import Wanted, take
from hub.backups.shared import Holdings
from hub.backups.store import Store
from hub.backups.verify import verify
from hub.errors import HubError
from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.backups import ROOT, fill, nothing_partial, only, small_disk, verified

KEEP_ONE = {
    "backup_keep_last": 1, "backup_keep_daily": 0, "backup_keep_weekly": 0, "backup_keep_monthly": 0,
    "backup_keep_yearly": 0,
}  # fmt: skip


@pytest.fixture
def filled(settings: Settings) -> Settings:
    fill(settings, 1500)
    return only(settings)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "loki_data"
    folder.mkdir()
    (folder / "chunk").write_bytes(random.Random(1).randbytes(2_000_000))
    return folder


@contextlib.contextmanager
def unlinkable(folder: Path) -> Iterator[None]:
    """A mount of its own for a backup: no link can be made from it to its neighbours."""
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode
    ):
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def hub(settings: Settings, *words: str) -> tuple[int, str]:
    """`hub …` as users start it; its exit code and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "hub", *words], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **settings.environment(), "COLUMNS": "200"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def archive_of(settings: Settings, name: str) -> Path:
    return settings.backup_dir / name / "volumes" / "loki_data.tar.zst"


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        (byte,) = file.read(1)
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def inodes(settings: Settings, name: str) -> set[int]:
    return {path.stat().st_ino for path in (settings.backup_dir / name).rglob("*") if path.is_file()}


def test_what_has_not_changed_is_one_file_with_many_names(filled: Settings, volume: Path) -> None:
    first, second = (verified(filled, Wanted(True, (volume,))) for _ in range(2))
    same = {entry.sha256 for entry in first.manifest.files} & {entry.sha256 for entry in second.manifest.files}
    linked = [
        entry for entry in second.manifest.files if (filled.backup_dir / second.name / entry.path).stat().st_nlink > 1
    ]
    assert {entry.sha256 for entry in linked} == same
    assert archive_of(filled, second.name).samefile(archive_of(filled, first.name))
    # All of the rows: nothing was written to the tables between the two.
    rows = [entry for entry in second.manifest.files if ".dat" in entry.path and "toc.dat" not in entry.path]
    assert rows
    assert set(rows) <= set(linked)
    code, said = hub(filled, "backup", "list", "--json")
    sizes = {one["name"]: one for one in json.loads(said)}
    assert code == 0
    for backup in (first, second):
        folder = filled.backup_dir / backup.name
        alone = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
        assert sizes[backup.name]["bytes_alone"] == alone < sizes[backup.name]["bytes"] / 2
    assert "stored once" in hub(filled, "backup", "list")[1]
    assert "of its own: " in hub(filled, "backup", "show", second.name)[1]


def test_an_archive_of_a_volume_with_the_same_content_is_the_same_file(settings: Settings, tmp_path: Path) -> None:
    """Names in no order, links, holes, a SQLite file that is open, folders, and another moment of reading."""
    volume = tmp_path / "grafana_data"
    for name in ("b", "a/deep", "c"):
        (volume / name).mkdir(parents=True)
    for name in ("b/2", "a/deep/1", "3"):
        (volume / name).write_bytes(name.encode() * 1000)
    os.link(volume / "b/2", volume / "a/another name")
    (volume / "symlink").symlink_to("b/2")
    with (volume / "sparse").open("wb") as file:
        file.truncate(5_000_000)
        file.write(b"data")
    with contextlib.closing(sqlite3.connect(volume / "grafana.db")) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("CREATE TABLE dashboard (title text)")
        live.execute("INSERT INTO dashboard VALUES ('Reading')")
        live.commit()
        archives = []
        for number in range(3):
            if number:
                for path in volume.rglob("*"):
                    if path.is_file():
                        path.open("rb").read()  # the time of access is none of the content
            name = verified(settings, Wanted(False, (volume,))).name
            archives.append(settings.backup_dir / name / "volumes" / "grafana_data.tar.zst")
        assert archives[0].samefile(archives[1])
        live.execute("INSERT INTO dashboard VALUES ('System')")
        live.commit()
        name = verified(settings, Wanted(False, (volume,))).name
    assert not archives[0].samefile(settings.backup_dir / name / "volumes" / "grafana_data.tar.zst")


def test_rows_that_are_the_same_are_shared_whatever_their_file_is_called(filled: Settings) -> None:
    """New tables push the numbers on by which pg_dump calls its files."""
    first = verified(filled)
    with connect(filled, autocommit=True) as connection:
        for number in range(20):
            connection.execute(f"CREATE TABLE aaa_{number} AS SELECT {number} AS n")  # type: ignore[arg-type]
    second = verified(filled)
    before, after = ({e.sha256: e.path for e in one.manifest.files} for one in (first, second))
    renamed = [sha256 for sha256 in before.keys() & after.keys() if before[sha256] != after[sha256]]
    assert len(renamed) > 5
    held = inodes(filled, first.name)
    for sha256 in renamed:
        assert (filled.backup_dir / second.name / after[sha256]).stat().st_ino in held


def test_each_backup_stays_whole_when_others_go(filled: Settings, volume: Path) -> None:
    names = [verified(filled, Wanted(True, (volume,))).name for _ in range(3)]
    store = Store(filled.backup_dir)
    alone = Holdings.of(store).alone(names[:2])
    done = prune(filled.model_copy(update=KEEP_ONE))
    assert done.removed == tuple(names[:2])
    assert done.bytes == alone < sum(entry.bytes for entry in store.read(names[2]).manifest.files)
    nothing_partial(filled)
    assert archive_of(filled, names[2]).stat().st_nlink == 1


def test_damage_to_a_shared_file_marks_all_that_hold_it_and_the_next_backup_writes_it_anew(
    filled: Settings, volume: Path
) -> None:
    wanted = Wanted(True, (volume,))
    names = [verified(filled, wanted).name for _ in range(3)]
    (volume / "other").write_bytes(b"x" * 10_000)
    apart = verified(filled, wanted).name
    flip(archive_of(filled, names[1]))
    code, said = hub(filled, "backup", "verify", names[0])
    assert code == 1
    assert f"{names[0]}: volumes/loki_data.tar.zst has been changed" in said
    assert f"{names[1]} shares a damaged file" in said
    assert f"{names[2]} shares a damaged file" in said
    store = Store(filled.backup_dir)
    assert [store.read(name).state for name in names] == [State.DAMAGED] * 3
    assert store.read(apart).state is State.VERIFIED
    (volume / "other").unlink()
    again = verified(filled, wanted)
    assert archive_of(filled, again.name).stat().st_nlink == 1
    # What else they share is good, was read to be sure, and is shared on.
    assert inodes(filled, again.name) & inodes(filled, names[2])


def test_a_file_is_read_before_it_is_shared_and_damage_that_is_found_so_is_recorded(
    filled: Settings, volume: Path
) -> None:
    wanted = Wanted(True, (volume,))
    names = [verified(filled, wanted).name for _ in range(2)]
    flip(archive_of(filled, names[0]))
    third = verified(filled, wanted)
    store = Store(filled.backup_dir)
    assert [store.read(name).state for name in names] == [State.DAMAGED] * 2
    assert archive_of(filled, third.name).stat().st_nlink == 1
    assert store.find().name == third.name


def test_verification_of_all_reads_a_shared_file_once(filled: Settings, volume: Path) -> None:
    wanted = Wanted(True, (volume,))
    for _ in range(4):
        verified(filled, wanted)
    backups, _ = Store(filled.backup_dir).backups()
    apart = Holdings.of(Store(filled.backup_dir)).bytes
    trace = filled.hub_data_dir / "read"
    filled.hub_data_dir.mkdir(exist_ok=True)
    if shutil.which("strace") is None:
        readings = Readings()
        for backup in backups:
            assert verify(filled, backup.name, readings=readings).ok
        read = sum(found[0] for found in readings.digests.values() if not isinstance(found, OSError))
        assert read <= apart
        return
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", "trace=fadvise64", "-o", trace, sys.executable, "-m", "hub", "backup", "verify", "--all"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **filled.environment()},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    read_first = [line for line in trace.read_text().splitlines() if "loki_data.tar.zst" in line]
    assert len(read_first) == 1


def test_a_copy_on_another_disk_keeps_links_or_does_without(filled: Settings, volume: Path, tmp_path: Path) -> None:
    """`rsync -aH` and `cp -a` keep them; copied without, each backup is as whole, and the next one links again."""
    wanted = Wanted(True, (volume,))
    names = [verified(filled, wanted).name for _ in range(2)]
    with small_disk(tmp_path / "disk", 64) as disk:
        for command, linked in ((["cp", "-a"], True), (["cp", "-r"], False)):
            copy = disk / command[1]
            subprocess.run([*command, filled.backup_dir, copy], check=True)
            there = filled.model_copy(update={"backup_dir": copy})
            assert archive_of(there, names[0]).samefile(archive_of(there, names[1])) is linked
            nothing_partial(there)
            third = verified(there, wanted)
            assert archive_of(there, third.name).samefile(archive_of(there, names[1]))


def test_where_nothing_can_be_linked_each_backup_holds_all_and_it_is_said_once(filled: Settings, volume: Path) -> None:
    wanted = Wanted(True, (volume,))
    first = verified(filled, wanted)
    with unlinkable(filled.backup_dir / first.name):
        code, said = hub(filled, "backup", "run", "--volumes-of", str(volume))
        assert code == 0
        assert "stored again in each, because they cannot be linked here" in said
        second = Store(filled.backup_dir).find()
        assert archive_of(filled, second.name).stat().st_nlink == 1
        with unlinkable(filled.backup_dir / second.name):
            assert "stored again" not in hub(filled, "backup", "run", "--volumes-of", str(volume))[1]
            nothing_partial(filled)


def test_a_full_disk_where_nothing_can_be_linked_keeps_the_earlier_backups(
    filled: Settings, volume: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 48) as disk:
        there = filled.model_copy(update={"backup_dir": disk / "backups"})
        first = verified(there, Wanted(True, (volume,)))
        (volume / "large").write_bytes(random.Random(2).randbytes(50_000_000))
        with unlinkable(there.backup_dir / first.name):
            with pytest.raises(HubError, match="no space left"):
                take(there, Wanted(True, (volume,)))
            assert Store(there.backup_dir).names() == [first.name]
            nothing_partial(there)


def test_a_link_into_a_backup_that_is_removed_at_that_moment(
    filled: Settings, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: retention waits for the lock. The file that was just written stays."""
    wanted = Wanted(True, (volume,))
    first = verified(filled, wanted)
    link = os.link

    def gone(source: Path, target: Path, **how: bool) -> None:
        shutil.rmtree(filled.backup_dir / first.name, ignore_errors=True)
        link(source, target, **how)

    monkeypatch.setattr(os, "link", gone)
    second = verified(filled, wanted)
    assert archive_of(filled, second.name).stat().st_nlink == 1
    nothing_partial(filled)
