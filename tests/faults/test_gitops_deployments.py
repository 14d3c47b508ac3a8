"""Deployments that go wrong: always one whole commit, always a true status."""

from __future__ import annotations

import json

import pytest

from tests.support.gitops import World, broken, deployed_world, fresh_world, services


@pytest.fixture
def world() -> World:
    return deployed_world()


@pytest.mark.parametrize("mode", ["bad", "crash", "upfail"])
def test_an_unhealthy_commit_goes_back_and_is_never_tried_again(world: World, mode: str) -> None:
    bad = world.release(2, web=broken(2, mode))
    ran = world.run()
    assert ran.code == 1
    assert "result=rolled_back" in ran.err
    world.assert_whole(1)
    found = world.assert_status_is_true()
    assert not found["in_step"]
    assert list(found["failed_commits"]) == [bad]
    world.forget_calls()
    for _ in range(2):
        ran = world.run()
        assert ran.code == 0
        assert "result=skipped" in ran.out
    assert not world.calls("compose up")
    world.assert_whole(1)
    assert not world.status()["in_step"]
    world.release(3)
    world.deploy()
    world.assert_whole(3)
    assert world.assert_status_is_true()["in_step"]


def test_health_that_comes_and_goes_is_not_health(world: World) -> None:
    """Up at every second look: with a settling time that is never healthy, however long the wait."""
    world.configure(health={"stable": "0.2", "timeout": "1"})
    world.release(2, web=broken(2, "flap"))
    assert "result=rolled_back" in world.run().err
    world.assert_whole(1)


def test_a_slow_start_is_waited_for(world: World) -> None:
    world.configure(health={"timeout": "120"})
    world.release(2, web=broken(2, "slow"))
    world.deploy()
    world.assert_whole(2)
    assert world.assert_status_is_true()["in_step"]


def test_a_one_shot_that_fails_takes_the_commit_back(world: World) -> None:
    migrate = {"image": "web:1", "restart": "no"}
    needs = {"depends_on": {"migrate": {"condition": "service_completed_successfully"}}}
    world.release(2, web=needs, migrate={**migrate, **broken(2, "once")})
    world.deploy()
    assert world.assert_status_is_true()["in_step"]
    world.release(3, web=needs, migrate={**migrate, **broken(3, "once-bad")})
    world.configure(health={"timeout": "30"})
    said = world.run().err
    assert "migrate is exited (3)" in said
    assert "after 30 s" not in said  # it has ended: nothing more to wait for
    world.assert_whole(2)


def test_a_first_commit_that_fails_is_not_tried_again() -> None:
    world = fresh_world()
    world.release(2, web=broken(2, "bad"))
    assert world.run().code == 1
    ups = len(world.calls("compose up"))
    assert "result=skipped" in world.run().out
    assert len(world.calls("compose up")) == ups
    assert not world.assert_status_is_true()["in_step"]
    world.release(3)
    world.deploy()
    world.assert_whole(3)
    assert world.assert_status_is_true()["in_step"]


def test_when_going_back_fails_too_it_says_so_and_goes_on_trying(world: World) -> None:
    world.release(2, web=broken(2, "bad"))
    world.fault({"match": "compose up", "when": "before", "do": "fail", "times": 1, "skip": 1})
    ran = world.run()
    assert ran.code == 1
    assert "kind=broken" in ran.err
    assert not world.assert_status_is_true()["in_step"]
    world.run()
    world.assert_whole(1)
    found = world.assert_status_is_true()
    assert found["in_flight"] is None
    assert all(service["as_deployed"] for service in found["services"].values())


def test_a_rollback_gives_the_image_back_without_building(world: World) -> None:
    image = world.containers()["code"]["image_id"]
    world.release(2, {"Dockerfile": "FROM scratch\nLABEL a=b\n"}, web=broken(2, "bad"))
    world.fault({"match": "compose build", "when": "before", "do": "fail", "times": 9, "skip": 1})
    assert "result=rolled_back" in world.run().err
    assert world.containers()["code"]["image_id"] == image


