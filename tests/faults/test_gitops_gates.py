"""What a deployment waits for or leaves alone: stopped services, databases without a backup, Dagster runs."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.gitops import World, broken, deployed_world, refused


@pytest.fixture
def world() -> World:
    return deployed_world()


class TestStoppedOnPurpose:
    def test_it_stays_stopped_through_deployments(self, world: World) -> None:
        world.user_stops("grafana", 143)
        for rev in (2, 3):
            world.release(rev)
            assert "leave grafana" in world.deploy().out
            assert world.containers()["grafana"]["status"] == "exited"
        found = world.assert_status_is_true()
        assert found["in_step"]
        assert found["held"] == {"grafana": "stopped"}

    def test_started_again_it_is_brought_up_to_date(self, world: World) -> None:
        world.user_stops("grafana")
        world.release(2)
        world.deploy()
        world.change_containers(lambda c: c["grafana"].update(status="running"))
        world.deploy()
        world.assert_whole(2)
        found = world.assert_status_is_true()
        assert found["in_step"]
        assert found["held"] == {}

    def test_it_stays_stopped_when_the_commit_fails(self, world: World) -> None:
        world.user_stops("grafana")
        world.release(2, web=broken(2, "bad"))
        assert "result=rolled_back" in world.run().err
        assert world.containers()["grafana"]["status"] == "exited"

    def test_a_stack_put_down_stays_down(self, world: World) -> None:
        world.change_containers(lambda c: c.clear())
        world.release(2, extra={"image": "web:1", "environment": {"REV": "2"}})
        world.deploy()
        assert world.containers() == {}
        assert not world.calls("compose up")

    def test_one_stopped_since_the_last_look_is_reported(self, world: World) -> None:
        world.user_stops("web")
        found = world.assert_status_is_true(changed_since=True)
        assert not found["in_step"]
        assert found["problems"] == ["web is exited (0)"]

    def test_one_that_crashed_is_not_taken_for_stopped(self, world: World) -> None:
        world.user_stops("web", code=1)
        world.release(2)
        world.deploy()
        world.assert_whole(2)


class TestDatabaseImage:
    """Before data meets another server's binaries, a verified backup must exist."""

    CHANGED = {"image": "timescale:2", "environment": {"REV": "fixed"}}  # noqa: RUF012

    @pytest.fixture
    def world(self) -> World:
        world = deployed_world()
        self.backups(world, [])
        return world

    @staticmethod
    def backups(world: World, listed: object, code: int = 0) -> None:
        script = world.bin / "hub"
        script.write_text(f"#!/bin/sh\ncat <<'EOT'\n{json.dumps(listed)}\nEOT\nexit {code}\n")
        script.chmod(0o755)
        world.configure(database={"services": "db", "backup_command": "hub backup list --json --verified"})

    @staticmethod
    def at(hours_ago: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours_ago * 3600))

    @pytest.mark.parametrize("case", ["none", "old", "unverified", "command fails", "no JSON", "no command"])
    def test_without_one_it_is_refused(self, world: World, case: str) -> None:
        young = {"name": "b", "verified": True, "finished_at": self.at(1)}
        if case == "old":
            self.backups(world, [{**young, "finished_at": self.at(25)}])
        elif case == "unverified":
            self.backups(world, [{**young, "verified": False}])
        elif case == "command fails":
            self.backups(world, [young], code=1)
        elif case == "no JSON":
            (world.bin / "hub").write_text("#!/bin/sh\necho fine\n")
        elif case == "no command":
            (world.bin / "hub").unlink()
        world.release(2, db=self.CHANGED)
        ran = world.run()
        assert ran.code == 3, ran.err
        assert "kind=backup" in ran.err
        world.assert_whole(1)
        assert world.containers()["db"]["image"] == "timescale:1"
        assert not world.assert_status_is_true()["in_step"]

    @pytest.mark.parametrize(
        "dated",
        [
            {"created_at": "2099-01-01T00:00:00Z"},
            {"created_at": "{tomorrow}"},
            {"created_at": "{month}-32T00:00:00Z"},
            {"name": "2099-01-01T00-00-00Z"},
            {"created_at": "{year}-02-30T00:00:00Z"},
            {"created_at": "2020-01-01T00:00:00Z", "verified_at": "{now}"},
            {"created_at": "{now}", "verified_at": "2099-01-01T00:00:00Z"},
            {"time": 1e15},
        ],
    )
    def test_one_of_a_day_that_cannot_be_or_of_old_data_opens_nothing(
        self, world: World, dated: dict[str, object]
    ) -> None:
        """Also where another one of the list is of a day that can be, and too old."""
        words = {"{tomorrow}": self.at(-24), "{now}": self.at(0), "{month}": self.at(0)[:7], "{year}": self.at(0)[:4]}
        for word, value in words.items():
            dated = {k: v.replace(word, value) if isinstance(v, str) else v for k, v in dated.items()}
        strange = {"name": "strange", "verified": True, **dated}
        for listed in ([strange], [{"name": "old", "verified": True, "created_at": self.at(48)}, strange]):
            self.backups(world, listed)
            world.release(2, db=self.CHANGED)
            err = refused(world, "backup")
            assert "2020-01-01" in str(dated.values()) or "cannot be" in err
            world.assert_whole(1)
        self.backups(world, [strange, {"name": "young", "verified": True, "created_at": self.at(0)}])
        world.deploy()
        assert world.containers()["db"]["image"] == "timescale:2"

    def test_with_one_it_is_deployed(self, world: World) -> None:
        self.backups(world, {"backups": [{"name": "b", "verified": True, "finished_at": self.at(1)}]})
        world.release(2, db=self.CHANGED)
        world.deploy()
        assert world.containers()["db"]["image"] == "timescale:2"

    def test_other_services_need_none(self, world: World) -> None:
        world.release(2)
        assert "backup" not in world.deploy().steps
        world.assert_whole(2)


