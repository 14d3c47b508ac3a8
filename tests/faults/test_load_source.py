"""MongoDB fails before or during a load: the day is as it was, the message says what to do, a retry succeeds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from hub.errors import DeniedError, SettingsError, UnavailableError
from hub.settings import Settings
from hub.timescale.connection import connect
from tests.support.load_faults import (
    PASSWORD,
    assert_fails_without_a_trace,
    assert_succeeds,
    documents_after,
    pointed_at,
    small_batches,
    state_before,
)
from tests.support.mongo_wire import Faults, WireServer
from tests.support.readings import database, empty, everything

__all__ = ["small_batches"]
pytestmark = pytest.mark.usefixtures("small_batches")


@pytest.fixture(scope="module")
def shared(postgres: dict[str, str]) -> Iterator[Settings]:
    with database(postgres) as settings:
        yield settings


@pytest.fixture
def settings(shared: Settings, wire: WireServer) -> Settings:
    """An empty database, and `wire` as the source, by a user with a password."""
    with connect(shared, autocommit=True) as connection:
        empty(connection)
    return pointed_at(shared, wire)


# With rows of the day there already, batches 1 to 5 are read for the comparison, 6 to 10 for the merge.
IN_THE_MIDDLE = {"first load": (False, 3), "comparison": (True, 3), "merge": (True, 8)}


@pytest.fixture(params=IN_THE_MIDDLE)
def middle(request: pytest.FixtureRequest, settings: Settings, wire: WireServer) -> int:
    """Batches after which the load is in the middle of its work; the documents to load are in place."""
    loaded_before, batches = IN_THE_MIDDLE[request.param]
    if loaded_before:
        state_before(settings, wire)
    wire.documents[:] = documents_after()
    wire.faults = Faults()
    wire.batches_sent = 0
    return batches


def test_mongodb_gone_at_the_start(settings: Settings, wire: WireServer) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.close()
    error = assert_fails_without_a_trace(
        settings,
        UnavailableError,
        f"reading.events on 127.0.0.1:{wire.port} cannot be reached",
        "MONGO_URI",
        "Nothing was changed",
    )
    assert error.retryable
    assert everything(settings) == before
    with WireServer(documents_after()) as again:
        assert_succeeds(pointed_at(settings, again))


def test_mongodb_gone_in_mid_cursor(settings: Settings, wire: WireServer, middle: int) -> None:
    before = everything(settings)

    def leave(batch: int) -> None:
        if batch == middle:
            wire.close()

    wire.on_batch = leave
    error = assert_fails_without_a_trace(
        settings, UnavailableError, f"127.0.0.1:{wire.port}", "went away", "Nothing was changed"
    )
    assert error.retryable
    assert everything(settings) == before
    with WireServer(documents_after()) as again:
        assert_succeeds(pointed_at(settings, again))


def test_a_connection_to_mongodb_breaks_in_mid_cursor(settings: Settings, wire: WireServer, middle: int) -> None:
    before = everything(settings)
    wire.faults = Faults(close_after_batches=middle)
    error = assert_fails_without_a_trace(settings, UnavailableError, "went away", "Nothing was changed")
    assert error.retryable
    assert everything(settings) == before
    wire.faults = Faults()
    assert_succeeds(settings)


def test_a_cursor_that_expired(settings: Settings, wire: WireServer, middle: int) -> None:
    before = everything(settings)
    wire.faults = Faults(cursor_not_found_after_batches=middle, times=1)
    error = assert_fails_without_a_trace(settings, UnavailableError, "expired the cursor", "try again")
    assert error.retryable
    assert everything(settings) == before
    assert_succeeds(settings)


def test_a_wrong_password(settings: Settings, wire: WireServer) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()
    wire.faults = Faults(refuse_authentication=True)
    error = assert_fails_without_a_trace(
        settings, DeniedError, f"127.0.0.1:{wire.port}", "refused the user or the password", "Correct MONGO_URI"
    )
    assert not error.retryable
    assert everything(settings) == before
    wire.faults = Faults()
    assert_succeeds(settings)


def test_a_user_who_may_not_read(settings: Settings, wire: WireServer) -> None:
    state_before(settings, wire)
    before = everything(settings)
    wire.documents[:] = documents_after()
    wire.faults = Faults(refuse_commands=["find"])
    error = assert_fails_without_a_trace(settings, DeniedError, "lacks a permission", "Grant it the role `read`")
    assert not error.retryable
    assert everything(settings) == before
    wire.faults = Faults()
    assert_succeeds(settings)


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://ann:{PASSWORD}@",
        f"mongodb://ann:{PASSWORD}@host:port/",
        f"mongodb://a:nn:{PASSWORD}@host/",
        f"mongodb://ann:{PASSWORD}/x@host/",
        f"mongodb+srv://ann:{PASSWORD}@host:27017/",
        f"mongodb://ann:{PASSWORD}@host/?tls=true&tlsCAFile=/no/such/file",
    ],
)
def test_a_malformed_address_is_named_and_not_repeated(settings: Settings, uri: str) -> None:
    broken = type(settings)(**{**settings.model_dump(), "mongo_uri": uri, "_env_file": None})
    error = assert_fails_without_a_trace(broken, SettingsError, "MONGO_URI", "Correct it in .env or the environment")
    assert not error.retryable


def test_a_name_that_no_dns_server_knows_today_is_tried_again(settings: Settings) -> None:
    away = settings.model_copy(
        update={"mongo_uri": SecretStr(f"mongodb+srv://ann:{PASSWORD}@cluster.invalid/?connectTimeoutMS=500")}
    )
    assert assert_fails_without_a_trace(away, UnavailableError, "MONGO_URI", "DNS").retryable
