"""A small world for the GitOps agent's tests: a remote, an author, a clone, and a stand-in `docker`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hub.gitops.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = Path(__file__).with_name("gitops_docker.py")
GIT = shutil.which("git") or "git"
PYTHON = os.path.realpath(sys.executable)
AGENT = [PYTHON, "-S", "-E", "-B", "-m", "hub.gitops"]  # -S: no site-packages, only the standard library

POWERS = """
    db: image timescale
    web: image web
    grafana: image grafana
    migrate: image web
    extra: image web
    *: volume postgres_data"""
MINE = "my own notes\n"
_AUTHOR: dict[str, str] = {
    "GIT_AUTHOR_NAME": "Author",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "Author",
    "GIT_COMMITTER_EMAIL": "author@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_OPTIONAL_LOCKS": "0",
}

# `middle`: the kernel kills git (SIGXFSZ) as a file that it writes grows beyond 200 blocks of 512 bytes.
# `fail`: as git ends when it could write one new file and not the next.
TORN_AT = 200 * 512
_GIT_WRAPPER = """#!/bin/sh
case "$*" in *'{match}'*) ;; *) exec {git} "$@" ;; esac
rm -f "$0"
case {when} in
before) kill -9 $PPID; exit 137 ;;
middle) (ulimit -c 0; ulimit -f 200; exec {git} "$@") ;;
after) {git} "$@" ;;
fail)
    for commit; do :; done
    {git} show "$commit:aaa" > aaa
    echo "error: unable to write file" >&2
    exit 128 ;;
esac
kill -9 $PPID
"""


@dataclass
class Ran:
    """How one run of the agent ended."""

    code: int
    out: str
    err: str

    @property
    def steps(self) -> list[str]:
        """The steps that it took, in order."""
        return [line.split(" step=")[1].split()[0] for line in self.out.splitlines() if " step=" in line]


def services(rev: int | str, **changes: Any) -> dict[str, Any]:
    """A Compose file of four services, most of which change with `rev`; None in `changes` removes one."""
    found: dict[str, Any] = {
        "db": {
            "image": "timescale:1",
            "environment": {"REV": "fixed"},
            "volumes": ["data:/var/lib/postgresql"],
        },
        "code": {"build": "..", "environment": {"REV": str(rev)}},
        "web": {"image": "web:1", "environment": {"REV": str(rev)}, "depends_on": {"db": {}}},
        "grafana": {
            "image": "grafana:1",
            "environment": {"REV": str(rev)},
            "volumes": ["./grafana:/etc/grafana:ro"],
        },
    }
    for name, change in changes.items():
        if change is None:
            del found[name]
        else:
            found[name] = {**found.get(name, {}), **change}
    return {"services": found}


def broken(rev: int, mode: str) -> dict[str, Any]:
    """A change of a service that makes it come up as the stand-in's `mode` has it."""
    return {"environment": {"REV": str(rev), "MODE": mode}}


def torn(rev: int) -> dict[str, str]:
    """Files of a commit at whose `middle.bin` git is killed by `kill_in_git(…, "middle")`: the last is not written."""
    return {"aaa/first": f"{rev}\n", "middle.bin": f"{rev}" * 200_000, "zz-last": f"{rev}\n"}


