"""Values that no sum can hold stop nobody: those of before this version, and those that somebody writes by SQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from hub.backups.drill import drill
from hub.loading.checks import raw_totals, rollup_totals
from hub.report.weekly_file import make
from hub.report.weekly_model import Week
from hub.rollups.declared import READING_HOURLY, ROLLUPS
from hub.rollups.refresh import mark_dirty, refresh_all
from hub.settings import Settings
from hub.timescale import schema
from hub.timescale.connection import Connection, connect
from tests.support.backups import only, verified
from tests.support.proxy import client, make_token, serving

DAY = dt.date(2026, 3, 2)
NOON = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
LARGEST = 1.797e308


def insert(connection: psycopg.Connection[tuple[object, ...]], *values: float, source: str = "odd") -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value) VALUES (%s, %s, %s, 'x', %s)",
            [(f"{source}-{number}", NOON, source, value) for number, value in enumerate(values)],
        )


def test_an_upgrade_sets_the_values_of_before_to_null_and_says_how_many(
    settings: Settings, make_database: Callable[[], str]
) -> None:
    here = settings.model_copy(update={"db_name": make_database()})
    with connect(here) as connection:
        schema._migrate(connection, "0003")
    with connect(here) as connection:
        insert(connection, LARGEST, LARGEST, float("nan"), float("-inf"), 7.0)
    done = schema.upgrade(here)
    assert [line.split(" ")[0] for line in done.said] == ["4"]
    with connect(here, autocommit=True) as connection:
        refresh_all(connection, ROLLUPS)
        assert connection.execute("SELECT events, value_count, value_sum FROM reading_daily").fetchall() == [
            (5, 1, 7.0)
        ]
    assert schema.upgrade(here).said == ()


@pytest.mark.parametrize("odd", [(float("nan"), 1.0), (float("inf"), float("-inf")), (float("inf"), 1.0)])
def test_what_somebody_writes_by_sql_is_tolerated_everywhere(
    odd: tuple[float, ...], settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    insert(connection, *odd)
    insert(connection, *odd, source="another")
    insert(connection, 2.0, source="fine")
    connection.commit()
    mark_dirty(connection, READING_HOURLY, [NOON])
    refresh_all(connection, ROLLUPS)
    end = DAY + dt.timedelta(days=1)
    assert connection.execute("SELECT value_sum FROM reading_daily WHERE source = 'fine'").fetchall() == [(2.0,)]
    for rollup in ROLLUPS:
        assert raw_totals(connection, DAY, end).matches(rollup_totals(connection, rollup, DAY, end))
    here = only(settings)
    verified(here)
    assert drill(here).differences == ()
    assert "fine" in make(settings, Week(DAY), DAY + dt.timedelta(days=30)).markdown
    with serving(settings) as url, client(url, make_token(settings)) as http:
        for path in ("readings", "readings/rollup", "readings/summary"):
            answer = http.get(f"/api/{path}", params={"from": "2026-03-01", "to": "2026-03-04"})
            assert answer.status_code == 200, answer.text
            assert "fine" in answer.text
