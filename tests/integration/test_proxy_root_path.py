"""Behind a reverse proxy that shows the API below a path, whether it takes the path away or not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from hub.errors import SettingsError
from hub.settings import Settings, load_settings
from hub.timescale.connection import connect
from tests.support.proxy import client, fill, make_token, serving

BOTH = pytest.mark.parametrize("asked", ["", "/hub"], ids=["taken away", "left"])


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    with connect(settings) as connection:
        fill(connection, readings=30)
    token = make_token(settings)
    with serving(settings.model_copy(update={"proxy_root_path": "/hub"})) as url, client(url, token) as opened:
        yield opened


@BOTH
def test_the_next_page_is_below_the_path(api: httpx.Client, asked: str) -> None:
    window = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z", "limit": "10"}
    first = api.get(f"{asked}/api/readings", params=window)
    assert first.is_success, first.text
    following = first.links["next"]["url"]
    assert following.startswith("/hub/api/readings?")
    second = api.get(following if asked else following.removeprefix("/hub"))
    assert second.is_success
    assert len(second.json()["data"]) == 10


@BOTH
def test_docs_load_what_they_need_from_below_the_path(api: httpx.Client, asked: str) -> None:
    page = api.get(f"{asked}/docs").text
    needed = set(re.findall(r"""(?:src|href|url)\s*[=:]\s*["'](/[^"']+)""", page))
    assert "/hub/openapi.json" in needed
    assert len(needed) >= 3
    for address in needed:
        assert address.startswith("/hub/")
        assert api.get(address if asked else address.removeprefix("/hub")).is_success
    assert api.get(f"{asked}/openapi.json").json()["servers"] == [{"url": "/hub"}]
    assert api.get(f"{asked}/healthz").is_success


def test_a_path_of_another_form_is_refused() -> None:
    for path in ("hub", "/hub/", "/", "/a b", "https://hub.example.net/hub"):
        with pytest.raises(SettingsError, match="PROXY_ROOT_PATH"):
            load_settings(mongo_uri="mongodb://x", db_host="x", db_password="x", proxy_root_path=path, _env_file=None)
