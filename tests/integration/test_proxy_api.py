"""The proxy API over real HTTP and a real database: what it tells, to whom, and what it refuses."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import functools
import io
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from hub.metrics.rollups import METRIC_ROLLUPS
from hub.metrics.sample import Sampler
from hub.metrics.store import store
from hub.proxy import access, tokens
from hub.proxy.database import Database
from hub.proxy.limits import RateLimit
from hub.rollups.refresh import refresh_all
from hub.settings import Settings, load_settings
from hub.timescale.connection import connect, parameters
from hub.timescale.roles import make_roles
from hub.timescale.schema import upgrade
from tests.conftest import databases
from tests.support.proxy import START, assert_problem, client, fill, make_token, serving

READINGS = 500
WINDOW = {"from": START.isoformat(), "to": (START + dt.timedelta(days=3)).isoformat()}


@pytest.fixture(scope="module")
def settings(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings for a database with readings and metrics that no test changes."""
    with databases(postgres) as make:
        servers = {name.lower(): value for name, value in postgres.items()}
        made = load_settings(
            **servers, db_name=make(), mongo_uri="mongodb://none", _env_file=None, proxy_rate_per_second=10_000,
            dagster_url="http://127.0.0.1:1", hub_data_dir=tmp_path_factory.mktemp("hub"),
        )  # fmt: skip
        upgrade(made)
        with connect(made, autocommit=True) as connection:
            fill(connection, readings=READINGS)
            sampler = Sampler(hostname="box")
            for minute in range(12):
                store(connection, sampler.sample(START + dt.timedelta(minutes=minute)))
            refresh_all(connection, METRIC_ROLLUPS)
        yield made


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with serving(settings) as served:
        yield served


@pytest.fixture(scope="module")
def api(settings: Settings, url: str) -> Iterator[httpx.Client]:
    """A client that may read."""
    with client(url, make_token(settings, "read")) as opened:
        yield opened


