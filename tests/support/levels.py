"""TimescaleDB of the Timescale licence as a fixture, on any machine with Node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.settings import Settings, load_settings
from hub.timescale.schema import upgrade
from tests.support import timescale


@pytest.fixture(scope="module")
def wasm_settings() -> Iterator[Settings]:
    """Settings of an upgraded database of TimescaleDB in WebAssembly; one connection at a time."""
    reason = timescale.missing()
    if reason:
        pytest.skip(reason)
    with timescale.server() as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSSLMODE", "disable")
        settings = load_settings(
            mongo_uri="mongodb://unused", db_host="127.0.0.1", db_port=port, db_name="postgres", db_user="postgres",
            db_password="postgres", _env_file=None,
        )  # fmt: skip
        upgrade(settings)
        yield settings
