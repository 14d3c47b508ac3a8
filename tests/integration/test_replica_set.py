"""The stack's MongoDB becomes a replica set of one, by the command that `migrate` runs; nobody else's does.

A server that answers as mongod's documentation says stands in: there is no real mongod here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pymongo
import pytest
import yaml

from tests.support.mongo_wire import CommandError, WireServer

ROOT = Path(__file__).resolve().parents[2]
HELLO = {"maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
         "logicalSessionTimeoutMinutes": 30, "minWireVersion": 0, "maxWireVersion": 25, "helloOk": True}  # fmt: skip


class Mongod(WireServer):
    """A mongod as to its membership alone: `config` is that of its set, `looks` counts how often its state was asked."""

    def __init__(self, config: dict[str, Any] | None = None, *, replication: bool = True) -> None:
        super().__init__()
        self.config, self.replication, self.looks, self.votes = config, replication, 0, 2
        self.handlers.update(
            hello=self._hello, ismaster=self._hello, replSetGetStatus=self._status, replSetInitiate=self._initiate
        )

    @property
    def member(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _hello(self, _: Mapping[str, Any]) -> dict[str, Any]:
        if not self.replication:
            return {**HELLO, "isWritablePrimary": True, "ismaster": True}
        if self.config is None:
            return {**HELLO, "isWritablePrimary": False, "secondary": False, "isreplicaset": True,
                    "info": "Does not have a valid replica set config"}  # fmt: skip
        self.looks += 1
        elected = self.looks > self.votes
        hosts = [member["host"] for member in self.config["members"]]
        return {**HELLO, "isWritablePrimary": elected, "ismaster": elected, "secondary": not elected, "hosts": hosts,
                "setName": self.config["_id"], "setVersion": 1, "me": hosts[0]} | (
                {"primary": hosts[0]} if elected else {})  # fmt: skip

    def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        if not self.replication:
            raise CommandError(76, "NoReplicationEnabled", "not running with --replSet")
        if self.config is None:
            raise CommandError(94, "NotYetInitialized", "no replset config has been received")
        return {"set": self.config["_id"], "myState": 1}

    def _initiate(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if self.config is not None:
            raise CommandError(23, "AlreadyInitialized", "already initialized")
        self.config = dict(command["replSetInitiate"])
        return {}


@pytest.fixture
def mongod() -> Iterator[Mongod]:
    with Mongod() as server:
        yield server


def initiate(member: str, uri: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "MONGO_URI": uri,
        "DB_HOST": "unused",
        "DB_PASSWORD": "unused",
        "HUB_LOG_FORMAT": "json",
    }
    command = [Path(sys.executable).with_name("hub"), "mongo", "initiate", "hub", member]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_server_without_a_set_becomes_one_and_is_waited_for(mongod: Mongod) -> None:
    done = initiate(mongod.member, f"mongodb://{mongod.member}/?authSource=admin")
    assert done.returncode == 0, done.stdout
    assert mongod.config == {"_id": "hub", "members": [{"_id": 0, "host": mongod.member}]}
    assert mongod.looks > mongod.votes
    assert "is the replica set 'hub' now" in done.stdout
    again = initiate(mongod.member, f"mongodb://{mongod.member}/")
    assert again.returncode == 0
    assert "already" in again.stdout
    assert mongod.commands.count("replSetInitiate") == 1
    assert mongod.errors == []


def test_the_uri_of_before_finds_it_afterwards(mongod: Mongod) -> None:
    """Neither replicaSet nor directConnection stands in it: pymongo asks, and connects to the member that it is told."""
    uri = f"mongodb://{mongod.member}/?authSource=admin"
    initiate(mongod.member, uri)
    with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=30_000) as client:
        client.admin.command("ping")
        assert client.primary == ("127.0.0.1", mongod.port)
        assert client.topology_description.replica_set_name == "hub"


def test_somebody_elses_server_is_left_alone(mongod: Mongod) -> None:
    for uri in (
        f"mongodb://{mongod.member}/",
        f"mongodb://mongo:27017,{mongod.member}/?replicaSet=theirs",
        "mongodb://",
    ):
        done = initiate("mongo:27017", uri)
        assert done.returncode == (2 if uri == "mongodb://" else 0) or "left as it is" in done.stdout, done.stdout
    assert mongod.commands == []


def test_a_server_that_stands_alone_stays_so() -> None:
    with Mongod(replication=False) as server:
        done = initiate(server.member, f"mongodb://{server.member}/")
    assert done.returncode == 0
    assert "without --replSet" in done.stdout
    assert "replSetInitiate" not in server.commands


def test_what_it_refuses_is_said_without_the_password(mongod: Mongod) -> None:
    mongod.faults.refuse_commands = {"replSetGetStatus"}
    done = initiate(
        mongod.member, f"mongodb://u:hunter2hunter2@{mongod.member}/?authSource=$external&authMechanism=PLAIN"
    )
    assert done.returncode == 1
    assert "cannot become a replica set" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_compose_and_the_command_agree() -> None:
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    (started,) = services["mongo"]["command"]
    assert "--replSet hub --keyFile /tmp/key" in started
    assert "hub mongo initiate hub mongo:27017" in services["migrate"]["command"][2]
    assert services["migrate"]["depends_on"]["mongo"] == {"condition": "service_healthy", "required": False}
    assert services["mongo"]["entrypoint"] == ["bash", "-ec"]


def test_the_key_is_one_that_mongod_takes(tmp_path: Path) -> None:
    """6 to 1024 characters of base64 that only their owner may read (mongod's documentation of --keyFile)."""
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    script = services["mongo"]["command"][0].replace("/tmp/key", str(tmp_path / "key"))
    (tmp_path / "docker-entrypoint.sh").write_text('#!/bin/sh\numask; printf "%s\\n" "$@"\n')
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    keys = set()
    for _ in range(2):  # a restart finds the key of the last time, in a tmpfs
        done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, check=True)
        key = (tmp_path / "key").read_text()
        assert len(key) == 1008
        assert set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        assert done.stdout.splitlines()[:2] == ["0022", "mongod"]
        keys.add(key)
    assert len(keys) == 2
