"""Which keys of a Compose file give containers power over the host, and how each is named."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.gitops import powers
from hub.gitops.repo import Entry
from tests.support.gitops import REPOSITORY

COMPOSE = (
    shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
)
CLONE = Path("/srv/clone")
TRACKED = [Entry("100644", "0" * 40, path) for path in ("compose/compose.yaml", "compose/loki/loki.yaml", "Dockerfile")]
PLACE = powers.Place(Path("/stage/tree"), CLONE, TRACKED, own=(Path("/var/lib/agent/prod.secrets"),))


def taken(body: dict[str, Any], **top: Any) -> list[str]:
    raw = {"name": "hub", "services": {"a": body}, **top}
    return list(powers.needed(raw, {}, PLACE))


def bind(source: str, **more: Any) -> dict[str, Any]:
    return {"volumes": [{"type": "bind", "source": source, "target": "/x", **more}]}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"privileged": True}, "privileged"),
        ({"network_mode": "host"}, "network_mode host"),
        ({"network_mode": "container:other"}, "network_mode container:other"),
        ({"pid": "host"}, "pid host"),
        ({"ipc": "container:x"}, "ipc container:x"),
        ({"uts": "host"}, "uts host"),
        ({"userns_mode": "host"}, "userns_mode host"),
        ({"cgroup": "host"}, "cgroup host"),
        ({"cgroup_parent": "/system.slice"}, "cgroup_parent /system.slice"),
        ({"cap_add": ["SYS_ADMIN"]}, "cap_add SYS_ADMIN"),
        ({"cap_add": ["cap_sys_admin"]}, "cap_add SYS_ADMIN"),
        ({"devices": [{"source": "/dev/sda", "target": "/dev/sda"}]}, "device /dev/sda"),
        ({"device_cgroup_rules": ["a *:* rwm"]}, 'device_cgroup_rules ["a *:* rwm"]'),
        ({"gpus": [{"count": -1}]}, 'gpus [{"count": -1}]'),
        ({"deploy": {"resources": {"reservations": {"devices": [{"driver": "x"}]}}}}, 'devices [{"driver": "x"}]'),
        ({"security_opt": ["seccomp:unconfined"]}, "security_opt seccomp:unconfined"),
        ({"security_opt": ["no-new-privileges:false"]}, "security_opt no-new-privileges:false"),
        ({"sysctls": {"kernel.msgmax": "1"}}, 'sysctls {"kernel.msgmax": "1"}'),
        ({"runtime": "sysbox"}, "runtime sysbox"),
        ({"use_api_socket": True}, "use_api_socket true"),
        ({"provider": {"type": "./evil"}}, 'provider {"type": "./evil"}'),
        ({"post_start": [{"command": ["id"], "privileged": True}]}, "privileged post_start"),
        ({"pre_stop": [{"command": ["id"], "privileged": True}]}, "privileged pre_stop"),
        ({"oom_score_adj": -999}, "oom_score_adj -999"),
        ({"oom_kill_disable": True}, "oom_kill_disable true"),
        ({"volumes_from": ["container:other"]}, 'volumes_from ["container:other"]'),
        ({"external_links": ["other"]}, 'external_links ["other"]'),
        ({"logging": {"driver": "syslog"}}, "logging syslog"),
        ({"what_compose_learns_tomorrow": True}, "what_compose_learns_tomorrow true"),
        (bind("/"), "mount /"),
        (bind("/", read_only=True), "mount /:ro"),
        (bind("/", read_only=True, bind={"propagation": "rshared"}), "mount /:ro:shared"),
        (bind("/var/run/docker.sock"), "mount /var/run/docker.sock"),
        (bind("/srv/clone"), "mount ./"),
        (bind("/stage/tree/.git", read_only=True), "mount ./.git:ro"),
        (bind("/stage/tree/.GIT/hooks", read_only=True), "mount ./.GIT/hooks:ro"),
        (bind("/stage/tree/compose/loki"), "mount ./compose/loki"),
        (bind("/srv/clone2"), "mount /srv/clone2"),
        (bind("/var/lib/agent/other.secrets/KEY", read_only=True), "mount /var/lib/agent/other.secrets/KEY:ro"),
        (bind("/x\n    evil: privileged"), "mount /x\\n    evil: privileged"),
        (bind("/x "), 'mount "/x "'),
        ({"volumes": [{"type": "image", "source": "evil:1", "target": "/x"}]}, "image evil"),
        ({"volumes": [{"type": "npipe", "source": "p"}]}, 'mount {"source": "p", "type": "npipe"}'),
        ({"image": "registry:5000/team/tool:1.2@sha256:" + "0" * 64}, "image registry:5000/team/tool"),
        ({"build": "https://example.org/x.git#main"}, "build https://example.org/x.git#main"),
        ({"build": {"context": "git@example.org:x.git"}}, "build git@example.org:x.git"),
        ({"build": {"context": "/etc"}}, "build /etc"),
        ({"build": {"context": "/stage/tree", "dockerfile": "../../etc/passwd"}}, "build /etc/passwd"),
        ({"build": {"context": "/stage/tree", "dockerfile": "/etc/passwd"}}, "build /etc/passwd"),
        ({"build": {"context": "/stage/tree", "additional_contexts": {"x": "/root"}}}, "build /root"),
        ({"build": {"context": "/stage/tree", "additional_contexts": {"x": "docker-image://evil:1"}}}, "image evil"),
        ({"build": {"context": "/stage/tree", "network": "host"}}, "build network host"),
        ({"build": {"context": "/stage/tree", "privileged": True}}, "build privileged true"),
        ({"build": {"context": "/stage/tree", "entitlements": ["security.insecure"]}}, 'build entitlements ["security.insecure"]'),
        ({"build": {"context": "/stage/tree", "ssh": ["default"]}}, 'build ssh ["default"]'),
        ({"build": {"context": "/stage/tree", "cache_to": ["type=local,dest=/etc"]}}, 'build cache_to ["type=local,dest=/etc"]'),
    ],
)  # fmt: skip
def test_a_power_is_named(body: dict[str, Any], named: str) -> None:
    assert taken(body) == [f"a: {named}"]


@pytest.mark.parametrize(
    "body",
    [
        {"build": {"context": "/stage/tree", "dockerfile": "compose/Dockerfile", "args": {"A": "b"}, "target": "x"}},
        {"build": {"context": "/stage/tree", "network": "none", "additional_contexts": {"x": "service:b"}}},
        {"x-anything": {"privileged": True}, "build": {"context": "/stage/tree", "x-a": 1}},
        {"privileged": False, "pid": "", "cap_add": [], "devices": None},
        {"network_mode": "none", "ipc": "shareable", "cgroup": "private", "pid": "service:b"},
        {"security_opt": ["no-new-privileges:true"], "cap_drop": ["ALL"], "read_only": True, "user": "0:0"},
        bind("/stage/tree/compose/loki", read_only=True),
        bind("/stage/tree/backups"),
        bind("/srv/clone/.secrets/KEY", read_only=True),
        bind("/var/lib/agent/prod.secrets/KEY", read_only=True),
        {"volumes": [{"type": "volume", "source": "v", "target": "/x"}, {"type": "tmpfs", "target": "/y"}]},
        {"deploy": {"replicas": 2, "resources": {"reservations": {"memory": "1"}}}, "logging": {"driver": "local"}},
        {"post_start": [{"command": ["id"]}], "oom_score_adj": 500, "volumes_from": ["b:ro"]},
    ],
)
def test_what_is_none_is_not_named(body: dict[str, Any]) -> None:
    assert taken(body) == []


@pytest.mark.parametrize(
    ("top", "body", "named"),
    [
        ({"volumes": {"v": {"name": "hub_v", "driver_opts": {"type": "none", "o": "bind", "device": "/"}}}}, {},
         '*: volume hub_v {"device": "/", "o": "bind", "type": "none"}'),
        ({"volumes": {"v": {"name": "hub_v", "driver": "sshfs"}}}, {}, "*: volume hub_v driver sshfs"),
        ({"volumes": {"v": {"name": "other_data", "external": True}}}, {}, "*: volume other_data"),
        ({"volumes": {"v": {"name": "other_data"}}}, {}, "*: volume other_data"),
        ({"networks": {"n": {"name": "other_default", "external": True}}}, {"networks": {"n": None}}, "a: network other_default"),
        ({"networks": {"n": {"name": "hub_n", "driver": "macvlan"}}}, {"networks": {"n": None}}, "a: network hub_n"),
        ({"secrets": {"s": {"file": "/etc/shadow"}}}, {"secrets": [{"source": "s"}]}, "a: mount /etc/shadow:ro"),
        ({"configs": {"s": {"file": "/etc/shadow"}}}, {"configs": [{"source": "s"}]}, "a: mount /etc/shadow:ro"),
        ({"secrets": {"s": {"file": "/etc/shadow"}}}, {"build": {"context": "/stage/tree", "secrets": [{"source": "s"}]}},
         "a: mount /etc/shadow:ro"),
    ],
)  # fmt: skip
def test_a_power_that_is_defined_elsewhere_is_named(top: dict[str, Any], body: dict[str, Any], named: str) -> None:
    assert taken(body, **top) == [named]


def test_images_that_a_sibling_builds_are_not_foreign() -> None:
    services = {
        "a": {"image": "own:1", "build": {"context": "/stage/tree"}},
        "b": {"image": "own:1"},
        "c": {"image": "hub-d"},
        "d": {"build": {"context": "/stage/tree"}},
    }
    assert powers.needed({"name": "hub", "services": services}, {}, PLACE) == ()


def test_env_files_that_compose_would_read() -> None:
    """Also those of the repository: `${L:-/../usr/lib/}../../etc/shadow` is `usr/lib/etc/shadow` to who does not fill in variables."""
    files = {"a": ["/etc/shadow", "/stage/tree/compose/.env", "/srv/clone/x", "/stage/other"]}
    assert powers.needed({"name": "hub", "services": {"a": {}}}, files, PLACE) == (
        "a: env_file /etc/shadow",
        "a: env_file /stage/other",
        "a: env_file compose/.env",
        "a: env_file x",
    )


def test_a_link_of_the_clones_owner_is_what_it_leads_to(tmp_path: Path) -> None:
    clone, tree, outside = (tmp_path / name for name in ("clone", "tree", "outside"))
    for folder in (clone, tree, outside):
        folder.mkdir()
    (clone / "data").symlink_to(outside)
    place = powers.Place(tree, clone, [])
    raw = {"name": "hub", "services": {"a": bind(f"{tree}/data"), "b": {"build": {"context": f"{tree}/data"}}}}
    assert powers.needed(raw, {}, place) == (f"a: mount {outside}", f"b: build {tree}/data")


def test_two_values_never_look_the_same() -> None:
    values = ["/x", "/x ", '"/x "', "/x\n", "/x\\n", "x" * 400, "x" * 401, "\udc85", "\x85", "\\x85", "\\u0085", ""]
    named = [powers._value(value) for value in values]
    assert len(set(named)) == len(values)
    assert all(text == text.strip() and text.isprintable() and len(text) < 400 for text in named)


def example() -> set[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / "deploy/gitops/deployment.ini.example")
    return {line.strip() for line in parser["powers"]["allow"].splitlines() if line.strip()}


def as_compose_prints_it(text: str) -> dict[str, Any]:
    """The parts of our Compose file that powers are read from, in Compose's long form; `.env` has BACKUP_DIR alone."""
    directory = str(REPOSITORY / "compose")
    values = re.sub(
        r"\$\{(\w+)(?::?[-?+]([^{}]*))?\}", lambda m: {"BACKUP_DIR": "/srv/backups"}.get(m[1], m[2] or ""), text
    )
    raw: dict[str, Any] = {k: v for k, v in yaml.safe_load(values).items() if not k.startswith("x-")}
    for name, secret in raw.get("secrets", {}).items():
        raw["secrets"][name] = {**secret, "file": os.path.normpath(os.path.join(directory, secret["file"]))}
    for volume, body in raw["volumes"].items():
        raw["volumes"][volume] = {"name": volume, **body}
    for body in raw["services"].values():
        body["volumes"] = [long(volume, directory, raw["volumes"]) for volume in body.get("volumes", [])]
        if "build" in body:
            body["build"]["context"] = os.path.normpath(os.path.join(directory, body["build"]["context"]))
    return raw


