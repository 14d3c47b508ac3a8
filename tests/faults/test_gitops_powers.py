"""A commit takes no power over the host that the deployment's own file does not give it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.support.gitops import World, broken, deployed_world, fresh_world, refused, services, untouched

COMPOSE = (
    shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
)


@pytest.fixture
def world() -> World:
    return deployed_world()


TAKEN = [
    ({"privileged": True}, "web: privileged"),
    ({"pid": "host"}, "web: pid host"),
    ({"network_mode": "host"}, "web: network_mode host"),
    ({"cap_add": ["SYS_ADMIN"]}, "web: cap_add SYS_ADMIN"),
    ({"devices": ["/dev/mem"]}, "web: device /dev/mem"),
    ({"security_opt": ["apparmor:unconfined"]}, "web: security_opt apparmor:unconfined"),
    ({"volumes": ["/:/host:ro"]}, "web: mount /:ro"),
    ({"volumes": ["/var/run/docker.sock:/x"]}, "web: mount /var/run/docker.sock"),
    ({"volumes": ["..:/repository:ro"]}, "web: mount ./:ro"),
    ({"volumes": ["./grafana:/x"]}, "web: mount ./compose/grafana"),
    ({"build": "https://example.org/x.git"}, "web: build https://example.org/x.git"),
    ({"build": "../../../../../../../../../../etc"}, "web: build /etc"),
    ({"image": "stranger/miner:1"}, "web: image stranger/miner"),
    ({"provider": {"type": "./evil"}}, 'web: provider {"type": "./evil"}'),
]


@pytest.mark.parametrize(("change", "line"), TAKEN)
def test_what_a_commit_takes_is_refused_until_it_is_allowed(world: World, change: dict[str, Any], line: str) -> None:
    world.release(2, web={**change, "environment": {"REV": "2"}})
    assert line.replace('"', '\\"') in refused(world, "powers")
    assert not world.calls("compose build")
    untouched(world)
    planned = world.run("plan")
    assert planned.code == 3
    assert f"\n      {line}\n" in planned.out
    world.allow(line)
    planned = world.run("plan")
    assert planned.code == 0
    assert "missing" not in planned.out


def test_the_lines_that_plan_prints_can_be_pasted(world: World) -> None:
    """All at once, and then it is deployed."""
    world.release(
        2,
        web={"environment": {"REV": "2"}, "volumes": ["/srv/a  b:/x:ro"], "cap_add": ["NET_ADMIN"]},
        grafana={"image": "other/grafana:2", "environment": {"REV": "2"}},
    )
    ran = world.run("plan")
    lines = [line.strip() for line in ran.out.splitlines() if line.startswith("      ")]
    assert len(lines) == 3
    planned = json.loads(world.run("plan", "--json").out)["plan"]
    assert lines == [line.strip() for line in planned if line.startswith("    ")]
    world.allow(*lines)
    world.deploy()
    world.assert_whole(2)
    assert world.status()["powers"]["unnamed"] == []


def test_allowed_for_one_service_is_not_for_another(world: World) -> None:
    world.allow("grafana: privileged")
    world.release(2, web={"privileged": True, "environment": {"REV": "2"}})
    refused(world, "powers")


def test_what_runs_already_is_reported_and_not_refused(world: World) -> None:
    """Deployed by an agent before this one, whose state knows nothing of powers, with a file that has no such section."""
    world.allow("web: privileged")
    world.release(2, web={"privileged": True, "environment": {"REV": "2"}})
    world.deploy()
    old = world.state
    del old["powers"]
    (world.state_dir / "prod.json").write_text(json.dumps(old))
    del world.settings["powers"]
    world.configure()
    assert "powers=4" in world.deploy().err
    found = world.assert_status_is_true()
    assert found["in_step"]
    assert "web: privileged" in found["powers"]["unnamed"]
    assert "not in [powers]: web: privileged" in world.run("status").out
    world.release(3, web={"privileged": True, "environment": {"REV": "3"}})
    assert "web: privileged" in world.run("plan").out
    assert "powers=4" in world.deploy().err
    world.assert_whole(3)
    world.release(4, web={"privileged": True, "pid": "host", "environment": {"REV": "4"}})
    said = refused(world, "powers")
    assert "add: web: pid host" in said
    world.assert_whole(3)


@pytest.mark.parametrize("known", [True, False])
def test_the_first_commit_after_the_update_is_compared_with_what_runs(world: World, known: bool) -> None:
    """The state of the agent before, or none at all: what runs is then the clone's commit."""
    if known:
        old = world.state
        del old["powers"]
        (world.state_dir / "prod.json").write_text(json.dumps(old))
    else:
        (world.state_dir / "prod.json").unlink()
    del world.settings["powers"]
    world.configure()
    world.release(2, web={"privileged": True, "environment": {"REV": "2"}})
    assert 'add: web: privileged"' in refused(world, "powers")
    world.release(3)
    world.deploy()
    world.assert_whole(3)


