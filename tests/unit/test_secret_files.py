"""Secrets as files: whole or not at all, for nobody but the owner of their folder and the services that name them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hub.secret_files import STAMP, SecretFilesError, changed, main, read, wanted, write

VALUES = {"DB_PASSWORD": "one", "MONGO_URI": ""}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "of" / "secrets"


def test_what_is_written_is_read_and_an_empty_one_does_not_count(folder: Path) -> None:
    assert write(folder, VALUES) == ["DB_PASSWORD", "MONGO_URI"]
    assert read(str(folder)) == {"DB_PASSWORD": "one"}
    assert (folder / "MONGO_URI").read_text() == ""
    assert read(str(folder / "nowhere")) == {}


def test_only_the_owner_may_enter_and_every_service_may_read_its_own(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    write(folder, VALUES)
    assert mode(folder) == 0o700
    assert mode(folder / "DB_PASSWORD") == 0o444


def test_the_stamp_changes_with_a_secret_and_says_nothing_of_it(folder: Path) -> None:
    write(folder, VALUES)
    first = (folder / STAMP).read_text()
    assert write(folder, VALUES) == []
    assert (folder / STAMP).read_text() == first
    assert write(folder, {**VALUES, "DB_PASSWORD": "two"}) == ["DB_PASSWORD"]
    assert (folder / STAMP).read_text() != first
    write(folder, VALUES)
    assert (folder / STAMP).read_text() != first  # no digest, which a short password could be guessed from


def test_what_changed_can_be_asked_before(folder: Path) -> None:
    assert changed(folder, VALUES) == sorted(VALUES)
    assert not folder.exists()
    write(folder, VALUES)
    assert changed(folder, VALUES) == []
    assert changed(folder, {"DB_PASSWORD": "one", "NEW": "x"}) == ["MONGO_URI", "NEW"]


def test_one_that_is_gone_from_the_model_goes(folder: Path) -> None:
    write(folder, VALUES)
    assert write(folder, {"DB_PASSWORD": "one"}) == ["MONGO_URI"]
    assert sorted(os.listdir(folder)) == [STAMP, "DB_PASSWORD"]


def test_a_running_container_keeps_the_file_that_it_has(folder: Path) -> None:
    write(folder, VALUES)
    with (folder / "DB_PASSWORD").open() as mounted:
        write(folder, {**VALUES, "DB_PASSWORD": "another"})
        assert mounted.read() == "one"


def test_a_symlink_leads_nobody_elsewhere(tmp_path: Path) -> None:
    """The GitOps agent is root, and a commit could hold either of them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    with pytest.raises(SecretFilesError, match="symlink"):
        write(tmp_path / "link", VALUES)
    target = tmp_path / "target"
    target.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("DB_PASSWORD", "DB_PASSWORD.new", STAMP):
        (folder / name).symlink_to(target)
    write(folder, VALUES)
    assert target.read_text() == "mine"
    assert not (folder / "DB_PASSWORD").is_symlink()
    assert not os.listdir(elsewhere)


def test_values_are_those_that_compose_makes_of_the_file(folder: Path) -> None:
    assert wanted({"x-secrets": {"A": "a$$b", "B": None}}) == {"A": "a$b", "B": ""}
    assert wanted({}) == {}


@pytest.mark.parametrize("given", [{"../etc/passwd": "x"}, {".stamp": "x"}, {"a": "x"}, {"A": ["x"]}, ["A"]])
def test_a_model_that_would_write_elsewhere_is_refused(given: object) -> None:
    with pytest.raises(SecretFilesError):
        wanted({"x-secrets": given})


def test_the_command_repeats_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"x-secrets": {"DB_PASSWORD": "hunter2"}})))
    assert main([str(folder)]) == 0
    assert capfd.readouterr().out == "Secrets written: DB_PASSWORD\n"
    assert read(str(folder)) == {"DB_PASSWORD": "hunter2"}
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"x-secrets": {"DB_PASSWORD": "hunter2"'))
    assert main([str(folder)]) == 2
    assert "hunter2" not in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_writes_them_for_the_owner_of_the_folder(folder: Path) -> None:
    """In the container of `make up`, whose user is root, in a folder of whoever typed it."""
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 4321, 4321)
    write(folder, VALUES)
    assert {path.stat().st_uid for path in folder.iterdir()} == {4321}


def test_the_agents_program_carries_it(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    agent = tmp_path / "gitops.pyz"
    subprocess.run([root / "deploy" / "gitops" / "build-zipapp", agent], check=True)
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(agent)!r}); import hub.secret_files as s; print(s.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert str(agent) in done.stdout
