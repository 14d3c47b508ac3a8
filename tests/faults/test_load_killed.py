"""kill -9 of a run in the middle of its load: the day is as it was, nothing is left locked, a retry succeeds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.settings import Settings
from tests.support.load_faults import BATCH, assert_succeeds, documents_after, small_batches, state_before
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import everything

__all__ = ["small_batches"]
pytestmark = pytest.mark.usefixtures("small_batches")

ROOT = Path(__file__).resolve().parents[2]
LOAD = f"""
import datetime as dt
from hub.loading import source
from hub.loading.load import load
from hub.settings import load_settings
from hub.streams.declared import reading as reading_of
source.BATCH_DOCUMENTS = {BATCH}
load(load_settings(), reading_of(load_settings()), dt.date(2026, 3, 5), dt.date(2026, 3, 7))
"""
DG_LAUNCH = [
    "dg",
    "launch",
    "--assets",
    "reading_analytics,reading_rejects",
    "--partition-range",
    "2026-03-05...2026-03-06",
]


@contextlib.contextmanager
def run(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own, which is gone at the end of the block whatever happens."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def kill_in_mid_load(
    wire: WireServer, command: list[str], environment: dict[str, str], batches: int, log: Path
) -> None:
    """Run the command, and kill -9 all of it while it waits for the batch after that many."""
    wire.faults = faults = Faults(stall_after_batches=batches)
    with run(command, environment, log) as process:
        while not faults.stalled.wait(0.1):
            assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    wire.faults = Faults()
    faults.release.set()


@pytest.mark.parametrize(
    ("loaded_before", "batches"),
    [(False, 1), (False, 3), (True, 3), (True, 8), (True, 9)],
    ids=["first load, at the start", "first load", "comparison", "merge", "merge, near the end"],
)
def test_a_load_that_is_killed_leaves_everything_as_it_was(
    settings: Settings, wire: WireServer, tmp_path: Path, loaded_before: bool, batches: int
) -> None:
    if loaded_before:
        state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(ROOT)}
    kill_in_mid_load(wire, [sys.executable, "-c", LOAD], environment, batches, tmp_path / "load.log")
    assert everything(settings) == before
    assert_succeeds(settings)


def test_a_dagster_run_that_is_killed_leaves_everything_as_it_was_and_the_next_one_succeeds(
    settings: Settings, wire: WireServer, dagster_environment: dict[str, str], tmp_path: Path
) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()
    kill_in_mid_load(wire, DG_LAUNCH, dagster_environment, 5, tmp_path / "killed.log")
    assert everything(settings) == before
    with run(DG_LAUNCH, dagster_environment, tmp_path / "again.log") as again:
        assert again.wait(600) == 0, (tmp_path / "again.log").read_text()
    assert_succeeds(settings)
