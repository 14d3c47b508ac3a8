"""The agent is killed, doubled, rebooted and replaced under its own feet: the next run ends it all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time

import pytest

from tests.support.gitops import (
    MINE,
    PYTHON,
    REPOSITORY,
    TORN_AT,
    World,
    deployed_world,
    fresh_world,
    services,
    settled,
    torn,
    unhealthy,
    wait_until,
)

FORWARD = [
    "start",
    "fetch",
    "verify",
    "stage",
    "plan",
    "backup",
    "build",
    "drain",
    "move",
    "up",
    "health",
    "finish",
]
BACK = ["back-move", "back-images", "back-up", "back-health", "back-finish"]


@pytest.fixture
def world() -> World:
    world = deployed_world()
    (world.clone / "notes.txt").write_text(MINE)
    return world


def everything_gated(world: World) -> None:
    """A release to revision 2 that passes every gate, so that every step is taken."""
    hub = world.bin / "hub"
    hub.write_text(f'#!/bin/sh\necho \'[{{"verified": true, "time": {time.time()}, "name": "b"}}]\'\n')
    hub.chmod(0o755)
    world.configure(
        database={"services": "db"},
        dagster={"url": "http://127.0.0.1:1", "services": "code", "on_unreachable": "proceed"},
    )
    world.release(2, db={"image": "timescale:2"})


def test_the_lists_of_steps_are_complete(world: World) -> None:
    everything_gated(world)
    assert world.deploy().steps == FORWARD
    settled(world, 2)
    unhealthy(world, 3)
    assert [step for step in world.run().steps if step not in FORWARD] == BACK


@pytest.mark.parametrize("step", FORWARD)
def test_killed_at_a_step_forward(world: World, step: str) -> None:
    everything_gated(world)
    killed = world.run_and_kill_at(step)
    assert killed.code == -9
    found = world.assert_status_is_true()
    if step != "finish":  # announced once it is recorded: all is done by then
        assert not found["in_step"]
    world.deploy()
    settled(world, 2)
    assert world.containers()["db"]["image"] == "timescale:2"


@pytest.mark.parametrize("step", BACK)
def test_killed_at_a_step_back(world: World, step: str) -> None:
    bad = unhealthy(world)
    killed = world.run_and_kill_at(step)
    assert killed.code == -9
    assert not world.assert_status_is_true()["in_step"]
    world.run()
    world.assert_whole(1)
    found = world.assert_status_is_true()
    assert list(found["failed_commits"]) == [bad]
    assert found["in_flight"] is None
    ups = len(world.calls("compose up"))
    assert world.run().code == 0
    assert len(world.calls("compose up")) == ups  # never tried again


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["compose config", "compose build", "compose up"])
def test_killed_around_a_docker_call(world: World, call: str, when: str) -> None:
    world.release(2)
    world.fault({"match": call, "when": when, "do": "kill"})
    assert world.run().code == -9
    assert not world.assert_status_is_true()["in_step"]
    world.deploy()
    settled(world, 2)


def test_killed_with_half_of_the_containers_replaced(world: World) -> None:
    world.release(2)
    world.fault({"match": "compose up", "when": "middle", "do": "kill"})
    assert world.run().code == -9
    assert len({c["rev"] for n, c in world.containers().items() if n != "db"}) == 2  # half-deployed for now
    found = world.assert_status_is_true()
    assert not found["in_step"]
    assert found["in_flight"]["services"] == ["code", "grafana", "web"]
    world.remote.rename(world.root / "away")
    world.run()  # offline: it ends what was begun all the same
    world.assert_whole(2)
    (world.root / "away").rename(world.remote)
    world.deploy()
    settled(world, 2)


def test_killed_half_way_back(world: World) -> None:
    unhealthy(world)
    world.fault({"match": "compose up", "when": "middle", "do": "kill", "skip": 1})
    assert world.run().code == -9
    assert not world.assert_status_is_true()["in_step"]
    assert "result=rolled_back" in world.run().err
    world.assert_whole(1)


def test_a_service_that_our_own_kill_left_stopped_is_not_taken_for_stopped_on_purpose(world: World) -> None:
    world.release(2)
    world.fault({"match": "compose up", "when": "middle", "do": "kill"})
    world.run()
    world.change_containers(lambda c: c.pop("web"))  # as between removal and creation
    world.deploy()
    settled(world, 2)


def test_the_health_wait_killed_over_and_over_ends_with_going_back(world: World) -> None:
    """A commit that takes the machine down with it must not do so for ever."""
    bad = world.release(2)
    world.fault({"match": "compose up", "when": "after", "do": "kill", "times": 3})
    for _ in range(3):
        assert world.run().code == -9
        assert not world.assert_status_is_true()["in_step"]
    assert "result=rolled_back" in world.run().err
    world.assert_whole(1)
    assert list(world.assert_status_is_true()["failed_commits"]) == [bad]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", [" fetch ", "checkout-index", "reset --quiet --keep"])
def test_killed_around_a_git_command(world: World, command: str, when: str) -> None:
    world.release(2)
    world.kill_in_git(command, when)
    assert world.run().code == -9
    assert not world.assert_status_is_true()["in_step"]
    world.deploy()
    settled(world, 2)


class TestTheTreeHalfMoved:
    """git itself killed in the middle of writing a file."""

    @pytest.fixture
    def world(self) -> World:
        world = deployed_world()
        world.release(2, torn(2))
        world.kill_in_git("reset --quiet --keep", "middle")
        assert world.run().code == -9
        assert (world.clone / "aaa/first").exists()
        assert (world.clone / "middle.bin").stat().st_size == TORN_AT
        assert not (world.clone / "zz-last").exists()
        assert world.head == world.state["in_flight"]["origin"]
        return world

    def test_it_is_ended(self, world: World) -> None:
        assert not world.assert_status_is_true()["in_step"]
        world.deploy()
        settled(world, 2)
        assert (world.clone / "middle.bin").stat().st_size == 200_000
        assert (world.clone / "zz-last").exists()

    @pytest.mark.parametrize("name", ["aaa/first", "middle.bin", "zz-last"])
    def test_a_users_file_written_meanwhile_is_kept(self, world: World, name: str) -> None:
        mine = world.clone / name
        mine.write_text(MINE)
        ran = world.run()
        assert ran.code == 3
        assert name in ran.err
        assert mine.read_text() == MINE
        assert not world.assert_status_is_true()["in_step"]
        mine.rename(world.root / "saved")
        world.deploy()
        settled(world, 2)

    def test_a_tracked_file_edited_meanwhile_is_kept(self, world: World) -> None:
        (world.clone / "README.md").write_text(MINE)
        assert world.run().code == 3
        assert (world.clone / "README.md").read_text() == MINE


def test_a_huge_diff_goes_both_ways(world: World) -> None:
    world.release(2, {f"many/{n % 40}/{n:04}.txt": f"{n}\n" * 20 for n in range(2000)})
    world.deploy()
    settled(world, 2)
    shutil.rmtree(world.author / "many")
    unhealthy(world, 3)
    assert "result=rolled_back" in world.run().err
    world.assert_whole(2)
    assert len(list((world.clone / "many").rglob("*.txt"))) == 2000


def test_a_users_edit_during_the_deployment_stops_the_way_back_and_is_kept(world: World) -> None:
    """The unhealthy commit changed the file, the user edited it since: going back would lose the edit."""
    world.write({"README.md": "two\n"})
    bad = unhealthy(world)
    edited = world.clone / "README.md"
    world.fault({"match": "compose up", "when": "after", "do": "edit", "path": str(edited)})
    world.run()
    assert edited.read_text() == "two\na user's line\n"
    found = world.assert_status_is_true()
    assert not found["in_step"]
    assert list(found["failed_commits"]) == [bad]
    world.run()
    assert edited.read_text() == "two\na user's line\n"
    world.git("restore", "README.md", cwd=world.clone)
    world.run()
    world.assert_whole(1)


def test_a_users_file_made_during_the_deployment_stops_the_way_back_and_is_kept(world: World) -> None:
    """The unhealthy commit removed an ignored file, the user made one of that name: git would overwrite it."""
    world.write({".env": "theirs\n"})
    world.git("add", "--force", ".env")
    world.release(2)
    world.deploy()
    world.write({".env": None})
    unhealthy(world, 3)
    mine = world.clone / ".env"
    world.fault({"match": "compose up", "when": "after", "do": "edit", "path": str(mine)})
    for _ in range(2):
        world.run()
        assert mine.read_text() == "a user's line\n"
        assert not world.assert_status_is_true()["in_step"]
    mine.unlink()
    world.run()
    world.assert_whole(2)


def test_two_at_once(world: World) -> None:
    world.release(2)
    world.fault({"match": "compose up", "when": "before", "do": "hang"})
    first = world.start()
    wait_until((world.root / "hanging").exists, "the first run to reach docker compose up")
    second = world.run()
    assert second.code == 75
    assert "kind=busy" in second.err
    found = world.status()
    assert found["running"]
    assert found["step"] == "up"
    assert not found["in_step"]
    (world.root / "go").touch()
    out, err = first.communicate(timeout=300)
    assert first.returncode == 0, out + err
    assert len(world.calls("compose up")) == 1
    settled(world, 2)


def test_a_child_that_outlives_a_killed_agent_keeps_the_lock(world: World) -> None:
    """docker compose up goes on after its parent's death: a second run must not meet it half-way."""
    world.release(2)
    world.fault({"match": "compose up", "when": "before", "do": "orphan"})
    process = world.start()
    assert process.wait(timeout=300) == -9
    second = world.run()
    assert second.code == 75
    assert "kind=busy" in second.err
    (world.root / "go").touch()
    process.communicate(timeout=300)  # its pipes close when the orphan ends
    world.deploy()
    settled(world, 2)