def test_a_postponed_build_does_not_spoil_the_kept_image(world: World) -> None:
    """The first attempt builds and is then postponed: the image's name no longer stands for what runs."""
    image = world.containers()["code"]["image_id"]
    world.configure(dagster={"url": "http://127.0.0.1:1", "services": "code"})
    world.release(2, {"Dockerfile": "FROM scratch\nLABEL a=b\n"}, web=broken(2, "bad"))
    assert world.run().code == 75
    world.configure(dagster={"url": "", "services": ""})
    assert "result=rolled_back" in world.run().err
    assert world.containers()["code"]["image_id"] == image
    world.assert_whole(1)


def test_a_build_that_fails_touches_nothing_and_gives_up_in_the_end(world: World) -> None:
    bad = world.release(2)
    world.fault({"match": "compose build", "when": "before", "do": "fail", "times": 99})
    for _ in range(3):
        assert "kind=build" in world.run().err
        world.assert_whole(1)
    assert "result=skipped" in world.run().out
    assert not world.calls("compose up")
    assert list(world.assert_status_is_true()["failed_commits"]) == [bad]


def test_only_what_changed_is_replaced(world: World) -> None:
    before = {n: c["id"] for n, c in world.containers().items()}

    def replaced() -> set[str]:
        now = {n: c["id"] for n, c in world.containers().items()}
        changed = {n for n in now if now[n] != before.get(n)}
        before.update(now)
        return changed

    world.write({"README.md": "two\n"})
    world.push("only words")
    world.deploy()
    assert replaced() == set()
    world.write({"compose/grafana/grafana.ini": "[two]\n"})
    world.push("mounted content")
    world.deploy()
    assert replaced() == {"grafana"}
    assert world.containers()["grafana"]["mounted"] == {"grafana.ini": "[two]\n"}
    world.write({"src/main.py": "print(2)\n"})
    world.push("built content")
    world.deploy()
    assert replaced() == {"code"}
    assert world.assert_status_is_true()["in_step"]


def test_services_that_share_a_built_image_are_replaced_together(world: World) -> None:
    shared = {
        "code": {"build": "..", "image": "ours"},
        "worker": {"image": "ours", "environment": {"REV": "2"}},
    }
    world.release(2, **shared)
    world.deploy()
    before = world.containers()["worker"]["id"]
    world.write({"src/main.py": "print('new')\n"})
    world.push("code only")
    world.deploy()
    assert world.containers()["worker"]["id"] != before
    assert not [call for call in world.calls("compose pull") if "worker" in call]


def test_a_service_that_left_the_compose_file_goes_and_comes_back_with_a_rollback(world: World) -> None:
    world.release(2, web=None, grafana=broken(2, "bad"))
    assert "result=rolled_back" in world.run().err
    world.assert_whole(1)
    assert set(world.containers()) == {"db", "code", "web", "grafana"}
    world.release(3, web=None)
    world.deploy()
    assert set(world.containers()) == {"db", "code", "grafana"}
    assert world.assert_status_is_true()["in_step"]


def test_a_service_of_no_replicas_is_not_waited_for(world: World) -> None:
    """As one of two services that stand in for each other is switched off, and on again."""
    world.release(2, grafana={"deploy": {"replicas": 0}})
    world.deploy()
    assert set(world.containers()) == {"db", "code", "web"}
    assert world.assert_status_is_true()["in_step"]
    world.release(3)
    world.deploy()
    assert set(world.containers()) == {"db", "code", "web", "grafana"}
    assert world.assert_status_is_true()["in_step"]


def test_external_volumes_are_made_before_a_container_is_touched(world: World) -> None:
    """Compose refuses to start without them, and a commit that brings a new one would be taken back."""
    compose = services(2)
    compose["volumes"] = {"data": {"name": "postgres_data", "external": True}}
    compose["services"]["db"]["environment"]["REV"] = "2"
    world.write({"compose/compose.yaml": compose})
    world.push("an external volume")
    world.deploy()
    calls = (world.root / "calls.log").read_text().splitlines()
    made, ups = (
        calls.index("volume create postgres_data"),
        [n for n, c in enumerate(calls) if c.startswith("compose up")],
    )
    assert made < ups[-1]
    assert world.assert_status_is_true()["in_step"]


def test_containers_of_other_people_in_the_project_stay(world: World) -> None:
    world.change_containers(lambda c: c.update(theirs={**c["web"], "id": "f" * 24, "rev": "2"}))
    world.release(2)
    world.deploy()
    assert world.containers()["theirs"]["id"] == "f" * 24


