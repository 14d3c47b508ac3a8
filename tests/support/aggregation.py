"""Aggregation pipelines on a test server: evaluated by mingo, where Node is installed."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bson
from bson import json_util

from tests.support import node
from tests.support.mongo_wire import WireServer

FOLDER = Path(__file__).parent / "mingo"
_OPTIONS = json_util.RELAXED_JSON_OPTIONS


def missing() -> str | None:
    """Why pipelines cannot be evaluated here, None if they can."""
    return node.missing("the aggregation that counts documents was not evaluated")


@contextlib.contextmanager
def aggregating(wire: WireServer) -> Iterator[list[Any]]:
    """Let the server answer `aggregate` for the block; yields the pipelines that it was asked for."""
    node.install(FOLDER)
    process = subprocess.Popen(
        ["node", "run.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lock, asked = threading.Lock(), list[Any]()
    assert process.stdin
    assert process.stdout

    def evaluate(command: Mapping[str, Any]) -> Mapping[str, Any]:
        assert process.stdin
        assert process.stdout
        documents = [raw if isinstance(raw, Mapping) else bson.decode(raw) for raw in wire.documents]
        request = {"documents": documents, "pipeline": command["pipeline"]}
        with lock:
            asked.append(command["pipeline"])
            process.stdin.write(json_util.dumps(request, json_options=_OPTIONS) + "\n")
            process.stdin.flush()
            rows = json_util.loads(process.stdout.readline(), json_options=_OPTIONS)
        return {"cursor": {"id": 0, "ns": f"{wire.database}.{wire.collection}", "firstBatch": rows}}

    before: Callable[..., Any] | None = wire.handlers.get("aggregate")
    wire.handlers["aggregate"] = evaluate
    try:
        yield asked
    finally:
        wire.handlers.pop("aggregate")
        if before:
            wire.handlers["aggregate"] = before
        process.stdin.close()
        process.wait(20)
