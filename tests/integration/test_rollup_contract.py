"""One contract for the rollups on every level of the database: same names, same columns, same numbers.

`server` is the server of the tests (plain PostgreSQL, or what TEST_DATABASE_URL names), `wasm` is real
TimescaleDB of the Timescale licence. Each test works in days of its own.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hub.errors import RefusedError
from hub.rollups.apply import apply, view_names
from hub.rollups.declared import EVERY_ROLLUP, READING_ANALYTICS, READING_DAILY, READING_HOURLY, ROLLUPS
from hub.rollups.dropped import dropped_before, remember
from hub.rollups.model import Count, Rollup, Sum
from hub.rollups.policies import apply_policies, current, wanted
from hub.rollups.refresh import mark_dirty, refresh, refresh_all
from hub.rollups.status import status
from hub.settings import Settings
from hub.timescale.connection import Connection, connect
from hub.timescale.level import Level, detect
from hub.timescale.schema import upgrade
from tests.support.levels import wasm_settings  # noqa: F401

HOUR = dt.timedelta(hours=1)
_READINGS = [rollup for rollup in ROLLUPS if rollup.table == "reading_analytics"]


@pytest.fixture(params=["server", "wasm"])
def level_settings(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Settings:
    name = "settings" if request.param == "server" else "wasm_settings"
    settings: Settings = request.getfixturevalue(name)
    with connect(settings) as connection:
        level = detect(connection)
    record_property("level", f"{level.value}, {level.title}")
    return settings


@pytest.fixture
def db(level_settings: Settings) -> Iterator[Connection]:
    with connect(level_settings, autocommit=True) as connection:
        yield connection


def insert(db: Connection, *rows: tuple[str, dt.datetime, str, str, float | None]) -> None:
    """Insert readings and mark their hours, as a load does."""
    with db.transaction():
        for row in rows:
            db.execute(
                "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value)"
                " VALUES (%s, %s, %s, %s, %s)",
                row,
            )
        mark_dirty(db, READING_HOURLY, {READING_HOURLY.floor(row[1]) for row in rows})


def rows(db: Connection, rollup: Rollup, day: dt.datetime) -> list[tuple[Any, ...]]:
    return db.execute(
        f"SELECT {', '.join(rollup.columns)} FROM {rollup.name} WHERE bucket >= %s AND bucket < %s ORDER BY 1, 2, 3",
        (day, day + 24 * HOUR),
    ).fetchall()


def empty(db: Connection) -> None:
    """Remove every reading, and with it every bucket."""
    with db.transaction():
        db.execute("DELETE FROM reading_analytics")
        mark_dirty(db, READING_HOURLY, [row[0] for row in db.execute("SELECT bucket FROM reading_hourly").fetchall()])
    refresh_all(db, _READINGS)


def test_each_level_has_the_same_columns_of_the_same_types(db: Connection) -> None:
    found = db.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_name IN ('reading_hourly', 'reading_daily') ORDER BY table_name, ordinal_position"
    ).fetchall()
    columns = [
        ("bucket", "timestamp with time zone"),
        ("source", "text"),
        ("event_type", "text"),
        ("events", "bigint"),
        ("value_count", "bigint"),
        ("value_sum", "double precision"),
        ("value_min", "double precision"),
        ("value_max", "double precision"),
        ("first_at", "timestamp with time zone"),
        ("last_at", "timestamp with time zone"),
    ]
    assert found == [(name, *column) for name in ("reading_daily", "reading_hourly") for column in columns]


def test_the_level_is_what_the_catalog_says(db: Connection) -> None:
    kind = db.execute("SELECT relkind::text FROM pg_class WHERE relname = 'reading_hourly'").fetchone()
    assert kind == ("v",) if detect(db).continuous_aggregates else kind == ("r",)


def test_buckets_hold_what_the_readings_add_up_to(db: Connection) -> None:
    day = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    a, b, c = day + dt.timedelta(minutes=5), day + dt.timedelta(minutes=50), day + 13 * HOUR
    insert(
        db,
        ("1", a, "kobo", "session", 2.5),
        ("2", b, "kobo", "session", -1.0),
        ("3", b, "kobo", "session", None),
        ("4", a, "web", "article", None),
        ("5", c, "kobo", "session", 10.0),
    )
    refresh_all(db, _READINGS)
    assert rows(db, READING_HOURLY, day) == [
        (day, "kobo", "session", 3, 2, 1.5, -1.0, 2.5, a, b),
        (day, "web", "article", 1, 0, None, None, None, a, a),
        (day + 13 * HOUR, "kobo", "session", 1, 1, 10.0, 10.0, 10.0, c, c),
    ]
    assert rows(db, READING_DAILY, day) == [
        (day, "kobo", "session", 4, 3, 11.5, -1.0, 10.0, a, c),
        (day, "web", "article", 1, 0, None, None, None, a, a),
    ]


def test_a_refresh_recomputes_exactly_the_buckets_that_are_marked(db: Connection) -> None:
    day = dt.datetime(2026, 1, 12, tzinfo=dt.UTC)
    insert(db, ("1", day + HOUR, "kobo", "session", 1.0), ("2", day + 2 * HOUR, "kobo", "session", 1.0))
    insert(db, ("3", day + 30 * HOUR, "kobo", "session", 1.0))
    refresh_all(db, _READINGS)
    insert(db, ("4", day + HOUR, "kobo", "session", 1.0), ("5", day + 8 * HOUR, "kobo", "session", 1.0))
    hourly = refresh(db, READING_HOURLY, [READING_DAILY])
    assert hourly.windows == ((day + HOUR, day + 2 * HOUR), (day + 8 * HOUR, day + 9 * HOUR))
    assert refresh(db, READING_DAILY).windows == ((day, day + 24 * HOUR),)
    assert [row[3] for row in rows(db, READING_DAILY, day)] == [4]
    assert refresh(db, READING_HOURLY, [READING_DAILY]).windows == ()


def test_a_late_reading_below_the_watermark_reaches_both_rollups(db: Connection) -> None:
    day = dt.datetime(2026, 1, 19, tzinfo=dt.UTC)
    insert(db, ("1", day + 5 * HOUR, "kobo", "session", 1.0), ("2", day + 40 * HOUR, "kobo", "session", 1.0))
    refresh_all(db, _READINGS)
    insert(db, ("3", day + 5 * HOUR + dt.timedelta(minutes=1), "kobo", "session", 2.0))
    refresh_all(db, _READINGS)
    assert [row[3:6] for row in rows(db, READING_HOURLY, day)] == [(2, 2, 3.0)]
    assert [row[3:6] for row in rows(db, READING_DAILY, day)] == [(2, 2, 3.0)]


def test_a_bucket_whose_readings_are_gone_goes_too(db: Connection) -> None:
    day = dt.datetime(2026, 1, 26, tzinfo=dt.UTC)
    insert(db, ("1", day + 3 * HOUR, "kobo", "session", 1.0), ("2", day + 4 * HOUR, "web", "article", 1.0))
    refresh_all(db, _READINGS)
    with db.transaction():
        db.execute("DELETE FROM reading_analytics WHERE source = 'kobo' AND event_timestamp = %s", (day + 3 * HOUR,))
        mark_dirty(db, READING_HOURLY, [day + 3 * HOUR])
    refresh_all(db, _READINGS)
    assert [row[1] for row in rows(db, READING_HOURLY, day)] == ["web"]
    assert [row[1] for row in rows(db, READING_DAILY, day)] == ["web"]


def test_a_refresh_of_a_table_writes_only_the_rows_that_differ(db: Connection) -> None:
    if detect(db).continuous_aggregates:
        pytest.skip("what a continuous aggregate writes is TimescaleDB's to decide")
    day = dt.datetime(2026, 1, 29, tzinfo=dt.UTC)
    insert(db, ("w1", day, "kobo", "session", 1.0), ("w2", day, "web", "article", None))
    refresh_all(db, _READINGS)
    written = f"SELECT source, xmin::text FROM {READING_HOURLY.name} WHERE bucket = %s ORDER BY 1"
    before = dict(db.execute(written, (day,)).fetchall())
    insert(db, ("w3", day, "web", "article", 2.0))
    refresh_all(db, _READINGS)
    after = dict(db.execute(written, (day,)).fetchall())
    assert before["kobo"] == after["kobo"]
    assert before["web"] != after["web"]


def test_a_rebuild_recomputes_a_window_that_nobody_marked(db: Connection) -> None:
    day = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
    db.execute(
        "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type) VALUES ('1', %s, 'web', 'x')",
        (day + HOUR,),
    )
    refresh(db, READING_HOURLY, [READING_DAILY], rebuild=(day, day + 24 * HOUR))
    refresh(db, READING_DAILY)
    assert [row[3] for row in rows(db, READING_HOURLY, day)] == [1]
    assert [row[3] for row in rows(db, READING_DAILY, day)] == [1]


def test_buckets_whose_raw_rows_retention_has_dropped_are_left_as_they_are(db: Connection) -> None:
    day = dt.datetime(2026, 2, 9, tzinfo=dt.UTC)
    insert(db, ("1", day + HOUR, "kobo", "session", 1.0), ("2", day + HOUR, "web", "article", 1.0))
    insert(db, ("3", day + 30 * HOUR, "kobo", "session", 1.0))
    refresh_all(db, _READINGS)
    db.execute("UPDATE rollup_state SET dropped_before = %s WHERE rollup = %s", (day + 24 * HOUR, READING_HOURLY.name))
    try:
        db.execute("DELETE FROM reading_analytics")
        insert(db, ("late", day + HOUR, "kobo", "session", 5.0))
        refresh_all(db, _READINGS)
        whole = (day, day + 48 * HOUR)
        for rollup in _READINGS:
            refresh(db, rollup, [READING_DAILY] if rollup == READING_HOURLY else [], rebuild=whole)
            assert [row[3] for row in rows(db, rollup, day)] == [1, 1]
        assert [row[3] for row in rows(db, READING_DAILY, day + 24 * HOUR)] == []
        # What is there again is no loss.
        insert(db, ("1", day + HOUR, "kobo", "session", 1.0), ("2", day + HOUR, "web", "article", 1.0))
        refresh_all(db, _READINGS)
        assert [row[3] for row in rows(db, READING_DAILY, day)] == [2, 1]
        stale = dataclasses.replace(READING_HOURLY, measures=READING_HOURLY.measures[:2])
        with pytest.raises(RefusedError, match="reading_hourly has changed"):
            apply(db, (stale, stale.coarser("reading_daily", bucket="1 day")), detect(db))
    finally:
        db.execute("UPDATE rollup_state SET dropped_before = NULL")


def test_how_far_raw_rows_are_gone_is_remembered_when_the_policy_is_lifted(db: Connection) -> None:
    level = detect(db)
    if not level.continuous_aggregates:
        pytest.skip("policies are TimescaleDB's, level 1")
    try:
        apply_policies(db, [READING_ANALYTICS], wanted([READING_ANALYTICS], _READINGS, 30, 120))
        remember(db, _READINGS, level)
        apply_policies(db, [READING_ANALYTICS], wanted([READING_ANALYTICS], _READINGS, 30, None))
        gone = dropped_before(db, READING_HOURLY, level)
        assert gone is not None
        assert abs(dt.datetime.now(dt.UTC) - dt.timedelta(days=120) - gone) < dt.timedelta(minutes=5)
    finally:
        db.execute("UPDATE rollup_state SET dropped_before = NULL")


def test_one_declaration_makes_a_rollup_and_a_changed_one_makes_it_anew(db: Connection) -> None:
    day = dt.datetime(2026, 2, 16, tzinfo=dt.UTC)
    insert(db, ("1", day + HOUR, "kobo", "session", 4.0), ("2", day + 9 * HOUR, "web", "article", 2.0))
    refresh_all(db, _READINGS)
    level = detect(db)
    mine = Rollup(
        name="my_quarter_hours", source="reading_analytics", time="event_timestamp", bucket="15 minutes",
        dimensions=("source",), measures=(Count("events"),),
    )  # fmt: skip
    try:
        assert apply(db, (*ROLLUPS, mine), level) == ["my_quarter_hours"]
        refresh_all(db, (*ROLLUPS, mine))
        assert [row[1:] for row in rows(db, mine, day)] == [("kobo", 1), ("web", 1)]
        assert apply(db, (*ROLLUPS, mine), level) == []
        changed = dataclasses.replace(mine, measures=(Count("events"), Sum("total", of="value")))
        assert apply(db, (*ROLLUPS, changed), level) == ["my_quarter_hours"]
        refresh_all(db, (*ROLLUPS, changed))
        assert [row[1:] for row in rows(db, changed, day)] == [("kobo", 1, 4.0), ("web", 1, 2.0)]
        db.execute("DELETE FROM reading_analytics WHERE event_timestamp < %s", (day + 2 * HOUR,))
        with pytest.raises(RefusedError, match=r"my_quarter_hours has changed.*2026"):
            apply(db, (*ROLLUPS, mine), level)
        assert [row[1:] for row in rows(db, changed, day)] == [("kobo", 1, 4.0), ("web", 1, 2.0)]
    finally:
        kind = "MATERIALIZED VIEW" if level.continuous_aggregates else "TABLE"
        db.execute(f"DROP {kind} my_quarter_hours")
        db.execute("DELETE FROM rollup_state WHERE rollup = 'my_quarter_hours'")


def test_the_status_tells_size_watermark_lag_and_what_waits(db: Connection) -> None:
    day = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    insert(db, ("s1", day + HOUR, "kobo", "session", 1.0))
    refresh_all(db, _READINGS)
    insert(db, ("s2", day + 5 * HOUR, "kobo", "session", 1.0))
    hourly, daily = status(db, _READINGS)
    assert hourly.watermark == day + 2 * HOUR
    assert hourly.lag == 3 * HOUR
    assert (hourly.dirty, daily.dirty) == (1, 0)
    assert hourly.bytes > 0
    assert hourly.refreshed_at is not None
    progress = db.execute(
        "SELECT rollup, watermark, lag_seconds, waiting, refreshed_at FROM rollup_progress WHERE rollup LIKE 'reading%'"
    ).fetchall()
    assert sorted(progress) == [
        (one.name, one.watermark, one.lag.total_seconds(), one.dirty, one.refreshed_at) for one in (daily, hourly)
    ]
    assert ("refresh" in hourly.policies) == detect(db).continuous_aggregates
    db.execute("DELETE FROM reading_analytics WHERE event_timestamp >= %s", (day,))
    refresh_all(db, _READINGS)


def test_the_progress_names_every_rollup(db: Connection) -> None:
    found = db.execute("SELECT rollup FROM rollup_progress ORDER BY 1").fetchall()
    assert found == sorted((rollup.name,) for rollup in EVERY_ROLLUP)


def test_a_view_that_is_restored_has_the_same_definition(db: Connection) -> None:
    """Restores compare definitions, and PostgreSQL writes down some views otherwise than it reads them again."""
    for view in view_names():
        (definition,) = db.execute("SELECT pg_get_viewdef(%s::regclass)", (view,)).fetchone() or ("",)
        with db.transaction(force_rollback=True):
            db.execute(f"CREATE VIEW restored AS {definition}")
            assert db.execute("SELECT pg_get_viewdef('restored'::regclass)").fetchone() == (definition,), view


def test_a_long_range_is_read_in_days_and_a_short_one_in_hours(db: Connection) -> None:
    day = dt.datetime(2026, 7, 6, tzinfo=dt.UTC)
    empty(db)
    insert(db, ("b1", day + HOUR, "kobo", "session", 1.0), ("b2", day + 5 * HOUR, "kobo", "session", 1.0))
    refresh_all(db, _READINGS)
    between = "SELECT bucket, events FROM reading_between(%s, %s) ORDER BY 1"
    assert db.execute(between, (day, day + 15 * 24 * HOUR)).fetchall() == [(day + HOUR, 1), (day + 5 * HOUR, 1)]
    assert db.execute(between, (day, day + 16 * 24 * HOUR)).fetchall() == [(day, 2)]
    assert db.execute(between, (day + HOUR, day + 5 * HOUR)).fetchall() == [(day + HOUR, 1)]
    plan = "\n".join(
        line
        for (line,) in db.execute(f"EXPLAIN {between.replace('%s', chr(39) + '2026-07-06+00' + chr(39))}").fetchall()
    )
    assert "daily" not in plan.lower()


def test_policies_are_set_once_changed_when_the_settings_change_and_removed(db: Connection) -> None:
    if detect(db) is not Level.TIMESCALE:
        pytest.skip("policies are TimescaleDB's, level 1")

    def apply_for(compress: int, retention: int | None) -> list[str]:
        return apply_policies(db, [READING_ANALYTICS], wanted([READING_ANALYTICS], _READINGS, compress, retention))

    apply_for(30, None)
    assert apply_for(30, None) == []
    assert apply_for(45, 120) == [
        "policy_compression of reading_analytics",
        "policy_retention of reading_analytics",
    ]
    name = READING_ANALYTICS.name
    assert current(db, name, "policy_compression") == {"compress_after": dt.timedelta(days=45)}
    assert current(db, name, "policy_retention") == {"drop_after": dt.timedelta(days=120)}
    apply_for(30, None)
    assert current(db, name, "policy_retention") is None
    assert current(db, "reading_hourly", "policy_refresh_continuous_aggregate") == {
        "start_offset": dt.timedelta(days=30),
        "end_offset": HOUR,
    }


def test_an_upgrade_of_an_upgraded_database_changes_nothing(level_settings: Settings) -> None:
    assert not upgrade(level_settings).changed


def test_the_views_answer_the_questions_that_people_ask(db: Connection) -> None:
    now = dt.datetime.now(dt.UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    empty(db)
    made = [(f"v{n}", today - n * 24 * HOUR, "kobo", "session", 60.0) for n in range(3)]
    made += [("v9", today - 10 * 24 * HOUR, "web", "article", 30.0)]
    insert(db, *made)
    refresh_all(db, _READINGS)
    streaks = db.execute("SELECT first_day, last_day, days, is_current FROM reading_streaks ORDER BY 1").fetchall()
    assert ((today - 48 * HOUR).date(), today.date(), 3, True) in streaks
    assert ((today - 240 * HOUR).date(), (today - 240 * HOUR).date(), 1, False) in streaks
    top = db.execute(
        "SELECT rank, source, events, value_sum, share, days FROM reading_top_sources ORDER BY 1"
    ).fetchall()
    assert top == [(1, "kobo", 3, 180.0, 0.75, 3), (2, "web", 1, 30.0, 0.25, 1)]
    assert db.execute("SELECT sum(events) FROM reading_last_30_days").fetchone() == (4,)
    day = db.execute("SELECT sum(events), sum(value_sum) FROM reading_last_24_hours").fetchone()
    assert day is not None
    assert day[0] in (1, 2)  # yesterday's midnight is still within 24 hours during the first hour of a day
    year = db.execute("SELECT source, sum(events) FROM reading_year_by_source GROUP BY 1 ORDER BY 1").fetchall()
    assert year == [("kobo", 3), ("web", 1)]
    weekday = db.execute(
        "SELECT events FROM reading_weekday_hours WHERE weekday = %s AND hour = 0", (today.isoweekday(),)
    ).fetchone()
    assert weekday == (1,)
    described = db.execute(
        "SELECT count(*), count(col_description(attrelid, attnum)) FROM pg_attribute"
        " WHERE attrelid IN ('reading_streaks'::regclass, 'reading_top_sources'::regclass) AND attnum > 0"
    ).fetchone()
    assert described is not None
    assert described[1] >= described[0] - 1  # every column but the obvious `source`


def test_a_refresh_waits_for_a_policy_that_refreshes_the_same_buckets(
    settings: Settings, connection: Connection
) -> None:
    if not detect(connection).continuous_aggregates:
        pytest.skip("policies are TimescaleDB's, level 1")
    day = dt.datetime(2026, 8, 3, tzinfo=dt.UTC)
    connection.autocommit = True
    insert(connection, ("1", day + HOUR, "kobo", "session", 1.0))

    def ours() -> int:
        with connect(settings, autocommit=True) as mine:
            return refresh(mine, READING_HOURLY).buckets

    with ThreadPoolExecutor(1) as pool, connect(settings, autocommit=True) as policy:
        # What TimescaleDB writes down of a refresh that is at work, and looks at before it begins another.
        ranges = "_timescaledb_catalog.continuous_aggs_jobs_refresh_ranges"
        policy.execute(
            f"INSERT INTO {ranges} SELECT mat_hypertable_id, -(2 ^ 62)::bigint, (2 ^ 62)::bigint, pg_backend_pid(), 0, now()"
            " FROM _timescaledb_catalog.continuous_agg WHERE user_view_name = 'reading_hourly'"
        )
        refreshed = pool.submit(ours)
        with pytest.raises(TimeoutError):
            refreshed.result(3)  # it waits
        policy.execute(f"DELETE FROM {ranges}")
        assert refreshed.result(60) == 1
    assert [row[3] for row in rows(connection, READING_HOURLY, day)] == [1]