class World:
    """Everything that one test needs, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.remote = root / "remote.git"
        self.author = root / "author"
        self.clone = root / "host" / "clone"
        self.config_dir = root / "etc"
        self.state_dir = root / "state"
        self.bin = root / "bin"
        self.settings: dict[str, dict[str, str]] = {
            "repository": {
                "path": str(self.clone),
                "url": str(self.remote),
                "branch": "main",
                "min_free_mb": "0",
            },
            "compose": {"project": "hub", "files": "compose/compose.yaml"},
            "health": {"timeout": "0.2", "stable": "0", "interval": "0.01"},
            "metrics": {"file": str(root / "hub.prom")},
            "powers": {"allow": POWERS},
        }

    # -- making ----------------------------------------------------------------------------------------------

    def build(self) -> World:
        """Make the remote with one commit and a configuration; nothing is deployed."""
        for folder in (self.config_dir, self.state_dir, self.bin, self.clone.parent):
            folder.mkdir(parents=True, mode=0o755)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.remote), cwd=self.root)
        self.git("clone", "--quiet", str(self.remote), str(self.author), cwd=self.root)
        self.git("switch", "--quiet", "-c", "main", cwd=self.author)
        self.write(
            {
                "README.md": "one\n",
                "Dockerfile": "FROM scratch\n",
                ".dockerignore": "*\n!Dockerfile\n!src\n",
                "src/main.py": "print(1)\n",
                "compose/grafana/grafana.ini": "[one]\n",
                ".gitignore": ".env\nlocal/\n",
                "compose/compose.yaml": services(1),
            }
        )
        self.push("one")
        (self.bin / "docker").write_text(f'#!/bin/sh\nexec {PYTHON} -ISB {DOCKER} {self.root} "$@"\n')
        (self.bin / "docker").chmod(0o755)
        self.configure()
        return self

    def moved_to(self, root: Path) -> World:
        """A copy of this world elsewhere, which is much faster than to build it again."""
        shutil.copytree(self.root, root, symlinks=True)
        other = World(root)
        other.git("remote", "set-url", "origin", str(other.remote), cwd=other.author)
        if other.clone.exists():
            other.git("remote", "set-url", "origin", str(other.remote), cwd=other.clone)
        docker = (other.bin / "docker").read_text().replace(str(self.root), str(root))
        (other.bin / "docker").write_text(docker)
        other.configure()
        return other

    def configure(self, allow: str | None = None, **sections: dict[str, object]) -> None:
        """Write the configuration, with `sections` laid over what it is."""
        for section, keys in sections.items():
            self.settings.setdefault(section, {}).update({k: str(v) for k, v in keys.items()})
        lines = []
        for section, keys in self.settings.items():
            lines += [f"[{section}]", *(f"{k} = {v}" for k, v in keys.items())]
        (self.config_dir / "prod.ini").write_text("\n".join(lines) + "\n")
        repository = self.settings["repository"]
        granted = f"prod {repository['url']} {repository['branch']}\n" if allow is None else allow
        (self.config_dir / "allowlist").write_text(granted)
        for path in (self.config_dir, *self.config_dir.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def allow(self, *powers: str) -> None:
        """Add lines to [powers] allow."""
        self.configure(powers={"allow": "\n    ".join([self.settings["powers"]["allow"], *powers])})

    def git(self, *args: str, cwd: Path | None = None, check: bool = True) -> str:
        """Run the real git as the author."""
        done = subprocess.run(
            [GIT, *args],
            cwd=cwd or self.author,
            env={**os.environ, **_AUTHOR},
            check=False,
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
        if check and done.returncode:
            raise AssertionError(f"git {' '.join(args)}: {done.stderr}")
        return done.stdout.strip()

    def write(self, files: dict[str, Any]) -> None:
        """Put files into the author's tree; None removes one, an object becomes JSON."""
        for name, text in files.items():
            path = self.author / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if isinstance(text, str) else json.dumps(text, indent=1))

    def push(self, message: str, *options: str, force: bool = False) -> str:
        """Commit what the author has and push it; returns the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message, *options)
        self.git("push", "--quiet", *(["--force"] if force else []), "origin", "main")
        return self.git("rev-parse", "HEAD")

    def release(self, rev: int | str, files: dict[str, Any] | None = None, **changes: Any) -> str:
        """Push a commit in which every service but the database changes."""
        self.write(
            {
                "compose/compose.yaml": services(rev, **changes),
                "src/main.py": f"print({rev!r})\n",
                **(files or {}),
            }
        )
        return self.push(f"release {rev}")

    def fault(self, *faults: dict[str, object]) -> None:
        """Make the stand-in docker misbehave: match, when (before/middle/after), do, times, skip."""
        (self.root / "faults.json").write_text(json.dumps(faults))

    def kill_in_git(self, match: str, when: str) -> None:
        """Kill the agent (and with `middle` git too) at the first git command that contains `match`."""
        script = self.bin / "git"
        text = _GIT_WRAPPER.format(git=GIT, match=match, when=when)
        script.write_text(text)
        script.chmod(0o755)

    # -- acting ----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What the agent sees."""
        return {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(self.root),
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }

    def start(self, command: str = "sync", *args: str, cwd: Path = REPOSITORY) -> subprocess.Popen[str]:
        """Start the agent and return at once."""
        places = ["--config-dir", str(self.config_dir), "--state-dir", str(self.state_dir)]
        return subprocess.Popen(
            [*AGENT, command, "prod", *args, *places],
            cwd=cwd,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, command: str = "sync", *args: str, cwd: Path | None = None) -> Ran:
        """Run the agent to its end; in this process where nothing can kill it, which saves its start."""
        if cwd is None and not (self.root / "faults.json").exists() and not (self.bin / "git").exists():
            return self._run_here(command, *args)
        process = self.start(command, *args, cwd=cwd or REPOSITORY)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return Ran(process.returncode, out, err)

    def _run_here(self, command: str, *args: str) -> Ran:
        places = ["--config-dir", str(self.config_dir), "--state-dir", str(self.state_dir)]
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment(), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main([command, "prod", *args, *places])
        return Ran(code, out.getvalue(), err.getvalue())

    def run_and_kill_at(self, step: str) -> Ran:
        """Run the agent and kill -9 it when it announces `step`."""
        process = self.start()
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if f" step={step} " in line:
                process.send_signal(signal.SIGKILL)
                break
        out, err = process.communicate(timeout=300)
        return Ran(process.returncode, "".join(seen) + out, err)

    def deploy(self) -> Ran:
        """Sync, and insist that it went well."""
        ran = self.run()
        assert ran.code == 0, ran.out + ran.err
        return ran

    # -- looking ---------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """`status --json`; its exit code must say the same as its text."""
        ran = self.run("status", "--json")
        found: dict[str, Any] = json.loads(ran.out)
        assert ran.code == (0 if found["in_step"] else 1)
        return found

    @property
    def state(self) -> dict[str, Any]:
        """The agent's state file."""
        found: dict[str, Any] = json.loads((self.state_dir / "prod.json").read_text())
        return found

    @property
    def head(self) -> str:
        """The clone's commit."""
        return self.git("rev-parse", "HEAD", cwd=self.clone)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the stand-in runs."""
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.root / "docker.json").read_text())["containers"]
        except FileNotFoundError:
            return {}
        return found

    def change_containers(self, change: Callable[[dict[str, dict[str, Any]]], object]) -> None:
        """Act on the containers as a person would with docker."""
        path = self.root / "docker.json"
        data = json.loads(path.read_text())
        change(data["containers"])
        path.write_text(json.dumps(data))

    def user_stops(self, name: str, code: int = 0) -> None:
        """docker stop NAME."""
        self.change_containers(lambda c: c[name].update(status="exited", exit_code=code))

    def calls(self, prefix: str = "") -> list[str]:
        """The calls of docker so far that begin with `prefix`."""
        try:
            lines = (self.root / "calls.log").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.startswith(prefix)]

    def forget_calls(self) -> None:
        """Start the list of calls anew."""
        (self.root / "calls.log").unlink(missing_ok=True)

    def assert_whole(self, rev: int | str) -> None:
        """All services, the tree and the mounted files are at `rev`: nothing is half-deployed."""
        revs = {n: c["rev"] for n, c in self.containers().items() if n != "db"}
        assert set(revs.values()) == {str(rev)}, revs
        text = json.loads((self.clone / "compose/compose.yaml").read_text())
        assert text["services"]["code"]["environment"]["REV"] == str(rev)
        assert self.git("status", "--porcelain", "--untracked-files=no", cwd=self.clone) == ""
        if self.containers()["grafana"]["mode"] == "ok":
            ini = (self.clone / "compose/grafana/grafana.ini").read_text()
            assert self.containers()["grafana"]["mounted"]["grafana.ini"] == ini

    def metric(self, name: str) -> float:
        """A metric without labels of its own, as the last run left it."""
        text = (self.root / "hub.prom").read_text()
        return float(text.split(f'reading_hub_gitops_{name}{{name="prod"}} ')[1].split("\n")[0])

    def assert_status_is_true(self, *, changed_since: bool = False) -> dict[str, Any]:
        """What status says agrees with git, with the containers and with the state; returns it.

        So do the metrics, unless something has changed since the last run.
        """
        found = self.status()
        if not changed_since:
            assert self.metric("in_step") == found["in_step"], found["problems"]
            assert self.metric("in_flight") <= bool(found["in_flight"])
        if self.clone.exists() and found["commit"]["head"] is not None:
            assert found["commit"]["head"] == self.head
            dirty = self.git("status", "--porcelain", "--untracked-files=no", cwd=self.clone)
            assert bool(found["commit"]["dirty"]) == bool(dirty)
        for name, container in self.containers().items():
            assert found["services"][name]["state"].startswith(container["status"])
        if found["in_step"]:
            revs = {c["rev"] for n, c in self.containers().items() if n != "db" and not found["services"][n]["held"]}
            assert len(revs) <= 1, f"in step, yet {revs}"
            assert found["in_flight"] is None
            assert not found["problems"]
        else:
            assert found["problems"] or found["running"]
        return found


@functools.cache
def _base() -> Path:
    """A folder of this process's own, in memory if there is room: the agent syncs at every step."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    folder = Path(tempfile.mkdtemp(prefix="gitops-", dir=memory if roomy else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _template(deployed: bool) -> World:
    """One world for each process, to be copied; `deployed` has its first commit running."""
    root = _base() / f"template-{deployed}"
    if not deployed:
        root.mkdir()
        return World(root).build()
    world = _template(False).moved_to(root)
    world.deploy()
    world.forget_calls()
    return world