def reboot(world: World) -> None:
    """Another boot: every container was stopped with the machine, and no restart policy brought one back."""
    path = world.state_dir / "prod.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another boot"}))
    for name in world.containers():
        world.change_containers(lambda c, n=name: c[n].update(status="exited", exit_code=143, policy="no"))


def test_a_reboot_in_mid_run(world: World) -> None:
    """The lock file and the state of another boot lie there; no container came back."""
    world.release(2)
    world.fault({"match": "compose up", "when": "middle", "do": "kill"})
    world.run()
    reboot(world)
    world.deploy()
    settled(world, 2)
    assert {c["status"] for c in world.containers().values()} == {"running"}


def test_after_a_reboot_a_service_stopped_before_stays_stopped(world: World) -> None:
    world.user_stops("grafana")
    world.deploy()  # the agent has seen it
    reboot(world)
    world.deploy()
    states = {n: c["status"] for n, c in world.containers().items()}
    assert states == {"db": "running", "code": "running", "web": "running", "grafana": "exited"}
    assert world.assert_status_is_true()["in_step"]


def test_stale_git_locks_of_a_killed_run_are_removed_but_not_those_of_a_person(world: World) -> None:
    lock = world.clone / ".git/index.lock"
    lock.touch()
    world.release(2)
    assert world.run().code == 75  # the last run ended well: somebody else is at work in the clone
    assert lock.exists()
    assert world.state["in_flight"] is None
    world.assert_whole(1)
    lock.unlink()
    world.run_and_kill_at("verify")
    lock.touch()
    world.deploy()
    settled(world, 2)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}'])
