"""What the proxy is made of: cursors, the choice of a type, tokens, rates, log lines."""

from __future__ import annotations

import base64
import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.proxy import cursors, tokens
from hub.proxy.limits import RateLimit
from hub.proxy.problems import Problem
from hub.proxy.render import CSV, JSON, choose

NOW = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)
QUESTION = {"of": "readings", "source": "kobo"}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


class TestCursors:
    @given(st.datetimes(timezones=st.just(dt.UTC)), st.lists(texts, max_size=3))
    def test_a_key_comes_back_to_the_microsecond(self, time: dt.datetime, rest: list[str]) -> None:
        assert cursors.decode(cursors.encode((time, *rest), QUESTION), QUESTION) == (time, *rest)

    @given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(Problem) as caught:
            cursors.decode(text, QUESTION)
        assert caught.value.status == 422

    @pytest.mark.parametrize("key", [["2026-03-05T12:00:00", "x"], [5, "x"], ["2026-03-05T12:00:00+00:00", 5], []])
    def test_a_forged_key_is_refused(self, key: list[object]) -> None:
        forged = json.dumps([cursors._digest(QUESTION), *key]).encode()
        with pytest.raises(Problem):
            cursors.decode(base64.urlsafe_b64encode(forged).decode(), QUESTION)

    def test_a_cursor_belongs_to_its_question(self) -> None:
        with pytest.raises(Problem, match="another question"):
            cursors.decode(cursors.encode((NOW, "id"), QUESTION), {"of": "readings", "source": "komga"})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("text/csv", CSV),
        ("text/*", CSV),
        ("application/json, text/csv;q=0.5", JSON),
        ("application/json;q=0.5, text/csv", CSV),
        ("application/json;q=0, */*", CSV),
        ("text/html, */*;q=0.1", JSON),
        ("TEXT/CSV; charset=utf-8", CSV),
    ],
)
def test_the_type_that_the_caller_likes_best(accept: str | None, chosen: str) -> None:
    assert choose(accept) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=1", "text/csv;q=0", "nonsense", "text/csv;q=x"])
def test_a_type_that_is_not_offered(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        choose(accept)
    assert caught.value.status == 406


class TestTokens:
    SECRET = "s" * 43

    def row(self, **fields: object) -> tokens.Row:
        usual = {"secret": tokens.digest(self.SECRET), "expires_at": None, "revoked_at": None, **fields}
        return ("me", ["read"], usual["secret"], usual["expires_at"], usual["revoked_at"])  # type: ignore[return-value]

    def test_a_valid_token(self) -> None:
        token = tokens.judge("ab", self.SECRET, self.row(expires_at=NOW + dt.timedelta(seconds=1)), NOW)
        assert token is not None
        assert (token.id, token.scopes) == ("ab", {"read"})

    @pytest.mark.parametrize("wrong", [{"secret": bytes(32)}, {"expires_at": NOW}, {"revoked_at": NOW}])
    def test_an_invalid_one(self, wrong: dict[str, object]) -> None:
        assert tokens.judge("ab", self.SECRET, self.row(**wrong), NOW) is None

    def test_an_unknown_one(self) -> None:
        assert tokens.judge("ab", self.SECRET, None, NOW) is None

    @pytest.mark.parametrize(
        "text", ["", "rh_", "rh_123456789abc_", f"rh_123456789ABC_{'s' * 43}", "Bearer x", "é" * 60]
    )
    def test_what_is_no_token_is_not_looked_up(self, text: str) -> None:
        assert tokens.parse(text) is None


class TestRateLimit:
    def test_a_burst_then_the_rate(self) -> None:
        now = 0.0
        limit = RateLimit(10, 3, clock=lambda: now)
        for _ in range(3):
            limit.spend("me")
        with pytest.raises(Problem) as caught:
            limit.spend("me")
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
        limit.spend("you")
        now = 0.1
        limit.spend("me")
        assert limit.exhausted("me")
        now = 100.0
        assert not limit.exhausted("me")

    def test_it_remembers_a_bounded_number_of_callers(self) -> None:
        limit = RateLimit(1, 2, clock=lambda: 0.0)
        for number in range(25_000):
            limit.spend(str(number))
        assert len(limit._buckets) <= 10_000
