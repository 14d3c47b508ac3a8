"""The agent writes the stack's secrets as `make up` does: before the containers that read them, and only then."""

from __future__ import annotations

import stat

from tests.support.gitops import World, deployed_world, services


def release(world: World, rev: int, value: str) -> None:
    """A commit whose `web` reads a secret. The value stands for what Compose takes from `.env`."""
    model = services(rev, web={"secrets": ["TOKEN"]})
    model["x-secrets"] = {"TOKEN": value, "UNUSED": ""}
    model["secrets"] = {name: {"file": f"../.secrets/{name}"} for name in model["x-secrets"]}
    world.write({"compose/compose.yaml": model})
    world.push(f"revision {rev}")


def test_secrets_are_files_before_the_containers_start_and_a_changed_one_replaces_whoever_reads_it() -> None:
    world = deployed_world()
    release(world, 2, "first$$one")
    ran = world.deploy()
    folder = world.clone / ".secrets"
    assert (folder / "TOKEN").read_text() == "first$one"
    assert (folder / "UNUSED").read_text() == ""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "first" not in ran.out + ran.err
    world.forget_calls()
    assert "result=up_to_date" in world.run().out
    assert not world.calls("compose up")

    release(world, 2, "second")
    world.forget_calls()
    world.deploy()
    assert (folder / "TOKEN").read_text() == "second"
    (up,) = world.calls("compose up")
    assert up.split()[-1] == "web"


def test_a_folder_of_secrets_that_leads_elsewhere_is_not_written_to() -> None:
    world = deployed_world()
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    (world.clone / ".secrets").symlink_to(elsewhere)
    release(world, 2, "value")
    assert world.run().code == 3  # refused: the file is no longer one of the clone
    assert not list(elsewhere.iterdir())
    world.assert_whole(1)