def test_a_state_file_that_makes_no_sense_stops_it(world: World, text: str) -> None:
    (world.state_dir / "prod.json").write_text(text)
    world.release(2)
    ran = world.run()
    assert ran.code == 2
    assert "kind=state" in ran.err
    world.assert_whole(1)
    assert not world.status()["in_step"]
    assert (world.state_dir / "prod.json").read_text() == text


def test_without_its_state_it_adopts_what_runs(world: World) -> None:
    (world.state_dir / "prod.json").unlink()
    unhealthy(world)
    assert "result=rolled_back" in world.run().err
    world.assert_whole(1)
    world.release(3)
    world.deploy()
    settled(world, 3)


def test_the_agent_is_updated_in_mid_run() -> None:
    """It runs from the very clone that it moves, to a commit whose agent cannot even be imported."""
    world = fresh_world()
    for path in sorted((REPOSITORY / "hub/gitops").glob("*.py")):
        world.write({f"hub/gitops/{path.name}": path.read_text()})
    world.write({"hub/secret_files.py": (REPOSITORY / "hub/secret_files.py").read_text()})
    world.write({"hub/__init__.py": '"""The hub."""\n', "compose/compose.yaml": services(1)})
    world.push("with the agent")
    world.deploy()
    every = {
        f"hub/gitops/{p.name}": "raise SystemExit('the new code ran')\n"
        for p in (REPOSITORY / "hub/gitops").glob("*.py")
    }
    world.release(
        2,
        {
            **every,
            "json.py": "raise SystemExit('shadowed')\n",
            "traceback.py": "raise SystemExit('shadowed')\n",
        },
    )
    ran = world.run(cwd=world.clone)
    assert ran.code == 0, ran.out + ran.err
    assert ran.steps[-1] == "finish"
    settled(world, 2)


def test_the_zipapp_runs_the_same(world: World) -> None:
    target = world.root / "gitops.pyz"
    script = REPOSITORY / "deploy/gitops/build-zipapp"
    subprocess.run(["sh", str(script), str(target)], check=True, env={**os.environ, "PYTHON": PYTHON})
    world.release(2)
    argv = [PYTHON, "-S", "-E", str(target), "sync", "prod", "--config-dir", str(world.config_dir)]
    done = subprocess.run(
        [*argv, "--state-dir", str(world.state_dir)],
        env=world.environment(),
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    settled(world, 2)


def test_status_does_not_disturb_a_run(world: World) -> None:
    """`status` looks at the lock for an instant; a run that begins at that instant waits it out."""
    descriptor = os.open(world.state_dir / "prod.lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    process = world.start()
    os.close(descriptor)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
