"""What `make` does with the stack: a stand-in for `docker` writes down how it is called."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = "compose --env-file .env --file compose/compose.yaml"

_DOCKER = """#!/bin/sh
printf '%s %s %s %s\\n' "${SECRETS:-none}" "${CONTENT_GRAFANA:-none}" "${CONTENT_LOKI:-none}" "$*" >> calls
case "$*" in
  *"config --services") test ! -e with-gateway || echo gateway ;;
  *"config --quiet") test ! -e refuse || { echo "required variable DB_PASSWORD is missing a value" >&2; exit 15; } ;;
  *"config --format json") printf '{"x-secrets": {"DB_PASSWORD": "%s"}}' "$(sed -n 's/^DB_PASSWORD=//p' .env)" ;;
  *hub.secret_files*) exec "$PYTHON" -m hub.secret_files .secrets ;;
  *"config --volumes") printf 'postgres_data\\nloki_data\\n' ;;
  *"hub smoke") read -r password; printf '%s' "$password" > password ;;
esac
"""


class Clone:
    """A checkout as `make` sees it, with the stand-in on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copytree(ROOT / "compose", folder / "compose")
        (folder / "bin").mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(_DOCKER)
        docker.chmod(0o755)

    def make(self, *arguments: str, code: int = 0) -> str:
        environment = {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.folder)}
        environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode != 0) == (code != 0), done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self) -> list[str]:
        """The arguments of each call since the last time."""
        return [call.split(" ", 3)[3] for call in self.raw_calls()]

    def raw_calls(self) -> list[str]:
        path = self.folder / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_without_init_up_says_what_to_do(clone: Clone) -> None:
    assert "make init" in clone.make("up", code=2)
    assert clone.calls() == []


def test_up_makes_volumes_and_folder_and_waits(clone: Clone) -> None:
    clone.make("init")
    clone.make("up")
    assert clone.calls() == [
        f"{COMPOSE} config --services",
        f"{COMPOSE} config --quiet",
        f"{COMPOSE} build",
        f"{COMPOSE} --profile * config --volumes",
        "volume create postgres_data",
        "volume create loki_data",
        f"{COMPOSE} config --format json",
        "run --rm --interactive --network none --user 0 --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE"
        f" --cap-add FOWNER --volume {clone.folder}/.secrets:/secrets reading-hub:latest python -m hub.secret_files /secrets",
        f"run --rm --network none --user 0 --cap-drop ALL --cap-add CHOWN --volume {clone.folder}/backups:/backups"
        " --volume gateway_users:/gateway reading-hub:latest chown 10001:10001 /backups /gateway",
        f"{COMPOSE} up --detach --wait --wait-timeout 600 --remove-orphans",
    ]


def test_a_missing_secret_stops_up_before_anything_is_made(clone: Clone) -> None:
    clone.make("init")
    (clone.folder / "refuse").touch()
    assert "DB_PASSWORD" in clone.make("up", code=2)
    assert clone.calls() == [f"{COMPOSE} config --services", f"{COMPOSE} config --quiet"]


def test_the_gateway_needs_the_name_of_this_machine_and_a_secret_of_its_own(clone: Clone) -> None:
    clone.make("init")
    env = clone.folder / ".env"
    env.write_text("".join(line for line in env.read_text().splitlines(True) if "GATEWAY" not in line))
    clone.make("up")  # an .env of before, without the profile
    (clone.folder / "with-gateway").touch()
    assert "GATEWAY_HOST is not set" in clone.make("up", code=2)
    env.write_text(env.read_text() + "GATEWAY_HOST=hub.lan\n")
    assert "GATEWAY_SECRET is not set" in clone.make("up", code=2)
    clone.make("init")
    clone.make("up")


