"""What the GitOps agent finds and will not act on: nothing is touched, nothing is lost, and it says so."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from tests.support.gitops import World, deployed_world, fresh_world, refused, untouched


@pytest.fixture
def world() -> World:
    return deployed_world()


def test_offline_is_postponed_and_caught_up_later(world: World) -> None:
    world.release(2)
    world.remote.rename(world.root / "away")
    refused(world, "fetch", 75)
    untouched(world)
    (world.root / "away").rename(world.remote)
    world.deploy()
    world.assert_whole(2)
    assert world.status()["in_step"]


def test_a_forced_push_is_refused(world: World) -> None:
    before = world.head
    world.git("commit", "--quiet", "--amend", "-m", "rewritten")
    world.git("push", "--quiet", "--force", "origin", "main")
    assert "was rewritten" in refused(world, "history")
    assert world.head == before
    untouched(world)


def test_a_local_commit_in_the_clone_is_refused(world: World) -> None:
    world.git("commit", "--quiet", "--allow-empty", "-m", "local", cwd=world.clone)
    local = world.head
    world.release(2)
    refused(world, "history")
    assert world.head == local
    assert not world.calls("compose up")
    assert not world.assert_status_is_true()["in_step"]


def test_a_dirty_tree_is_refused_and_kept(world: World) -> None:
    world.release(2)
    (world.clone / "README.md").write_text("my own\n")
    assert "README.md" in refused(world, "dirty")
    assert (world.clone / "README.md").read_text() == "my own\n"
    assert not world.calls("compose up")
    assert world.assert_status_is_true()["commit"]["dirty"] == ["README.md"]


def test_a_file_hidden_from_git_counts_as_dirty(world: World) -> None:
    world.git("update-index", "--assume-unchanged", "compose/grafana/grafana.ini", cwd=world.clone)
    mine = world.clone / "compose/grafana/grafana.ini"
    mine.write_text("[mine]\n")
    world.release(2, {"compose/grafana/grafana.ini": "[theirs]\n"})
    refused(world, "dirty")
    assert mine.read_text() == "[mine]\n"


def test_a_half_done_merge_is_refused(world: World) -> None:
    (world.clone / ".git/MERGE_HEAD").write_text(world.head + "\n")
    world.release(2)
    refused(world, "dirty")
    assert not world.calls("compose up")


@pytest.mark.parametrize("name", ["notes.txt", "local/notes.txt", ".env"])
def test_a_users_file_in_the_way_is_never_overwritten(world: World, name: str) -> None:
    """Untracked, in an ignored folder, ignored by name: git itself overwrites the last two."""
    mine = world.clone / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine\n")
    world.write({name: "theirs\n"})
    world.git("add", "--force", name)
    world.release(2)
    assert name in refused(world, "in_the_way")
    assert mine.read_text() == "mine\n"
    assert not world.calls("compose build")
    untouched(world)


def test_a_users_folder_where_a_file_shall_be_is_kept(world: World) -> None:
    (world.clone / "local").mkdir()
    (world.clone / "local/diary").write_text("mine\n")
    world.write({"local": "a file now\n"})
    world.git("add", "--force", "local")
    world.release(2)
    assert "local/diary" in refused(world, "in_the_way")
    assert (world.clone / "local/diary").read_text() == "mine\n"


def test_a_users_link_where_a_folder_shall_be_is_kept(world: World) -> None:
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    (world.clone / "extra").symlink_to(elsewhere)
    world.release(2, {"extra/file": "theirs\n"})
    refused(world, "in_the_way")
    assert (world.clone / "extra").is_symlink()
    assert list(elsewhere.iterdir()) == []


def test_untracked_files_elsewhere_do_no_harm_and_stay(world: World) -> None:
    (world.clone / "notes.txt").write_text("mine\n")
    world.release(2)
    world.deploy()
    assert (world.clone / "notes.txt").read_text() == "mine\n"
    assert world.assert_status_is_true()["in_step"]


def test_a_submodule_is_refused(world: World) -> None:
    link = f"160000,{world.git('rev-parse', 'HEAD')},vendor/other"
    world.git("update-index", "--add", "--cacheinfo", link)
    world.write({".gitmodules": '[submodule "other"]\n\tpath = vendor/other\n\turl = https://example.org/x.git\n'})
    world.git("add", ".gitmodules")
    world.git("commit", "--quiet", "-m", "submodule")
    world.git("push", "--quiet", "origin", "main")
    assert "vendor/other" in refused(world, "submodule")
    untouched(world)


def test_a_compose_file_that_does_not_parse_is_refused_before_the_tree_moves(world: World) -> None:
    before = world.head
    world.release(2, {"compose/compose.yaml": "services: {"})
    refused(world, "compose")
    assert world.head == before
    untouched(world)
    world.release(3)
    world.deploy()
    world.assert_whole(3)


def test_a_commit_without_the_compose_file_is_refused(world: World) -> None:
    world.write({"compose/compose.yaml": None})
    world.push("gone")
    refused(world, "compose")
    untouched(world)


def test_a_missing_env_file_is_refused_and_works_once_it_is_there(world: World) -> None:
    world.configure(compose={"env_file": ".env"})
    world.release(2)
    assert ".env.example" in refused(world, "env")
    untouched(world)
    (world.clone / ".env").write_text("A=b\n")
    world.deploy()
    world.assert_whole(2)


def test_a_missing_variable_is_refused_by_name(world: World) -> None:
    world.configure(compose={"env_file": ".env"})
    (world.clone / ".env").write_text("A=b\n")
    world.release(2, web={"environment": {"REV": "2", "P": "${DB_PASSWORD:?set it in .env}"}})
    assert "DB_PASSWORD" in refused(world, "compose")
    untouched(world)


def test_a_service_env_file_beside_the_compose_file_is_found_while_it_is_untracked(world: World) -> None:
    (world.clone / "compose/.env").write_text("EXTRA=1\n")
    world.allow("web: env_file compose/.env")
    world.release(2, web={"environment": {"REV": "2"}, "env_file": ".env"})
    world.deploy()
    world.assert_whole(2)
    assert world.assert_status_is_true()["in_step"]


def test_a_detached_head_is_refused(world: World) -> None:
    world.git("checkout", "--quiet", "--detach", cwd=world.clone)
    world.release(2)
    assert "detached" in refused(world, "branch")
    assert not world.calls("compose up")
    assert not world.status()["in_step"]


def test_another_branch_in_the_clone_is_refused(world: World) -> None:
    world.git("switch", "--quiet", "-c", "mine", cwd=world.clone)
    world.release(2)
    refused(world, "branch")
    assert not world.calls("compose up")
    assert not world.status()["in_step"]


def test_a_branch_that_is_gone_is_refused(world: World) -> None:
    world.git("push", "--quiet", "origin", "main:other")
    world.git("symbolic-ref", "HEAD", "refs/heads/other", cwd=world.remote)
    world.git("update-ref", "-d", "refs/heads/main", cwd=world.remote)
    refused(world, "branch")
    untouched(world)


def test_a_clone_of_another_remote_is_refused(world: World) -> None:
    world.git("remote", "set-url", "origin", "/somewhere/else", cwd=world.clone)
    refused(world, "remote")
    assert not world.calls("compose up")
    assert not world.status()["in_step"]


def test_a_folder_that_is_no_clone_is_left_alone() -> None:
    world = fresh_world()
    world.clone.mkdir(parents=True)
    (world.clone / "thesis.txt").write_text("mine\n")
    refused(world, "clone")
    assert [p.name for p in world.clone.iterdir()] == ["thesis.txt"]
    assert not world.status()["in_step"]


class TestConfiguration:
    """Nothing happens on the word of a file that somebody else can write."""

    def test_not_on_the_allowlist(self, world: World) -> None:
        world.configure(allow=f"other {world.remote} main\n")
        world.release(2)
        refused(world, "allowlist", 2)
        world.assert_whole(1)
        assert "not in" in world.status()["problems"][0]

    def test_another_url_than_the_allowlist_grants(self, world: World) -> None:
        world.configure(allow="prod https://user:hunter2@example.org/x.git main\n")
        err = refused(world, "allowlist", 2)
        assert "hunter2" not in err
        assert not world.calls("compose up")

    @pytest.mark.parametrize(
        ("name", "bit"), [("prod.ini", stat.S_IWGRP), ("allowlist", stat.S_IWOTH), (".", stat.S_IWGRP)]
    )
    def test_writable_by_others(self, world: World, name: str, bit: int) -> None:
        path = world.config_dir / name
        path.chmod(path.stat().st_mode | bit)
        world.release(2)
        assert "chmod go-w" in refused(world, "writable", 2)
        world.assert_whole(1)
        assert not world.status()["in_step"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_owned_by_somebody_else(self, world: World) -> None:
        os.chown(world.config_dir / "prod.ini", 12345, 12345)
        refused(world, "owner", 2)
        assert not world.status()["in_step"]

    def test_configuration_inside_the_clone(self, world: World) -> None:
        inside = world.clone / "etc"
        shutil.copytree(world.config_dir, inside)
        world.config_dir = inside
        refused(world, "placement", 2)

    @pytest.mark.parametrize("url", ["http://example.org/x.git", "git://example.org/x.git", "HTTP://example.org/x"])
    def test_a_remote_that_anybody_between_can_answer_for(self, world: World, url: str) -> None:
        world.configure(repository={"url": url})
        assert "unencrypted = allow" in refused(world, "value", 2)
        world.configure(repository={"unencrypted": "allow"})
        refused(world, "remote")  # told so, it is a URL like others: not that of the clone

    def test_a_remote_that_leads_to_one(self, world: World) -> None:
        """By somebody's insteadOf; a server's redirect goes by the same rule of git's."""
        world.release(2)
        world.git("config", "url.http://127.0.0.1:1/.insteadOf", str(world.remote), cwd=world.clone)
        assert "transport 'http' not allowed" in refused(world, "fetch", 75)
        world.assert_whole(1)

    def test_a_signers_file_that_others_can_write(self, world: World) -> None:
        signers = world.config_dir / "signers"
        signers.write_text("")
        world.configure(repository={"signatures": "tip", "allowed_signers": signers})
        signers.chmod(0o666)
        world.release(2)
        refused(world, "writable", 2)
        world.assert_whole(1)
