"""The disk of the GitOps agent: a first checkout cut short, and every write of a run meeting a full disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gitops import World, deployed_world, fresh_world, settled, torn


@pytest.fixture
def world() -> World:
    return deployed_world()


class TestTheFirstRun:
    def test_it_clones(self) -> None:
        world = fresh_world()
        world.deploy()
        settled(world, 1)

    @pytest.mark.parametrize("command", ["clone", "reset --quiet --hard"])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_killed_around_the_first_checkout(self, command: str, when: str) -> None:
        world = fresh_world()
        world.kill_in_git(command, when)
        assert world.run().code == -9
        assert not world.status()["in_step"]
        world.deploy()
        settled(world, 1)
        assert [p.name for p in world.clone.parent.iterdir()] == ["clone"]

    def test_killed_in_the_middle_of_the_first_checkout(self) -> None:
        world = fresh_world()
        world.write(torn(1))
        world.push("torn")
        world.kill_in_git("reset --quiet --hard", "middle")
        assert world.run().code == -9
        assert not (world.clone / "zz-last").exists()
        assert not world.status()["in_step"]
        world.deploy()
        settled(world, 1)
        assert (world.clone / "zz-last").exists()


class TestDiskFull:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        place = tmp_path / "small"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
        yield place
        subprocess.run(["umount", "--lazy", str(place)], check=True)

    @staticmethod
    def big(world: World, size: int) -> None:
        data = os.urandom(size // 2).hex()
        world.release(2, {"big.bin": data, "aaa": "first\n", "zz-last": "last\n"})

    def move_clone(self, world: World, small: Path) -> None:
        shutil.move(str(world.clone), small / "clone")
        world.clone = small / "clone"
        world.configure(repository={"path": world.clone})

    def test_seen_before_anything_is_touched(self, world: World, small: Path) -> None:
        self.move_clone(world, small)
        world.configure(repository={"min_free_mb": "64"})
        world.release(2)
        ran = world.run()
        assert ran.code == 75
        assert "kind=disk" in ran.err
        assert not world.assert_status_is_true()["in_step"]
        world.assert_whole(1)

    def test_while_fetching(self, world: World, small: Path) -> None:
        self.move_clone(world, small)
        self.big(world, 9 * 1024 * 1024)
        assert world.run().code == 75
        world.assert_whole(1)
        assert not world.assert_status_is_true()["in_step"]

    def test_while_the_tree_moves(self, world: World, small: Path) -> None:
        """Fetched beforehand; the disk fills up after the look at the free space."""
        self.move_clone(world, small)
        self.big(world, 1024 * 1024)
        world.configure(health={"timeout": "5"})
        filler = small / "filler"
        hub = world.bin / "filling"
        hub.write_text(
            f'#!/bin/sh\ndd if=/dev/zero of={filler} bs=64k 2>/dev/null\nexec {world.bin}/docker.real "$@"\n'
        )
        hub.chmod(0o755)
        (world.bin / "docker").rename(world.bin / "docker.real")
        (world.bin / "docker").symlink_to("filling")
        ran = world.run()
        assert ran.code == 75, ran.out + ran.err
        assert "kind=move" in ran.err
        assert not world.calls("compose up")
        assert {c["rev"] for n, c in world.containers().items() if n != "db"} == {"1"}
        assert not world.assert_status_is_true()["in_step"]
        (world.bin / "docker").unlink()
        (world.bin / "docker.real").rename(world.bin / "docker")
        filler.unlink()
        world.deploy()
        settled(world, 2)

    def test_while_the_state_is_written(self, world: World, small: Path) -> None:
        shutil.copytree(world.state_dir, small / "state")
        world.state_dir = small / "state"
        descriptor = os.open(small / "filler", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, b"x" * 65536)
        assert shutil.disk_usage(small).free == 0
        os.close(descriptor)
        before = (small / "state/prod.json").read_text()
        world.release(2)
        ran = world.run()
        assert ran.code == 1
        assert "disk" in ran.err
        assert (small / "state/prod.json").read_text() == before
        world.assert_whole(1)
        (small / "filler").unlink()
        world.deploy()
        settled(world, 2)


def test_a_move_that_fails_half_way_is_undone_at_once(world: World) -> None:
    """One new file was written, the next could not be: neither it nor the attempt stays."""
    world.release(2, {"aaa": "new\n"})
    world.kill_in_git("reset --quiet --keep", "fail")
    ran = world.run()
    assert ran.code == 75
    assert "kind=move" in ran.err
    assert not (world.clone / "aaa").exists()
    assert world.state["in_flight"] is None
    world.assert_whole(1)
    assert not world.assert_status_is_true()["in_step"]
    world.deploy()
    settled(world, 2)