def test_a_failure_is_told_once_and_without_secrets(world: World) -> None:
    told = world.root / "told"
    script = world.bin / "tell"
    script.write_text(f"#!/bin/sh\ncat >> {told}\n")
    script.chmod(0o755)
    (world.clone / ".env").write_text("DB_PASSWORD=hunter2hunter2\n")
    world.configure(notify={"command": str(script)}, compose={"env_file": ".env"})
    world.release(2)
    message = "cannot use hunter2hunter2 at postgres://u:pw@db"
    world.fault({"match": "compose up", "when": "before", "do": "fail", "message": message})
    ran = world.run()
    for text in (ran.out + ran.err, told.read_text(), json.dumps(world.status())):
        assert "hunter2" not in text
        assert "u:pw@" not in text
    assert told.read_text().count("rolled back") == 1
    world.run()
    world.run()
    assert told.read_text().count("Deployment of") == 1


def test_a_notification_that_fails_changes_nothing_else(world: World) -> None:
    world.configure(notify={"command": "/bin/false"})
    world.release(2, web=broken(2, "bad"))
    ran = world.run()
    assert ran.code == 1
    assert "cannot notify" in ran.err
    world.assert_whole(1)


def test_metrics_follow_the_runs(world: World) -> None:
    path = world.root / "hub.prom"
    world.configure(metrics={"file": path})
    world.deploy()
    assert 'reading_hub_gitops_in_step{name="prod"} 1\n' in path.read_text()
    world.release(2, web=broken(2, "bad"))
    world.run()
    text = path.read_text()
    assert 'reading_hub_gitops_in_step{name="prod"} 0\n' in text
    assert 'reading_hub_gitops_last_result{name="prod",result="rolled_back"} 1\n' in text
    assert 'reading_hub_gitops_deploy_failures_total{name="prod"} 1\n' in text
    assert [p.name for p in world.root.glob("*.prom*")] == ["hub.prom"]


def test_metrics_that_cannot_be_written_do_not_fail_a_deployment(world: World) -> None:
    world.configure(metrics={"file": world.root / "absent/hub.prom"})
    world.release(2)
    assert "cannot write the metrics" in world.deploy().err
    world.assert_whole(2)


def test_plan_changes_nothing(world: World) -> None:
    before = (world.head, world.state, world.containers())
    world.release(2, db={"image": "timescale:2"}, web=None)
    world.configure(database={"services": "db"})
    ran = world.run("plan", "--json")
    assert ran.code == 0
    plan = json.loads(ran.out)["plan"]
    assert "replace db: image timescale:1 -> timescale:2" in plan
    assert "remove web: no longer wanted" in plan
    assert "needs a verified backup: the image of db changes" in plan
    assert (world.head, world.state) == before[:2]
    assert {n: c["id"] for n, c in world.containers().items()} == {n: c["id"] for n, c in before[2].items()}
    assert not [c for c in world.calls("compose") if not c.startswith("compose config")]
    assert not list(world.state_dir.glob("*.stage"))


def test_status_does_not_guess_when_docker_is_away(world: World) -> None:
    world.fault({"match": "ps", "when": "before", "do": "fail", "times": 99})
    found = world.status()
    assert not found["in_step"]
    assert found["docker"] == "unavailable"
    assert {service["up"] for service in found["services"].values()} == {None}


def test_a_container_replaced_behind_its_back_is_reported(world: World) -> None:
    world.change_containers(lambda c: c["web"].update(image="web:evil"))
    found = world.assert_status_is_true(changed_since=True)
    assert not found["in_step"]
    assert found["problems"] == ["web is not what was deployed last"]


def test_a_clone_moved_by_hand_is_reported_and_then_deployed(world: World) -> None:
    """Docs only, so that every container is as it should be: the clone alone is ahead of what was judged good."""
    world.write({"README.md": "two\n"})
    world.push("only words")
    world.git("pull", "--quiet", cwd=world.clone)
    world.git("fetch", "--quiet", "origin", "+main:refs/gitops/remote", cwd=world.clone)
    found = world.assert_status_is_true(changed_since=True)
    assert not found["in_step"]
    assert "the last good commit is" in found["problems"][0]
    world.deploy()
    assert world.assert_status_is_true()["in_step"]