def test_on_a_new_host_nothing_runs_already() -> None:
    world = fresh_world()
    del world.settings["powers"]
    world.configure()
    assert "grafana: image grafana" in refused(world, "powers")
    assert world.containers() == {}


def test_a_power_that_was_refused_is_none_after_falling_back(world: World) -> None:
    world.allow("web: privileged")
    world.release(2, web={"privileged": True, **broken(2, "bad")})
    assert "rolled_back" in world.run().err
    world.settings["powers"]["allow"] = world.settings["powers"]["allow"].replace("web: privileged", "")
    world.configure()
    world.release(3, web={"privileged": True, "environment": {"REV": "3"}})
    refused(world, "powers")
    world.assert_whole(1)


def test_an_env_file_that_compose_would_read_as_root(world: World) -> None:
    world.release(2, web={"environment": {"REV": "2"}, "env_file": "/etc/passwd"})
    said = refused(world, "powers")
    assert "web: env_file /etc/passwd" in said
    assert "root:" not in said + json.dumps(world.status()) + json.dumps(world.state)
    world.release(3, web={"environment": {"REV": "3"}, "env_file": "/dev/zero"})
    refused(world, "env")
    untouched(world)


def test_a_link_of_the_clones_owner_is_what_it_leads_to(world: World) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    (world.clone / "local").symlink_to(outside)
    world.release(2, web={"environment": {"REV": "2"}, "volumes": ["../local:/x"]})
    assert f"web: mount {outside}" in refused(world, "powers")


def test_names_that_would_forge_another_line(world: World) -> None:
    world.release(2, web={"environment": {"REV": "2"}, "volumes": ["/a\n    grafana/privileged:/x"]})
    assert "\n" not in refused(world, "powers").strip()
    out = world.run("plan").out
    assert "      web: mount /a\\n    grafana/privileged\n" in out


def test_a_line_that_makes_no_sense_is_named(world: World) -> None:
    world.allow("privileged")
    assert "'privileged' is not 'SERVICE: WHAT'" in refused(world, "value", 2)


@pytest.mark.skipif(not COMPOSE, reason="docker compose is not here")
def test_with_compose_itself(world: World) -> None:
    """The model comes from the real program: what it prints is what is looked at."""
    docker = shutil.which("docker")
    assert docker is not None
    script = world.bin / "docker"
    stand_in = script.read_text().splitlines()[1]
    script.write_text(f'#!/bin/sh\ncase "$*" in *" config "*) exec {docker} "$@" ;; esac\n{stand_in}\n')
    model = services(2)
    model["volumes"] = {"data": {}}
    model["services"]["web"] |= {
        "depends_on": ["db"],
        "use_api_socket": True,
        "gpus": "all",
        "post_start": [{"command": ["id"], "privileged": True}],
        "env_file": ["${L:-/../usr/lib/}../../etc/passwd"],
        "volumes": [{"type": "bind", "source": "/", "target": "/host", "read_only": True}],
    }
    model["services"]["code"]["build"] = {"context": "..", "additional_contexts": {"x": "/root"}}
    world.write({"compose/compose.yaml": model})
    world.push("powers")
    ran = world.run("plan")
    for line in (
        "web: use_api_socket true",
        'web: gpus [{"count": -1}]',
        "web: privileged post_start",
        "web: mount /:ro",
        "code: build /root",
    ):
        assert f"      {line}\n" in ran.out, ran.out + ran.err
    assert (
        "      web: env_file compose/usr/lib/etc/passwd\n" in ran.out
    )  # in truth /etc/passwd: any such line is to be allowed first
    assert "daemon" not in ran.out + ran.err
    refused(world, "powers")
    untouched(world)
