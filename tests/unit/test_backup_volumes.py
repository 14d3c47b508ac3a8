"""Volumes: archived while in use, put back as they were."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest
import zstandard

from hub.backups.model import VolumePart
from hub.backups.volumes import archive, count, unpack
from hub.errors import HubError
from tests.support.backups import ROOT

ODD_NAMES = [
    "with space",
    "new\nline",
    "ünïcödé",
    "-dash",
    "a" * 200,
    "quote'\"",
    b"not-utf8-\xff".decode(errors="surrogateescape"),
]


def round_trip(source: Path, tmp_path: Path) -> tuple[VolumePart, Path]:
    packed, target = tmp_path / "packed.tar.zst", tmp_path / "back"
    part, entry = archive(source, packed, name="it", file="volumes/it.tar.zst")
    assert entry.bytes == packed.stat().st_size
    assert count(packed) == part.entries
    target.mkdir()
    assert unpack(packed, target) == part.entries
    return part, target


def look(path: Path) -> dict[str, object]:
    found = path.lstat()
    content: object = None
    if stat.S_ISREG(found.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    owner = (found.st_uid, found.st_gid)
    return {"mode": found.st_mode, "owner": owner, "time": found.st_mtime_ns, "content": content}


def tree(folder: Path) -> dict[str, dict[str, object]]:
    return {str(path.relative_to(folder)): look(path) for path in sorted([folder, *folder.rglob("*")])}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def test_odd_files_symlinks_owners_modes_and_times_come_back(source: Path, tmp_path: Path) -> None:
    for number, name in enumerate(ODD_NAMES):
        path = source / name
        path.write_bytes(os.urandom(number * 1000))
        os.utime(path, ns=(0, 1_500_000_000_123_456_000 + number))
    (source / "empty").mkdir()
    deep = source
    for level in range(30):
        deep = deep / f"level{level}"
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (source / "to file").symlink_to("with space")
    (source / "dangling").symlink_to("/nowhere/at all")
    (source / "to folder").symlink_to("empty")
    os.link(source / "with space", source / "second name")
    os.mkfifo(source / "pipe")
    (source / "setuid").write_text("x")
    (source / "setuid").chmod(0o6755)
    (source / "empty").chmod(0o1777)
    (source / "closed").mkdir(mode=0o500)
    if os.geteuid() == 0:
        os.chown(source / "-dash", 472, 10001)
        os.chown(source, 472, 0)
    before = tree(source)
    part, back = round_trip(source, tmp_path)
    assert tree(back) == before
    assert (back / "second name").stat().st_ino == (back / "with space").stat().st_ino
    assert part.oddities == ()


def test_a_sparse_file_of_a_terabyte_takes_no_time_and_stays_sparse(source: Path, tmp_path: Path) -> None:
    with (source / "sparse").open("wb") as file:
        for offset, data in ((0, b"begin"), (300 * 2**30, b"middle"), (2**40 - 3, b"end")):
            file.seek(offset)
            file.write(data)
        file.truncate(2**40 + 5)
    with (source / "all hole").open("wb") as file:
        file.truncate(2**33)
    if (source / "sparse").stat().st_blocks * 512 > 2**30:
        pytest.skip("no sparse files here")
    part, back = round_trip(source, tmp_path)
    assert (tmp_path / "packed.tar.zst").stat().st_size < 100_000
    assert part.bytes_live < 1_000_000
    restored = back / "sparse"
    assert restored.stat().st_size == 2**40 + 5
    assert restored.stat().st_blocks * 512 < 10 * 2**20
    with restored.open("rb") as file:
        for offset, data in ((0, b"begin"), (300 * 2**30, b"middle"), (2**40 - 3, b"end" + bytes(5))):
            file.seek(offset)
            assert file.read(len(data)) == data
    assert ((back / "all hole").stat().st_size, (back / "all hole").stat().st_blocks) == (2**33, 0)


@pytest.mark.skipif(shutil.which("zstd") is None or shutil.which("tar") is None, reason="needs tar and zstd")
def test_gnu_tar_reads_the_archive(source: Path, tmp_path: Path) -> None:
    (source / "file").write_text("content")
    with (source / "sparse").open("wb") as file:
        file.seek(2**24)
        file.write(b"end")
    round_trip(source, tmp_path)
    target = tmp_path / "by tar"
    target.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", tmp_path / "packed.tar.zst", "-C", target], check=True)
    assert tree(target) == tree(source)


def test_a_socket_is_reported_and_left_out(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        part, back = round_trip(source, tmp_path)
    assert [(oddity.path, oddity.harmless) for oddity in part.oddities] == [("sock", True)]
    assert not (back / "sock").exists()


def test_files_that_vanish_grow_and_shrink_are_reported_and_not_fatal(source: Path, tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(150)]
    for name in names:
        (source / name).write_bytes(b"x" * 40_000)
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            path = source / names[number % len(names)]
            match number % 3:
                case 0:
                    path.unlink(missing_ok=True)
                case 1:
                    path.write_bytes(b"y" * 10)
                case _:
                    with path.open("ab") as file:
                        file.write(b"z" * 50_000)
            number += 7

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for attempt in range(5):
            place = tmp_path / str(attempt)
            place.mkdir()
            part, back = round_trip(source, place)
            assert all(oddity.harmless for oddity in part.oddities)
            assert {path.name for path in back.iterdir()} <= set(names)
    finally:
        stop.set()
        churning.join()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_cannot_be_read_is_named_and_the_others_are_kept(what: str) -> None:
    """As another user, because root can read everything."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        source = Path(place) / "volume"
        source.mkdir()
        source.chmod(0o755)
        (source / "good").write_text("good")
        if what == "file":
            (source / "secret").write_text("secret")
        else:
            (source / "secret").mkdir()
        (source / "secret").chmod(0o000)
        code = (
            "from pathlib import Path; from hub.backups.volumes import archive;"
            f"part, _ = archive(Path({str(source)!r}), Path({place!r}) / 'packed', name='it', file='v');"
            "print([(o.path, o.what, o.harmless) for o in part.oddities])"
        )
        command = [sys.executable, "-c", code]
        if os.geteuid() == 0:
            as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            if subprocess.run([*as_other, sys.executable, "-c", "import hub"], cwd=ROOT).returncode:
                pytest.skip("another user cannot reach this Python")
            command = [*as_other, *command]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
        (source / "secret").chmod(0o700)
    assert done.stdout.strip() == (
        "[('secret', 'cannot be read (Permission denied); give this user the right to', False)]"
    ), done.stderr


