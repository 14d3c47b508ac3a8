"""Damage that disks, people and clocks do to backups, and disks that are full or read-only."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from hub.backups import tools
from hub.backups.model import State
from hub.backups.restore import Request, prepare
from hub.backups.retention import prune
from hub.backups.routine import freshness
from hub.backups.run import Wanted, take
from hub.backups.sealed import DamagedError, seal
from hub.backups.store import MANIFEST, Store
from hub.backups.verify import contents, newest_verified, verify
from hub.errors import HubError, RefusedError
from hub.settings import Settings
from tests.support.backups import fill, nothing_partial, only, small_disk, verified

NOW = dt.datetime(2026, 3, 5, 2, 30, tzinfo=dt.UTC)


@pytest.fixture
def filled(settings: Settings) -> Settings:
    fill(settings, 500)
    return only(settings)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "loki_data"
    folder.mkdir()
    (folder / "chunk").write_bytes(random.Random(1).randbytes(300_000))
    return folder


def files_of(settings: Settings, name: str) -> list[Path]:
    return sorted(path for path in (settings.backup_dir / name).rglob("*") if path.is_file())


def test_every_flipped_bit_is_found(filled: Settings, volume: Path) -> None:
    """150 here, 1,000 in the soak; anywhere in any file, the manifest and the records among them."""
    backup = verified(filled, Wanted(True, (volume,)))
    for flip in flips(filled, backup.name, 150):
        flip()
        assert not trusted(filled, backup.name)
        flip()
    assert trusted(filled, backup.name)


def flips(settings: Settings, name: str, number: int) -> Iterator[Callable[[], None]]:
    chance = random.Random(number)
    files = [path for path in files_of(settings, name) if path.stat().st_size and path.name != "verified.json"]
    for _ in range(number):
        path = chance.choice(files)
        position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)

        def flip(path: Path = path, position: int = position, bit: int = bit) -> None:
            with path.open("r+b") as file:
                file.seek(position)
                (byte,) = file.read(1)
                file.seek(position)
                file.write(bytes([byte ^ 1 << bit]))

        yield flip


def trusted(settings: Settings, name: str) -> bool:
    """Whether reading the backup back finds nothing wrong with it."""
    try:
        return verify(settings, name).ok
    except DamagedError:
        return False


def test_every_truncated_file_is_found(filled: Settings, volume: Path) -> None:
    backup = verified(filled, Wanted(True, (volume,)))
    for path in files_of(filled, backup.name):
        data = path.read_bytes()
        if path.name == "verified.json" or not data:
            continue
        for length in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            assert not trusted(filled, backup.name)
        path.unlink()
        assert not trusted(filled, backup.name)
        path.write_bytes(data)
    assert trusted(filled, backup.name)


def test_a_damaged_backup_is_not_restored_and_not_the_latest(filled: Settings) -> None:
    good, bad = verified(filled), verified(filled)
    victim = next(path for path in files_of(filled, bad.name) if path.name.startswith("toc.dat"))
    cut = victim.read_bytes()[:-1]
    victim.unlink()  # of two backups within one second it may be the same file
    victim.write_bytes(cut)
    with pytest.raises(RefusedError, match=r"is damaged: .*toc\.dat\.\w+ has .* Nothing was touched"):
        prepare(filled, Request(bad.name))
    assert not verify(filled, bad.name).ok
    assert Store(filled.backup_dir).find().name == good.name
    assert Store(filled.backup_dir).read(bad.name).state is State.DAMAGED


def test_a_missing_manifest_and_a_strangers_file_are_told(filled: Settings) -> None:
    good, bad = verified(filled), verified(filled)
    (filled.backup_dir / good.name / "surprise").write_text("x")
    assert verify(filled, good.name).problems == ("surprise is not in the manifest",)
    (filled.backup_dir / bad.name / MANIFEST).unlink()
    with pytest.raises(DamagedError, match=r"has no manifest\.json: it cannot be trusted; use another one"):
        verify(filled, bad.name)
    assert Store(filled.backup_dir).backups()[1].keys() == {bad.name}
    prune(filled)
    assert (filled.backup_dir / bad.name).exists()  # nobody knows what it is: it is not ours to remove


def test_a_manifest_that_names_files_outside_or_another_backup_is_refused(filled: Settings) -> None:
    backup = verified(filled)
    place = filled.backup_dir / backup.name / MANIFEST
    outside = dataclasses.replace(backup.manifest.files[0], path="../../outside")
    place.write_bytes(seal(dataclasses.replace(backup.manifest, files=(outside, *backup.manifest.files[1:]))))
    assert "../../outside is no path inside of a backup" in verify(filled, backup.name).problems
    place.write_bytes(seal(dataclasses.replace(backup.manifest, name="20200101T000000Z")))
    with pytest.raises(DamagedError, match="is of backup 20200101T000000Z"):
        verify(filled, backup.name)


def test_a_full_disk_keeps_the_last_good_backup_and_says_so(filled: Settings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 40) as disk:
        settings = filled.model_copy(update={"backup_dir": disk / "backups"})
        good = verified(settings)
        volume = tmp_path / "big"
        volume.mkdir()
        (volume / "noise").write_bytes(random.randbytes(50_000_000))
        with pytest.raises(HubError, match=r"no space left on the disk.*hub backup prune"):
            take(settings, Wanted(True, (volume,)))
        nothing_partial(settings)
        assert Store(settings.backup_dir).names() == [good.name]
        (disk / "filler").write_bytes(bytes(20_000_000))
        with pytest.raises(HubError, match=r"no space: .* are needed"):
            take(settings, Wanted())


def test_a_disk_that_fills_up_under_pg_dump(filled: Settings, tmp_path: Path) -> None:
    fill(filled, 8000, start="2026-05-01", wide=10_000)
    with small_disk(tmp_path / "small", 36) as disk:
        settings = filled.model_copy(update={"backup_dir": disk / "backups"})
        with pytest.raises(HubError, match="no space left"):
            take(settings, Wanted())
        assert Store(settings.backup_dir).names() == []
        assert not list(settings.backup_dir.glob(".partial-*"))


def test_a_read_only_folder_says_what_to_do(filled: Settings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 60) as disk:
        settings = filled.model_copy(update={"backup_dir": disk / "backups"})
        verified(settings)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for act in (lambda: take(settings, Wanted()), lambda: verify(settings), lambda: prune(settings)):
            with pytest.raises(HubError, match=r"Read-only file system\).*mount it writable"):
                act()
        assert Store(settings.backup_dir).find().state is State.VERIFIED


def test_a_clock_ten_years_off_neither_removes_nor_hides_anything(filled: Settings) -> None:
    """Ten years ahead for one night, then right again, then ten years back."""
    small = Wanted(False, (filled.backup_dir.parent / "volume",))
    small.volumes[0].mkdir()
    names = []
    for days in (0, 1, 3650, 2, -3650, 3):
        moment = NOW + dt.timedelta(days=days)
        name = take(filled, small, clock=lambda moment=moment: moment).name
        verify(filled, name)
        names.append(name)
    store = Store(filled.backup_dir)
    assert [backup.name for backup in store.backups()[0]] == names
    assert store.find().name == names[-1]
    soon = NOW + dt.timedelta(days=3, hours=1)
    newest = newest_verified(store, soon)
    assert newest is not None
    assert newest.name == names[-1]
    assert freshness(filled, soon).problem is None
    late = freshness(filled, NOW + dt.timedelta(days=6)).problem
    assert late is not None
    assert "72 hours old" in late
    few = filled.model_copy(update={"backup_keep_last": 1, "backup_keep_daily": 0, "backup_keep_weekly": 0,
                                    "backup_keep_monthly": 0, "backup_keep_yearly": 0})  # fmt: skip
    planned = prune(few, dry_run=True).plan
    done = prune(few)
    assert (done.plan, done.removed) == (planned, planned.remove)
    assert names[-1] in store.names()


def test_two_backups_within_one_second_have_two_names(filled: Settings, volume: Path) -> None:
    names = [take(filled, Wanted(False, (volume,)), clock=lambda: NOW).name for _ in range(3)]
    assert names == ["20260305T023000Z", "20260305T023000Z-2", "20260305T023000Z-3"]


def test_a_tool_that_is_older_than_the_server_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"pg_dump 99 or newer is needed, because .*Install postgresql-client-99"):
        tools.find("pg_dump", at_least=99, because="the server is version 99")


def test_an_old_pg_dump_on_the_path_gives_way_to_the_wheels(filled: Settings) -> None:
    old = shutil.which("pg_dump")
    if old is None or "(PostgreSQL) 18" in subprocess.run([old, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no older pg_dump on the PATH")
    found = tools.find("pg_dump", at_least=18, because="the server is version 18")
    assert str(found.path) != old
    assert found.major == 18


def test_a_pinned_backup_outlives_all_rules(filled: Settings, volume: Path) -> None:
    few = filled.model_copy(update={"backup_keep_last": 1, "backup_keep_daily": 0, "backup_keep_weekly": 0,
                                    "backup_keep_monthly": 0, "backup_keep_yearly": 0})  # fmt: skip
    names = [verified(few, Wanted(False, (volume,))).name for _ in range(3)]
    store = Store(few.backup_dir)
    store.pin(names[0], True)
    with store.reading(names[1]):
        assert prune(few).busy == (names[1],)
    assert prune(few).removed == (names[1],)
    assert store.names() == sorted([names[0], names[2]])
    store.pin(names[0], False)
    assert prune(few).removed == (names[0],)


def test_a_record_whose_write_was_killed_is_no_strangers_file(filled: Settings) -> None:
    """Found by the soak: kill -9 between writing verified.json beside and renaming it."""
    backup = verified(filled)
    (filled.backup_dir / backup.name / ".verified.json.4711").write_text("{")
    assert verify(filled, backup.name).ok


def test_a_codec_that_the_tool_does_not_know_is_refused_before_anything_is_touched(filled: Settings) -> None:
    """A dump whose header says zstd, and a pg_restore that was built without it, as the wheel's is."""
    backup = verified(filled)
    (part,) = backup.manifest.databases
    if tools.codec(tools.find("pg_dump", at_least=18, because="the server is version 18")) == "zstd":
        pytest.skip("the tools here know zstd")
    folder = filled.backup_dir / backup.name / part.folder
    data = bytearray(gzip.decompress((folder / "toc.dat.gz").read_bytes()))
    data[11] = 3  # after the magic, the version, two sizes and the format: the algorithm
    (folder / "toc.dat.gz").unlink()
    for name, content in (("toc.dat", bytes(data)), ("toc.dat.zst", zstandard.compress(bytes(data)))):
        (folder / name).write_bytes(content)
        with pytest.raises(HubError, match=r"was built without zstd.*Nothing was touched"):
            contents(filled.backup_dir / backup.name, dataclasses.replace(part, codec="zstd"))
        (folder / name).unlink()