def long(volume: str, directory: str, known: dict[str, Any]) -> dict[str, Any]:
    source, _, *mode = volume.split(":")
    if source in known:
        return {"type": "volume", "source": source}
    place = os.path.normpath(os.path.join(directory, source))
    return {"type": "bind", "source": place, "read_only": "ro" in ",".join(mode).split(",")}


def of_our_stack(raw: dict[str, Any]) -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    entries = [Entry("100644", "", path) for path in listed.stdout.splitlines()]
    return set(powers.needed(raw, {}, powers.Place(REPOSITORY, REPOSITORY, entries)))


def test_the_example_allows_what_our_stack_takes_and_nothing_else() -> None:
    assert example() == of_our_stack(as_compose_prints_it((REPOSITORY / "compose/compose.yaml").read_text()))


@pytest.mark.skipif(not COMPOSE, reason="docker compose is not here")
def test_and_so_says_compose_itself(tmp_path: Path) -> None:
    text = (REPOSITORY / "compose/compose.yaml").read_text()
    demanded = set(re.findall(r"\$\{(\w+):\?", text))
    env = tmp_path / "env"
    env.write_text("".join(f"{name}=x\n" for name in demanded) + "BACKUP_DIR=/srv/backups\n")
    profiles = sorted({p for body in yaml.safe_load(text)["services"].values() for p in body.get("profiles", [])})
    command = ["docker", "compose", "--env-file", str(env), "-f", "compose/compose.yaml"]
    command += [word for profile in profiles for word in ("--profile", profile)]
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "DOCKER_CONFIG")}
    done = subprocess.run(
        [*command, "config", "--format", "json"], cwd=REPOSITORY, env=clean, check=True, capture_output=True
    )
    assert example() == of_our_stack(json.loads(done.stdout))
