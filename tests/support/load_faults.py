"""What the tests of a failing load share: a state before, documents that change much of it, and the questions."""

from __future__ import annotations

import datetime as dt
import random
import re
from typing import Any

import pytest
from pydantic import SecretStr

from hub.errors import HubError
from hub.loading import source
from hub.loading.load import load
from hub.loading.report import LoadReport
from hub.settings import Settings
from hub.streams.declared import reading as reading_of
from tests.support.mongo_wire import WireServer
from tests.support.readings import DAY, NEXT, NOON, balanced, everything, reading, readings

PASSWORD = "hunter2"
BATCH = 200
LATER = NOON + dt.timedelta(days=1)
OVERMORROW = NEXT + dt.timedelta(days=1)


def source_uri(wire: WireServer) -> str:
    """The server's address with a user and a password, which no message may repeat."""
    options = "directConnection=true&authMechanism=PLAIN&authSource=$external&serverSelectionTimeoutMS=400"
    return f"mongodb://ann:{PASSWORD}@127.0.0.1:{wire.port}/{wire.database}?{options}"


def pointed_at(settings: Settings, wire: WireServer) -> Settings:
    return settings.model_copy(update={"mongo_uri": SecretStr(source_uri(wire))})


def state_before(settings: Settings, wire: WireServer) -> None:
    """Load the window of the load under test with a few readings and a dead letter."""
    wire.documents[:] = [*readings(3), reading("changes"), reading("moves"), reading("bad", payload="\0")]
    load(settings, reading_of(settings), DAY, OVERMORROW)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few documents are many batches, so that a load has a middle."""
    monkeypatch.setattr(source, "BATCH_DOCUMENTS", BATCH)


def documents_after(size: int = 0) -> list[bytes]:
    """What the load under test finds: new, changed, moved and healed documents, in five batches."""
    return [
        *readings(450, note=random.Random(1).randbytes(size).hex()),
        reading("changes", payload={"value": 9}),
        reading("moves", LATER),
        reading("bad"),
        reading("new and bad", time="soon"),
    ]


def load_changes(settings: Settings) -> LoadReport:
    """The load under test."""
    return load(settings, reading_of(settings), DAY, OVERMORROW)


def assert_fails_without_a_trace(
    settings: Settings, kind: type[HubError], *said: str, before: Any = None, secret: str = PASSWORD
) -> HubError:
    """The load fails with this error, whose message says all that, and no row of any table has changed."""
    before = before or everything(settings)
    with pytest.raises(HubError) as failure:
        load_changes(settings)
    error = failure.value
    assert type(error) is kind, error
    text = str(error)
    for words in said:
        assert words in text
    assert secret not in text
    assert "\n" not in text
    assert re.search(r"[.)]$", text)
    return error


def assert_succeeds(settings: Settings) -> LoadReport:
    """The load succeeds now, completely, and once more changes nothing."""
    report = load_changes(settings)
    assert (report.loaded, report.rejected) == (453, 1)
    assert balanced(report)
    after = everything(settings)
    assert load_changes(settings).changed == 0
    assert everything(settings) == after
    return report
