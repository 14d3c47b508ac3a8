"""Notifications: a failure once, its end once, and no secret anywhere."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.backups import routine
from hub.backups.run import Wanted
from hub.errors import HubError, SettingsError, UnavailableError
from hub.notify import Told, send, tell
from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def told(settings: Settings, receiver: Receiver) -> Settings:
    url = f"json://user:hunter2@127.0.0.1:{receiver.server_port}/path"
    return settings.model_copy(
        update={"notify_urls": type(settings.db_password)(url), "dagster_db_name": settings.db_name}
    )


def test_a_failure_is_told_once_until_it_is_over(told: Settings, receiver: Receiver) -> None:
    assert tell(told, "backup", None) is Told.NOTHING
    assert [tell(told, "backup", f"disk full, attempt {number}") for number in range(3)] == [
        Told.FAILURE, Told.NOTHING, Told.NOTHING,
    ]  # fmt: skip
    assert tell(told, "other", "something else") is Told.FAILURE
    assert [tell(told, "backup", None) for _ in range(2)] == [Told.RECOVERY, Told.NOTHING]
    assert tell(told, "backup", "again") is Told.FAILURE
    assert receiver.messages == [
        ("Reading Hub: backup failed", "disk full, attempt 0"),
        ("Reading Hub: other failed", "something else"),
        ("Reading Hub: backup works again", "It is over: disk full, attempt 0"),
        ("Reading Hub: backup failed", "again"),
    ]


def test_two_processes_that_find_the_same_failure_tell_it_once(told: Settings, receiver: Receiver) -> None:
    together = threading.Barrier(4)

    def find() -> None:
        together.wait()
        tell(told, "backup", "disk full")

    threads = [threading.Thread(target=find) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.messages) == 1


def test_what_could_not_be_told_is_told_the_next_time(told: Settings, receiver: Receiver) -> None:
    receiver.refusing = True
    with pytest.raises(UnavailableError, match=r"number 1 \(json\) did not take the message"):
        tell(told, "backup", "disk full")
    receiver.refusing = False
    assert tell(told, "backup", "disk full") is Told.FAILURE


def test_a_database_that_is_away_is_told_once_too(told: Settings, receiver: Receiver) -> None:
    away = told.model_copy(update={"db_port": 1})
    assert [tell(away, "backup", "the database is away") for _ in range(2)] == [Told.FAILURE, Told.NOTHING]
    assert tell(told, "backup", None) is Told.RECOVERY
    assert tell(told, "backup", None) is Told.NOTHING
    assert len(receiver.messages) == 2


def test_no_secret_is_in_a_message_an_error_or_a_log(
    told: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    tell(told, "backup", "cannot reach postgresql://hub:hunter2@db/hub")
    receiver.refusing = True
    with pytest.raises(UnavailableError) as refused:
        send(told, "title", "body")
    wrong = told.model_copy(update={"notify_urls": type(told.db_password)("nonsense://user:hunter2@host")})
    with pytest.raises(SettingsError, match=r"number 1 .* is no URL that apprise understands") as misunderstood:
        send(wrong, "title", "body")
    texts = [str(refused.value), str(misunderstood.value), caplog.text, *capfd.readouterr(), str(receiver.messages)]
    assert all("hunter2" not in text for text in texts)


def test_a_failing_backup_a_stale_one_and_their_ends_are_told(told: Settings, receiver: Receiver) -> None:
    missing = Wanted(True, (Path("/no/such/volume"),))
    for _ in range(2):
        with pytest.raises(HubError, match="is no folder"):
            routine.run_backup(told, missing)
    routine.watch(told)
    routine.run_backup(told, Wanted())
    routine.run_verify(told)
    routine.watch(told)
    routine.watch(told, dt.datetime.now(dt.UTC) + dt.timedelta(hours=27))
    titles = [title.removeprefix("Reading Hub: ") for title, _ in receiver.messages]
    assert titles == [
        "backup failed", "backup age failed", "backup works again", "backup age works again", "backup age failed",
    ]  # fmt: skip
    assert "27 hours old: run `hub backup run`" in receiver.messages[-1][1]
    with connect(told) as connection:
        states = connection.execute("SELECT kind, state, message FROM backup_runs ORDER BY id").fetchall()
    assert [state[:2] for state in states] == [
        ("backup", "failed"), ("backup", "failed"), ("backup", "done"), ("verify", "done"),
    ]  # fmt: skip
    assert "is no folder" in states[0][2]