def test_up_writes_the_secrets_and_a_changed_one_changes_a_label(clone: Clone) -> None:
    clone.make("init")
    clone.make("up")
    password = re.findall(r"^DB_PASSWORD=(.*)", (clone.folder / ".env").read_text(), re.MULTILINE)[0]
    assert (clone.folder / ".secrets" / "DB_PASSWORD").read_text() == password
    assert stat.S_IMODE((clone.folder / ".secrets").stat().st_mode) == 0o700

    def label() -> str:
        clone.make("up")
        return clone.raw_calls()[-1].split(" ")[0]

    clone.raw_calls()
    first = label()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert label() == first
    (clone.folder / ".env").write_text((clone.folder / ".env").read_text().replace(password, "another"))
    assert label() != first
    assert "another" not in "".join(clone.raw_calls())


def test_the_backup_folder_is_that_of_the_settings(clone: Clone) -> None:
    clone.make("init")
    with (clone.folder / ".env").open("a") as file:
        file.write("BACKUP_DIR=/tmp/elsewhere-of-reading-hub\n")
    clone.make("--dry-run", "up")
    told = clone.make("--dry-run", "up")
    assert '"/tmp/elsewhere-of-reading-hub:/backups"' in told


def test_a_changed_file_behind_a_mount_changes_the_label_of_its_service_only(clone: Clone) -> None:
    clone.make("init")
    clone.make("ps")
    before = clone.raw_calls()[0].split(" ")[1:]
    with next(path for path in (clone.folder / "compose" / "grafana").rglob("*") if path.is_file()).open("a") as file:
        file.write("\n")
    clone.make("ps")
    after = clone.raw_calls()[0].split(" ")[1:]
    assert all(re.fullmatch(r"[0-9a-f]{12}", content) for content in (*before[:2], *after[:2]))
    assert before[0] != after[0]
    assert before[1:] == after[1:]


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (["down"], ["--profile * down"]),
        (["restart"], ["restart"]),
        (["restart", "SERVICE=grafana"], ["restart grafana"]),
        (["logs", "SERVICE=loki"], ["logs --follow --tail 100 loki"]),
        (["ps"], ["ps --all"]),
        (["backup"], ["exec -T dagster-code hub backup run"]),
        (["drill"], ["exec -T dagster-code hub backup drill"]),
        (["doctor"], ["exec -T dagster-code hub doctor"]),
        (["restore"], ["exec -T dagster-code hub restore --backup latest"]),
        (["restore", "BACKUP=20260305T023000Z"], ["exec -T dagster-code hub restore --backup 20260305T023000Z"]),
        (["backfill", "FROM=2026-01-01", "TO=2026-01-31"], ["exec -T dagster-code hub backfill 2026-01-01 2026-01-31"]),
    ],
    ids=" ".join,
)
def test_daily_commands_run_in_the_stack_once_it_is_set_up(clone: Clone, command: list[str], calls: list[str]) -> None:
    clone.make("init")
    clone.make(*command)
    assert clone.calls() == [f"{COMPOSE} {call}".rstrip() for call in calls]


def test_without_a_stack_they_run_on_this_machine(clone: Clone) -> None:
    for name in ("requirements.lock", "pyproject.toml"):
        (clone.folder / name).touch()
    assert ".venv/bin/hub doctor" in clone.make("--dry-run", "doctor")


def test_upgrade_takes_a_backup_first(clone: Clone) -> None:
    clone.make("init")
    clone.make("upgrade")
    calls = clone.calls()
    assert calls[:2] == [f"{COMPOSE} exec -T dagster-code hub backup run", f"{COMPOSE} pull --ignore-buildable --quiet"]
    assert calls[-1].startswith(f"{COMPOSE} up --detach --wait")


def test_smoke_gives_the_password_where_no_process_list_shows_it(clone: Clone) -> None:
    clone.make("init")
    clone.make("smoke")
    password = re.findall(r"GF_SECURITY_ADMIN_PASSWORD=(.*)", (clone.folder / ".env").read_text())
    assert (clone.folder / "password").read_text() == password[0]
    assert clone.calls() == [f"{COMPOSE} exec -T dagster-code hub smoke"]


def test_the_secrets_are_for_their_owner_only(clone: Clone) -> None:
    clone.make("init")
    assert stat.S_IMODE((clone.folder / ".env").stat().st_mode) == 0o600
