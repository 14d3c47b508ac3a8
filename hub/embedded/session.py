"""Give a command servers to talk to: the ones that the settings name, or embedded ones for as long as it runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dotenv import dotenv_values

from hub.embedded.mongo import EmbeddedMongo
from hub.embedded.postgres import EmbeddedPostgres
from hub.errors import HubError
from hub.settings import given_secrets

DEFAULT_FOLDER = Path(".hub")


def configured() -> dict[str, str]:
    """The settings as the user gave them: files of secrets, `.env`, the environment on top. Empty values do not count."""
    given = given_secrets() | {name.upper(): value for name, value in dotenv_values(".env").items()} | dict(os.environ)
    return {name: value for name, value in given.items() if value}


@contextlib.contextmanager
def servers(folder: Path | None = None) -> Iterator[dict[str, str]]:
    """Yield the environment variables that the embedded servers add to the user's settings.

    A server is started only for what the settings leave open (DB_HOST, MONGO_URI), and stopped at the
    end. If another process of the same folder has them running already, they are shared and left alone.
    """
    given = configured()
    folder = (folder or Path(given.get("HUB_DATA_DIR", DEFAULT_FOLDER))).absolute()
    wanted = [name for name in ("DB_HOST", "MONGO_URI") if name not in given]
    if not wanted:
        yield {}
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "embedded.json"
    with (folder / "embedded.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _running(state, wanted)
            return
        with _started(folder, state, wanted) as environment:
            yield environment


@contextlib.contextmanager
def _started(folder: Path, state: Path, wanted: list[str]) -> Iterator[dict[str, str]]:
    last = json.loads(state.read_text()) if state.exists() else {}
    state.unlink(missing_ok=True)
    environment: dict[str, str] = {}
    ports: dict[str, int] = dict(last.get("ports", {}))
    with contextlib.ExitStack() as stack:
        if "DB_HOST" in wanted:
            postgres = EmbeddedPostgres(folder / "postgres")
            stack.callback(postgres.stop)
            postgres.start(ports.get("postgres"))
            environment |= postgres.environment()
            ports["postgres"] = postgres.port
        if "MONGO_URI" in wanted:
            mongo = EmbeddedMongo(folder / "mongo")
            stack.callback(mongo.stop)
            mongo.start(ports.get("mongo"))
            environment |= mongo.environment()
            ports["mongo"] = mongo.port
        state.touch(mode=0o600)
        state.write_text(json.dumps({"pid": os.getpid(), "ports": ports, "environment": environment}))
        yield environment
    # The ports stay on record, so that the next start can use the same ones.
    state.write_text(json.dumps({"ports": ports}))


def _running(state: Path, wanted: list[str]) -> dict[str, str]:
    """The environment that the process which holds the lock wrote down, as soon as its servers answer."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, json.JSONDecodeError):
            environment: dict[str, str] = json.loads(state.read_text()).get("environment", {})
            if all(name in environment for name in wanted):
                return environment
        time.sleep(0.1)
    raise HubError(f"another hub command holds {state.parent}/embedded.lock, but its servers did not come up")