def test_a_sqlite_file_is_copied_whole_while_it_is_written_to(source: Path, tmp_path: Path) -> None:
    """Copying its bytes damages it in most of the tries."""
    path = source / "grafana.db"
    with sqlite3.connect(path) as made:
        made.execute("PRAGMA journal_mode = wal")
        made.execute("CREATE TABLE t (a INTEGER, b INTEGER, noise BLOB)")
    stop, written = threading.Event(), threading.Event()

    def write() -> None:
        with sqlite3.connect(path, timeout=30) as live:
            while not stop.is_set():
                live.executemany("INSERT INTO t VALUES (?, ?, randomblob(2000))", [(1, -1)] * 50)
                live.commit()
                written.set()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert written.wait(120)
        for attempt in range(5):
            place = tmp_path / str(attempt)
            place.mkdir()
            part, back = round_trip(source, place)
            assert part.sqlite == ("grafana.db",)
            assert [entry.name for entry in back.iterdir()] == ["grafana.db"]
            with sqlite3.connect(back / "grafana.db") as copied:
                assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                rows, total = copied.execute("SELECT count(*), sum(a + b) FROM t").fetchone()
                assert (rows % 50, total) == (0, 0)
    finally:
        stop.set()
        writing.join()


def test_an_entry_that_would_land_outside_is_refused(tmp_path: Path) -> None:
    for name, link in (("../outside", None), ("link/inside", "/tmp"), ("/absolute", None)):
        packed, target = tmp_path / "evil.tar.zst", tmp_path / "target"
        with (
            packed.open("wb") as file,
            zstandard.ZstdCompressor().stream_writer(file) as squeeze,
            tarfile.open(fileobj=squeeze, mode="w|") as tar,
        ):
            if link:
                symlink = tarfile.TarInfo("link")
                symlink.type, symlink.linkname = tarfile.SYMTYPE, link
                tar.addfile(symlink)
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        with pytest.raises(HubError, match="outside"):
            unpack(packed, target)
    assert not (tmp_path / "outside").exists()
    assert not Path("/absolute").exists()