def _next() -> Path:
    """The place of the next test's world; that of the test before goes."""
    root = _base() / "world"
    shutil.rmtree(root, ignore_errors=True)
    return root


def fresh_world() -> World:
    """A remote with one commit, a configuration, and nothing deployed."""
    return _template(False).moved_to(_next())


def deployed_world() -> World:
    """The same with its first commit running."""
    return _template(True).moved_to(_next())


def unhealthy(world: World, rev: int = 2) -> str:
    """Release a commit whose web service never becomes healthy."""
    return world.release(rev, web=broken(rev, "bad"))


def settled(world: World, rev: int) -> None:
    """Wholly at `rev`, status true and in step, no user file lost, nothing left behind."""
    world.assert_whole(rev)
    found = world.assert_status_is_true()
    assert found["in_step"], found["problems"]
    notes = world.clone / "notes.txt"
    assert not notes.exists() or notes.read_text() == MINE
    assert not list((world.clone / ".git").rglob("*.lock"))
    assert not list(world.state_dir.glob("*.stage"))


def untouched(world: World, rev: int | str = 1) -> None:
    """The stack and the tree are what they were, and status does not claim to be in step."""
    world.assert_whole(rev)
    assert not world.calls("compose up")
    found = world.assert_status_is_true()
    assert not found["in_step"]
    assert found["in_flight"] is None


def refused(world: World, kind: str, code: int = 3) -> str:
    """Run the agent, insist that it ends with this kind and exit code, and return what it said."""
    ran = world.run()
    assert ran.code == code, ran.out + ran.err
    assert f"kind={kind}" in ran.err
    return ran.err


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.01)
