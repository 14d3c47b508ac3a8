"""What the agent says: true after anything that can happen, on one line whoever wrote the words, and told to somebody."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gitops import World, broken, deployed_world, refused, settled, untouched, wait_until

HOSTILE = 'x"} 1\nreading_hub_gitops_in_step{name="prod"} 1\n\x1b[31m\u202e\u2028 level=info \udcff\x85' + "y" * 5000


@pytest.fixture
def world() -> World:
    return deployed_world()


@pytest.fixture
def told(world: World) -> Path:
    """What the notification command has been given so far."""
    file = world.root / "told"
    file.touch()
    script = world.bin / "tell"
    script.write_text(f'#!/bin/sh\n{{ printf "SUBJECT %s\\n" "$GITOPS_SUBJECT"; cat; }} >> {file}\n')
    script.chmod(0o755)
    world.configure(notify={"command": script})
    return file


class TestWhatRuns:
    """The metrics and the status say what the containers are, not what was meant."""

    @pytest.mark.parametrize("change", ["image_id", "image", "hash", "status", "twin"])
    def test_another_container_than_was_deployed(self, world: World, change: str) -> None:
        world.deploy()
        if change == "twin":  # a second replica, up and well, of an image that nobody deployed
            world.change_containers(
                lambda c: c.update(twin={**c["web"], "id": "e" * 24, "as": "web", "image_id": "sha256:evil"})
            )
        else:
            value = "exited" if change == "status" else "evil"
            world.change_containers(lambda c: c["web"].update({change: value, "exit_code": 1}))
        assert not world.status()["in_step"]
        ran = world.run()
        assert "not in step" in ran.err
        assert world.metric("in_step") == 0
        found = world.status()
        assert not found["in_step"]
        assert "web" in found["problems"][0]

    def test_a_tag_that_was_moved_changes_nothing_that_runs(self, world: World) -> None:
        world.deploy()
        data = json.loads((world.root / "docker.json").read_text())
        data["images"]["web:1"] = "sha256:other"
        (world.root / "docker.json").write_text(json.dumps(data))
        world.deploy()
        assert world.assert_status_is_true()["in_step"]

    def test_a_state_of_the_agent_before_learns_which_images_run(self, world: World) -> None:
        old = world.state
        for service in old["deployed"].values():
            del service["image_id"]
        (world.state_dir / "prod.json").write_text(json.dumps(old))
        world.deploy()
        assert world.assert_status_is_true()["in_step"]
        assert all(service["image_id"] for service in world.state["deployed"].values())

    def test_after_falling_back(self, world: World) -> None:
        world.release(2, web=broken(2, "bad"))
        assert "result=rolled_back" in world.run().err
        for _ in range(2):
            found = world.assert_status_is_true()
            assert not found["in_step"]
            assert world.metric("in_step") == 0
            world.assert_whole(1)
            world.run()
        world.release(3)
        world.deploy()
        settled(world, 3)

    def test_after_being_killed(self, world: World) -> None:
        world.deploy()
        assert world.metric("in_step") == 1
        world.run_and_kill_at("fetch")
        assert world.metric("in_step") == 0
        assert not world.assert_status_is_true()["in_step"]
        world.deploy()
        assert world.metric("in_step") == 1

    def test_with_docker_away(self, world: World) -> None:
        world.fault({"match": "ps", "when": "before", "do": "fail", "times": 9})
        assert world.run().code == 75
        assert world.metric("in_step") == 0


class TestState:
    """A memory that cannot be read, trusted or written is told, and nothing is claimed on its word."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "[" * 100_000,
            "\x00",
            '{"version": 1, "deployed": []}',
            '{"version": 1, "deployed": {"web": 1}}',
            '{"version": 1, "bad": {"x": {}}}',
            '{"version": 1, "in_flight": {"services": 1}}',
            '{"version": 1, "last": 5}',
        ],
    )
    def test_one_that_makes_no_sense(self, world: World, told: Path, text: str) -> None:
        (world.state_dir / "prod.json").write_text(text)
        refused(world, "state", 2)
        refused(world, "state", 2)
        assert world.metric("in_step") == 0
        assert not world.status()["in_step"]
        assert told.read_text().count("SUBJECT") == 1

    @pytest.mark.parametrize("name", ["prod.json", "."])
    def test_one_that_others_can_write(self, world: World, name: str) -> None:
        place = world.state_dir / name
        place.chmod(place.stat().st_mode | stat.S_IWOTH)
        world.release(2)
        refused(world, "writable", 2)
        world.assert_whole(1)
        assert not world.status()["in_step"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    @pytest.mark.parametrize("name", ["prod.json", "."])
    def test_one_of_somebody_else(self, world: World, name: str) -> None:
        os.chown(world.state_dir / name, 12345, 12345)
        world.release(2)
        refused(world, "owner", 2)
        world.assert_whole(1)

    def test_one_that_cannot_be_written(self, world: World, told: Path) -> None:
        """Something that is not a file lies where the new state is written."""
        world.deploy()
        (world.state_dir / ".prod.json.tmp").mkdir()
        world.release(2)
        assert "kind=disk" in world.run().err
        assert world.metric("in_step") == 0
        assert "failed" in told.read_text()
        untouched(world)
        (world.state_dir / ".prod.json.tmp").rmdir()
        world.deploy()
        settled(world, 2)

    @pytest.mark.parametrize("where", ["state_dir", "metrics"])
    def test_a_pipe_where_a_file_shall_be_does_not_hold_it(self, world: World, where: str) -> None:
        os.mkfifo(world.state_dir / ".prod.json.tmp" if where == "state_dir" else world.root / ".hub.prom.tmp")
        world.deploy()
        assert world.assert_status_is_true()["in_step"]


class TestWordsOfOthers:
    """Newlines, control characters, bytes that are no UTF-8, endless ones: all told, on one line, and none ends the run."""

    @staticmethod
    def assert_shapes_nothing(world: World, *texts: str) -> None:
        for text in (*texts, (world.root / "hub.prom").read_text()):
            assert not set(text) & {"\x1b", "\u202e", "\u2028", "\x85", "\r"}
            assert max(map(len, text.splitlines() or [""])) < 5000
        assert world.metric("in_step") == 0
        logged = [line for line in texts[0].splitlines() if line]
        assert all(line.startswith("ts=") and " agent=gitops name=prod " in line for line in logged), logged

    def run(self, world: World, told: Path, code: int) -> str:
        """In a process of its own, since its streams are the real ones."""
        ran = world.run(cwd=Path(__file__).resolve().parents[2])
        assert ran.code == code, ran.err
        self.assert_shapes_nothing(world, ran.out + ran.err, told.read_text())
        lines = told.read_text().split("SUBJECT ")
        assert all(len(part.splitlines()) == 4 for part in lines[1:]), lines
        printed = world.run("status", cwd=Path(__file__).resolve().parents[2])
        self.assert_shapes_nothing(world, "", printed.out)
        assert not [line for line in printed.out.splitlines() if line.startswith("reading_hub")]
        json.loads(world.run("status", "--json").out)
        return ran.err

    def test_of_docker(self, world: World, told: Path) -> None:
        world.release(2)
        world.fault(
            {"match": "compose up", "when": "before", "do": "fail", "message": HOSTILE.replace("\udcff", "\ufffd")}
        )
        assert "rolled_back" in self.run(world, told, 1)
        assert "reading_hub_gitops_in_step" in told.read_text()

    @pytest.mark.parametrize("name", [b"a\nlevel=error x", b"\xff\xfe\x1b[2J", b"z" * 200 + b"\xe2\x80\xae"])
    def test_of_a_path_that_is_in_the_way(self, world: World, told: Path, name: bytes) -> None:
        for root in (world.clone, world.author):
            (root / os.fsdecode(name)).write_text(str(root))
        world.release(2)
        assert "kind=in_the_way" in self.run(world, told, 3)

    def test_of_a_path_that_was_changed_by_hand(self, world: World, told: Path) -> None:
        world.write({os.fsdecode(b"a\n\xff\x1b[2J"): "theirs"})
        world.release(2)
        world.deploy()
        (world.clone / os.fsdecode(b"a\n\xff\x1b[2J")).write_text("mine")
        assert "kind=dirty" in self.run(world, told, 3)

    def test_of_a_commit_and_a_link(self, world: World, told: Path) -> None:
        (world.author / "link").symlink_to(os.fsdecode(b"/etc/\n\xff\x1b[2J"))
        world.write({"README.md": "x"})
        world.git("add", "--all")
        world.git(
            "-c", "i18n.commitEncoding=latin1", "commit", "--quiet", "-m", HOSTILE.replace("\udcff", "\xff")[:300]
        )
        world.git("push", "--quiet", "origin", "main")
        assert "kind=symlink" in self.run(world, told, 3)

    def test_in_a_locale_that_has_none_of_these_letters(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LC_ALL", "POSIX")
        monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
        (world.clone / "é\udcff").write_text("mine")
        (world.author / "é\udcff").write_text("theirs")
        world.release(2)
        assert "kind=in_the_way" in world.run(cwd=Path(__file__).resolve().parents[2]).err


class TestTold:
    """Every end that a person has to know of is told, once."""

    def test_being_postponed_for_long(self, world: World, told: Path) -> None:
        world.remote.rename(world.root / "away")
        refused(world, "fetch", 75)
        assert told.read_text() == ""
        self.long_ago(world)
        for _ in range(3):
            refused(world, "fetch", 75)
        assert told.read_text().count("SUBJECT Deployment of prod postponed since 20") == 1
        assert "cannot fetch" in told.read_text()
        (world.root / "away").rename(world.remote)
        world.deploy()
        world.remote.rename(world.root / "away")
        refused(world, "fetch", 75)
        assert told.read_text().count("SUBJECT") == 1  # that is a new wait

    @staticmethod
    def long_ago(world: World) -> None:
        place = world.state_dir / "prod.told"
        before = json.loads(place.read_text())
        assert before["postponed_since"] > 0
        place.write_text(json.dumps({**before, "postponed_since": before["postponed_since"] - 7200}))

    @pytest.mark.parametrize("kind", ["disk", "docker", "drain", "busy"])
    def test_whatever_it_waits_for(self, world: World, told: Path, kind: str) -> None:
        world.configure(notify={"postponed_after": 0})
        world.release(2)
        holder = None
        if kind == "disk":
            world.configure(repository={"min_free_mb": 1 << 40 >> 20 << 9})
        elif kind == "docker":
            world.fault({"match": "ps", "when": "before", "do": "fail", "times": 9})
        elif kind == "drain":
            world.configure(dagster={"url": "http://127.0.0.1:1", "services": "code"})
        else:
            command = ["flock", "-x", str(world.state_dir / "prod.lock"), "sh", "-c", "echo; read x"]
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert holder.stdout is not None
            holder.stdout.read(1)
        for _ in range(2):
            refused(world, kind, 75)
        assert told.read_text().count("SUBJECT Deployment of prod postponed") == 1, told.read_text()
        if holder is not None:
            holder.communicate(b"\n")

    def test_runs_that_are_all_killed(self, world: World, told: Path) -> None:
        """As by the unit's limits of memory and time: none of them comes to the point where it would tell."""
        world.release(2)
        for _ in range(2):
            world.run_and_kill_at("stage")
        assert told.read_text() == ""
        self.long_ago(world)
        for _ in range(2):
            world.run_and_kill_at("stage")
        assert told.read_text().count("SUBJECT Deployment of prod postponed since 20") == 1
        assert "cut short, the last one at step stage" in told.read_text()
        world.deploy()
        settled(world, 2)

    def test_two_failures_that_take_turns_are_told_once_each(self, world: World, told: Path) -> None:
        world.release(2)
        for _ in range(2):
            (world.clone / "README.md").write_text("mine\n")
            refused(world, "dirty")
            world.git("restore", "README.md", cwd=world.clone)
            (world.clone / ".git/MERGE_HEAD").write_text(world.head + "\n")
            refused(world, "dirty")
            (world.clone / ".git/MERGE_HEAD").unlink()
            world.git("remote", "set-url", "origin", "/elsewhere", cwd=world.clone)
            refused(world, "remote")
            world.git("remote", "set-url", "origin", str(world.remote), cwd=world.clone)
        assert told.read_text().count("SUBJECT") == 2


class Dripping:
    """A server that takes a connection and sends one byte after the other, for ever."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while not self.closed.is_set():
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.drip, args=(connection,), daemon=True).start()

    def drip(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(self.first)
                while not self.closed.wait(0.05):
                    connection.sendall(b" ")
            except OSError:
                return

    def close(self) -> None:
        self.closed.set()
        self.listening.close()


class TestWholeCalls:
    @pytest.fixture(params=[b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n"])
    def dripping(self, request: pytest.FixtureRequest) -> Iterator[Dripping]:
        server = Dripping(request.param)
        yield server
        server.close()

    def test_a_dagster_that_drips_its_answer_holds_nobody(
        self, world: World, dripping: Dripping, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each byte is another sign of life: no limit of a socket's own would ever pass."""
        monkeypatch.setattr("hub.gitops.dagster.TIMEOUT", 0.5)
        world.configure(dagster={"url": dripping.url, "services": "code"})
        world.release(2)
        assert "gave no whole answer" in refused(world, "drain", 75)
        untouched(world)

    @pytest.mark.parametrize(
        "answer",
        [
            b"\xff" * 100,
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[",
            b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000,
            b'HTTP/1.1 200 OK\r\n\r\n{"data": {"runsOrError": []}}',
            b'HTTP/1.1 200 OK\r\n\r\n{"data": {"runsOrError": {"__typename": "Runs", "results": [5]}}}',
            b'HTTP/1.1 200 OK\r\n\r\n{"data": {"runsOrError": {"__typename": "Runs", "results": null}}}',
            b'HTTP/1.1 200 OK\r\n\r\n{"data": {"runsOrError": {"__typename": "P\\ud800\\n", "message": "\\u001b[2J"}}}',
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        ],
    )
    def test_any_answer_of_dagster_is_told(self, world: World, answer: bytes) -> None:
        server = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        world.configure(dagster={"url": f"http://127.0.0.1:{server.getsockname()[1]}", "services": "code"})
        world.release(2)
        assert "\x1b" not in refused(world, "drain", 75)
        thread.join()
        server.close()

    def test_a_child_that_leaves_its_pipes_to_others(self, world: World) -> None:
        """The command ends at once; what it started lives on in a group of its own and holds the pipes."""
        mark = world.root / "grandchild"
        script = world.bin / "tell"
        script.write_text(f"#!/bin/sh\nsetsid sh -c 'echo $$ > {mark}; exec sleep 600' &\n")
        script.chmod(0o755)
        world.configure(notify={"command": script, "timeout": 300})
        world.release(2)
        (world.clone / "README.md").write_text("mine\n")
        assert "cannot notify" not in refused(world, "dirty")
        wait_until(lambda: mark.exists() and mark.read_text().strip() != "", "the grandchild")
        os.kill(int(mark.read_text()), 9)

    def test_one_that_takes_too_long_and_left_its_group(self, world: World) -> None:
        mark = world.root / "grandchild"
        script = world.bin / "tell"
        script.write_text(f"#!/bin/sh\nsetsid sh -c 'echo $$ > {mark}; exec sleep 600' &\nexec sleep 600\n")
        script.chmod(0o755)
        world.configure(notify={"command": script, "timeout": 1})
        (world.clone / "README.md").write_text("mine\n")
        assert "ran longer than 1 s" in refused(world, "dirty")
        wait_until(lambda: mark.exists() and mark.read_text().strip() != "", "the grandchild")
        os.kill(int(mark.read_text()), 9)


class TestLinksAndOwners:
    """What root reads lies in the repository, or in files that nobody else can have written."""

    @pytest.mark.parametrize(
        ("name", "target"),
        [
            ("compose/compose.yaml", "{pipe}"),
            ("compose/.env", "{pipe}"),
            (".env", "{pipe}"),
            ("compose/grafana/link", "../../../outside"),
            ("compose/grafana/link", "/"),
            ("link", "."),
            ("a/b/link", "../../.git/config"),
            ("a/link", "../.GIT/config"),
            ("chain", "first/../../../etc"),
            ("loop", "loop/../../outside"),
        ],
    )
    def test_a_link_out_of_the_repository_is_refused_unopened(self, world: World, name: str, target: str) -> None:
        """Whoever opened the pipe would wait for ever."""
        pipe = world.root / "pipe"
        os.mkfifo(pipe)
        world.release(2)
        place = world.author / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target.format(pipe=pipe))
        if name == "chain":
            (world.author / "deep/er").mkdir(parents=True)
            (world.author / "deep/er/file").write_text("x")
            (world.author / "first").symlink_to("deep/er")
            place.unlink()
            place.symlink_to("first/../../../etc")
        world.git("add", "--all", "--force")
        world.push("link")
        if target == ".":
            world.deploy()
            return
        refused(world, "symlink")
        untouched(world)

    def test_links_within_it_are_deployed(self, world: World) -> None:
        world.release(2)
        (world.author / "deep/er").mkdir(parents=True)
        (world.author / "deep/er/up").symlink_to("../../README.md")
        (world.author / "other").symlink_to("deep/er")
        (world.author / "other2").symlink_to("other/up")
        (world.author / "compose/.env").symlink_to("../.env")
        (world.clone / ".env").write_text("A=b\n")
        world.git("add", "--all", "--force")
        world.push("links")
        world.deploy()
        world.assert_whole(2)

    @pytest.mark.parametrize("name", ["compose/.env", ".env", ".git/config", "compose/extra.env"])
    @pytest.mark.parametrize("way", ["writable", "owner"])
    def test_an_env_file_that_others_can_have_written(self, world: World, name: str, way: str) -> None:
        if way == "owner" and os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        place = world.clone / name
        if not place.exists():
            place.write_text("A=b\n")
        if name == ".env":
            world.configure(compose={"env_file": ".env"})
        if way == "owner":
            os.chown(place, 12345, 12345)
        else:
            place.chmod(0o666)
        world.release(2)
        refused(world, way, 2)
        world.assert_whole(1)
        assert not world.calls("compose up")