def pages(api: httpx.Client, path: str, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    """The pages of a listing, found by their Link headers."""
    answer = api.get(path, params=parameters)
    while True:
        assert answer.status_code == 200, answer.text
        yield answer.json()["data"]
        if "next" not in answer.links:
            assert answer.json()["next"] is None
            return
        answer = api.get(answer.links["next"]["url"])


class TestReadings:
    @pytest.mark.parametrize("limit", [1, 7, 100, READINGS - 1, READINGS, 10_000])
    def test_pages_have_every_reading_once_and_in_order(self, api: httpx.Client, limit: int) -> None:
        if limit == 1:
            window = {**WINDOW, "to": (START + dt.timedelta(hours=1)).isoformat()}
            expected = 18
        else:
            window, expected = WINDOW, READINGS
        found = list(pages(api, "/api/readings", limit=limit, **window))
        assert all(len(page) == limit for page in found[:-1])
        keys = [(row["event_timestamp"], row["mongo_id"]) for page in found for row in page]
        assert keys == sorted(keys)
        assert len(set(keys)) == len(keys) == expected

    def test_an_out_of_date_rollup_hides_no_reading(self, api: httpx.Client, settings: Settings) -> None:
        late = START + dt.timedelta(days=2, hours=20, minutes=5)
        with connect(settings) as connection:
            connection.execute(
                "INSERT INTO reading_analytics VALUES ('late', %s, 'late', 'page', 1, '{}', NULL)", (late,)
            )
        try:
            found = [
                row["mongo_id"]
                for page in pages(api, "/api/readings", limit=3, source="late", **WINDOW)
                for row in page
            ]
            every = [row["mongo_id"] for page in pages(api, "/api/readings", limit=99, **WINDOW) for row in page]
        finally:
            with connect(settings) as connection:
                connection.execute("DELETE FROM reading_analytics WHERE mongo_id = 'late'")
        assert found == ["late"]
        assert len(every) == READINGS + 1

    def test_filters(self, api: httpx.Client) -> None:
        rows = api.get("/api/readings", params={**WINDOW, "source": "kobo", "event_type": "finish"}).json()["data"]
        assert len(rows) == READINGS / 10
        assert {(row["source"], row["event_type"]) for row in rows} == {("kobo", "finish")}
        assert api.get("/api/readings", params={**WINDOW, "source": "'; DROP TABLE x--"}).json()["data"] == []

    def test_csv_has_what_json_has(self, api: httpx.Client) -> None:
        told = api.get("/api/readings", params={**WINDOW, "limit": 50})
        answer = api.get("/api/readings", params={**WINDOW, "limit": 50}, headers={"Accept": "text/csv"})
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["mongo_id"] for row in rows] == [row["mongo_id"] for row in told.json()["data"]]
        assert answer.links == told.links
        first = told.json()["data"][0]
        assert first["payload"]["title"] == 'Käse "&", \n'
        assert '"Käse \\"&\\", \\n"' in rows[0]["payload"]

    def test_the_default_window_is_the_last_day(self, api: httpx.Client) -> None:
        assert api.get("/api/readings").json() == {"data": [], "next": None}

    def test_a_cursor_is_for_its_question_only(self, api: httpx.Client) -> None:
        cursor = api.get("/api/readings", params={**WINDOW, "limit": 5}).json()["next"]
        assert_problem(api.get("/api/readings", params={**WINDOW, "limit": 5, "source": "kobo", "cursor": cursor}), 422)
        assert_problem(api.get("/api/readings/rollup", params={**WINDOW, "cursor": cursor}), 422)
        assert api.get("/api/readings", params={**WINDOW, "limit": 9, "cursor": cursor}).status_code == 200

    @pytest.mark.parametrize(
        "wrong",
        [
            {"limit": "0"},
            {"limit": "10001"},
            {"limit": "x"},
            {"form": "2026-01-01"},
            {"from": "yesterday"},
            {"from": "0.5"},
            {"from": "0001-01-01T00:00:00+14:00"},
            {"from": "2026-02-02", "to": "2026-02-01"},
            {"to": "20260101"},
            {"to": "9999-12-31T23:59:59-12:00"},
            {"source": "a\0b"},
            {"source": ""},
            {"cursor": "x"},
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused(self, api: httpx.Client, wrong: dict[str, str]) -> None:
        problem = assert_problem(api.get("/api/readings", params=wrong), 422)
        assert next(iter(wrong)) in problem["detail"]


class TestRollups:
    @pytest.mark.parametrize(("bucket", "limit"), [("hour", 50), ("day", 5), ("day", 5_000)])
    def test_buckets_add_up_to_the_readings(self, api: httpx.Client, bucket: str, limit: int) -> None:
        found = [
            row for page in pages(api, "/api/readings/rollup", bucket=bucket, limit=limit, **WINDOW) for row in page
        ]
        assert sum(row["events"] for row in found) == READINGS
        keys = [(row["bucket"], row["source"], row["event_type"]) for row in found]
        assert keys == sorted(set(keys))

    def test_the_summary_adds_up_too(self, api: httpx.Client) -> None:
        raw = api.get("/api/readings", params={**WINDOW, "limit": 10_000}).json()["data"]
        for window in ({}, WINDOW, {**WINDOW, "to": (START + dt.timedelta(hours=71)).isoformat()}):
            told = api.get("/api/readings/summary", params=window).json()
            assert told["totals"]["events"] == READINGS
            assert told["totals"]["value_sum"] == sum(row["value"] or 0 for row in raw)
            assert told["totals"]["first_at"] == "2026-03-01T00:00:00+00:00"
            assert {name: part["events"] for name, part in told["by_source"].items()} == {"kobo": 250, "komga": 250}
            assert {name: part["events"] for name, part in told["by_event_type"].items()} == {
                "finish": 100,
                "page": 400,
            }

    def test_the_summary_of_nothing(self, api: httpx.Client) -> None:
        told = api.get("/api/readings/summary", params={"from": "2030-01-01"}).json()
        assert told["totals"]["events"] == 0
        assert told["totals"]["value_avg"] is None
        assert told["by_source"] == {}


class TestSystemMetrics:
    PARAMETERS = {"from": START.isoformat(), "to": (START + dt.timedelta(hours=1)).isoformat()}  # noqa: RUF012

    def test_samples(self, api: httpx.Client) -> None:
        every = [row for page in pages(api, "/api/system-metrics", limit=7, **self.PARAMETERS) for row in page]
        assert len(every) == 60
        memory = api.get("/api/system-metrics", params={**self.PARAMETERS, "metric_type": "memory"}).json()["data"]
        assert len(memory) == 12
        assert memory[0]["payload"]["total"] > 0

    @pytest.mark.parametrize(("bucket", "rows"), [("5m", 3), ("hour", 1)])
    def test_rollups(self, api: httpx.Client, bucket: str, rows: int) -> None:
        found = api.get("/api/system-metrics", params={**self.PARAMETERS, "bucket": bucket}).json()["data"]
        assert len(found) == rows
        assert sum(row["samples"] for row in found) == 60
        assert found[0]["disk_mounts"]["/"]["total"] > 0
        answer = api.get(
            "/api/system-metrics", params={**self.PARAMETERS, "bucket": bucket}, headers={"Accept": "text/csv"}
        )
        assert len(list(csv.DictReader(io.StringIO(answer.text)))) == rows


class TestAccess:
    @pytest.mark.parametrize("header", [None, "Bearer x", "Basic eDp5", f"Bearer rh_123456789abc_{'s' * 43}"])
    def test_without_a_valid_token_nothing_is_told(self, url: str, header: str | None) -> None:
        for path in ("readings", "readings/rollup", "readings/summary", "system-metrics"):
            answer = httpx.get(f"{url}/api/{path}", headers={"Authorization": header} if header else {})
            assert_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"

    def test_a_token_for_syncs_may_not_read_and_the_other_way_round(
        self, settings: Settings, url: str, api: httpx.Client
    ) -> None:
        with client(url, make_token(settings, "sync")) as syncs:
            assert "read" in assert_problem(syncs.get("/api/readings"), 403)["detail"]
        days = {"from": "2026-03-01", "to": "2026-03-02"}
        assert "sync" in assert_problem(api.post("/api/sync/readings", json=days), 403)["detail"]

    def test_a_revoked_token_is_worthless_and_stored_nowhere(self, settings: Settings) -> None:
        text = make_token(settings)
        identifier, secret = tokens.parse(text) or ("", "")
        with connect(settings) as connection:
            assert tokens.revoke(connection, identifier) == "test"
            row = connection.execute("SELECT api_tokens::text FROM api_tokens WHERE id = %s", (identifier,)).fetchone()
        assert row is not None
        assert secret not in row[0]
        with serving(settings) as url, client(url, text) as revoked:
            assert_problem(revoked.get("/api/readings"), 401)

    def test_too_many_requests(self, settings: Settings) -> None:
        slow = settings.model_copy(update={"proxy_rate_per_second": 0.001})
        with serving(slow) as url, client(url, make_token(settings)) as eager:
            first, second = (eager.get("/api/readings/summary") for _ in range(2))
        assert first.status_code == 200
        problem = assert_problem(second, 429)
        assert 0 < int(second.headers["retry-after"]) <= 1000
        assert "0.001 requests a second" in problem["detail"]

    def test_guesses_are_slowed_down(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        # Its clock stands still: on a slow machine the allowance would grow as fast as it is spent.
        monkeypatch.setattr(access, "RateLimit", functools.partial(RateLimit, clock=lambda: 0.0))
        with serving(settings) as url, client(url) as stranger:
            statuses = [
                stranger.get(
                    "/api/readings", headers={"Authorization": f"Bearer rh_{number:012x}_{'s' * 43}"}
                ).status_code
                for number in range(24)
            ]
        assert statuses == [401] * 20 + [429] * 4


class TestHttp:
    def test_open_pages(self, url: str) -> None:
        for path in ("/", "/healthz", "/metrics", "/docs", "/openapi.json"):
            answer = httpx.get(url + path)
            assert answer.status_code == 200, path
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert "cdn" not in httpx.get(f"{url}/docs").text

    def test_readiness_names_each_dependency(self, url: str) -> None:
        told = httpx.get(f"{url}/readyz").json()
        assert told["status"] == "degraded"
        assert {name: part["ok"] for name, part in told["dependencies"].items()} == {
            "postgresql": True,
            "dagster": False,
        }

    def test_unknown_paths_and_methods(self, url: str) -> None:
        assert_problem(httpx.get(f"{url}/nothing"), 404)
        answer = httpx.delete(f"{url}/api/readings")
        assert_problem(answer, 405)
        assert answer.headers["allow"] == "GET"

    def test_a_request_id_goes_through(self, url: str, api: httpx.Client) -> None:
        assert (
            httpx.get(f"{url}/healthz", headers={"X-Request-ID": "from-grafana-1"}).headers["x-request-id"]
            == "from-grafana-1"
        )
        for bad in ("short", "a b c d e f g h", "x" * 65):
            assert httpx.get(f"{url}/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"] != bad

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_body_that_is_too_large(self, settings: Settings, url: str, announced: bool) -> None:
        body: Any = b"x" * 70_000 if announced else iter([b"x" * 1_000] * 70)
        with client(url, make_token(settings, "sync")) as syncs:
            assert_problem(syncs.post("/api/sync/readings", content=body), 413)

    def test_other_sites_may_not_read(self, settings: Settings, url: str, api: httpx.Client) -> None:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        for answer in (
            httpx.options(f"{url}/api/readings", headers=headers),
            api.get("/api/readings", headers=headers),
        ):
            assert "access-control-allow-origin" not in answer.headers
        friend = settings.model_copy(update={"proxy_cors_origins": ("https://friend.example",)})
        with serving(friend) as open_url:
            answer = httpx.options(f"{open_url}/api/readings", headers={**headers, "Origin": "https://friend.example"})
            assert answer.headers["access-control-allow-origin"] == "https://friend.example"

    def test_numbers_are_by_route_and_never_by_path(self, api: httpx.Client, url: str) -> None:
        api.get("/api/runs/no-uuid")
        httpx.get(f"{url}/some/secret/path")
        text = httpx.get(f"{url}/metrics").text
        routes = {
            sample.labels["route"]
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "hub_proxy_requests_total"
        }
        assert "/api/runs/{run_id}" in routes
        assert "none" in routes
        assert "secret" not in text


class TestReadOnly:
    def test_reads_cannot_write(self, settings: Settings) -> None:
        async def write() -> None:
            database = Database(settings)
            await database.open()
            try:
                async with database.reader.connection() as connection:
                    await connection.execute("DELETE FROM reading_analytics")
            finally:
                await database.close()

        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            asyncio.run(write())

    @pytest.fixture
    def separate(self, settings: Settings) -> Iterator[Settings]:
        """Settings with a role for reads."""
        role = f"reader_{settings.db_name}"
        made = settings.model_copy(
            update={
                "proxy_db_user": role,
                "proxy_db_password": SecretStr("let me 'in'"),
                "dagster_db_name": settings.db_name,
            }
        )
        make_roles(made)
        yield made
        with connect(settings) as connection:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")

    def test_the_role_for_reads_sees_all_that_the_api_tells(self, separate: Settings) -> None:
        with serving(separate) as url, client(url, make_token(separate)) as api:
            for path in (
                "readings",
                "readings/rollup",
                "readings/summary",
                "system-metrics",
                "system-metrics?bucket=5m",
            ):
                assert api.get(f"/api/{path}").status_code == 200

    def test_the_role_for_reads_cannot_write_even_if_it_asks_to(self, separate: Settings) -> None:
        own = separate.model_copy(update={"db_user": separate.proxy_db_user, "db_password": separate.proxy_db_password})
        with psycopg.connect(**parameters(own)) as connection:
            connection.execute("SET TRANSACTION READ WRITE")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM reading_analytics")

    def test_an_unexpected_failure_leaks_nothing_but_its_id(
        self, separate: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        with connect(separate) as connection:
            connection.execute(f"REVOKE SELECT ON reading_daily FROM {separate.proxy_db_user}")
        with serving(separate) as url, client(url, make_token(separate)) as api:
            problem = assert_problem(api.get("/api/readings/rollup"), 500)
        for secret in ("reading_daily", separate.proxy_db_user, separate.db_host, "permission"):
            assert str(secret) not in str(problem)
        failed = [record for record in caplog.records if record.message == "failed"]
        assert failed[0].__dict__["fields"]["request_id"] == problem["request_id"]
        assert failed[0].exc_info is not None
        assert "permission denied" in str(failed[0].exc_info[1])