class Webserver:
    """Answers the GraphQL question with the runs of a list, one element for each request."""

    def __init__(self) -> None:
        self.answers: list[list[str]] = []
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
                assert "runsOrError" in query
                runs = outer.answers[min(outer.asked, len(outer.answers) - 1)]
                outer.asked += 1
                results = [{"runId": run, "jobName": "load", "status": "STARTED"} for run in runs]
                body = json.dumps({"data": {"runsOrError": {"__typename": "Runs", "results": results}}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class TestDraining:
    @pytest.fixture
    def webserver(self) -> Iterator[Webserver]:
        found = Webserver()
        yield found
        found.server.shutdown()
        found.server.server_close()

    @pytest.fixture
    def world(self, webserver: Webserver) -> World:
        world = deployed_world()
        terms = {"services": "code", "drain_timeout": "0.3", "interval": "0.02"}
        world.configure(dagster={"url": webserver.url, **terms})
        return world

    def test_it_waits_for_runs_to_end(self, world: World, webserver: Webserver) -> None:
        webserver.answers = [["a", "b"], ["b"], []]
        world.configure(dagster={"drain_timeout": "300"})
        world.release(2)
        world.deploy()
        assert webserver.asked == 3
        world.assert_whole(2)

    def test_runs_that_do_not_end_postpone_it(self, world: World, webserver: Webserver) -> None:
        webserver.answers = [["stuck"]]
        world.release(2)
        ran = world.run()
        assert ran.code == 75
        assert "kind=drain" in ran.err
        world.assert_whole(1)
        assert not world.calls("compose up")
        assert not world.assert_status_is_true()["in_step"]
        webserver.answers = [[]]
        world.deploy()
        world.assert_whole(2)

    def test_or_not_if_so_configured(self, world: World, webserver: Webserver) -> None:
        webserver.answers = [["stuck"]]
        world.configure(dagster={"on_timeout": "proceed"})
        world.release(2)
        world.deploy()
        world.assert_whole(2)

    def test_a_run_cut_short_with_half_replaced_is_ended_without_waiting(
        self, world: World, webserver: Webserver
    ) -> None:
        webserver.answers = [[], ["stuck"]]
        world.release(2)
        world.fault({"match": "compose up", "when": "middle", "do": "kill"})
        assert world.run().code == -9
        world.deploy()
        world.assert_whole(2)

    def test_a_run_cut_short_before_any_container_waits_again(self, world: World, webserver: Webserver) -> None:
        webserver.answers = [[], ["stuck"]]
        world.release(2)
        world.kill_in_git("reset --quiet --keep", "after")
        assert world.run().code == -9
        world.configure(compose={"attempts": "2"})
        for _ in range(2):  # to wait is no failed attempt
            assert world.run().code == 75
        assert not world.calls("compose up")
        assert not world.assert_status_is_true()["in_step"]
        webserver.answers = [[]]
        world.deploy()
        world.assert_whole(2)

    def test_a_webserver_that_is_away_postpones_it(self, world: World, webserver: Webserver) -> None:
        world.configure(dagster={"url": "http://127.0.0.1:1"})
        world.release(2)
        assert world.run().code == 75
        world.assert_whole(1)
        world.configure(dagster={"on_unreachable": "proceed"})
        world.deploy()
        world.assert_whole(2)

    def test_services_without_dagster_code_do_not_wait(self, world: World, webserver: Webserver) -> None:
        webserver.answers = [["stuck"]]
        world.write({"compose/grafana/grafana.ini": "[two]\n"})
        world.push("only grafana")
        world.deploy()
        assert webserver.asked == 0
