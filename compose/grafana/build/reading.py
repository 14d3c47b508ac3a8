"""The dashboard *Reading*: what was read, when, how steadily, and whether it arrives."""

from __future__ import annotations

from compose.grafana.build.parts import (
    ORANGE,
    RED,
    YELLOW,
    Json,
    bargauge,
    column,
    dashboard,
    query_variable,
    row,
    sql,
    stat,
    steps,
    table,
    timeseries,
)

UID = "rh-reading"
# Readings of the chosen sources and types, in the rollup that fits the time range.
CHOSEN = """
    FROM reading_between($__timeFrom(), $__timeTo())
    WHERE source IN ($source) AND event_type IN ($event_type)
"""
_STALE = steps("green", (26 * 3600, ORANGE), (50 * 3600, RED))
_HOURS = ", ".join(f'sum(events) FILTER (WHERE hour = {hour}) AS "{hour:02}"' for hour in range(24))
_AUTO = "By the hour in time ranges up to 15 days, by the UTC day beyond."


def build() -> Json:
    return dashboard(
        UID,
        "Reading",
        "Reading events by source and type, streaks, habits, freshness and dead letters. Days and hours are UTC.",
        [*_glance(), *_over_time(), *_habits(), *_health()],
        since="now-30d",
        refresh="5m",
        variables=[
            query_variable(
                "source", "Source", "The application that wrote the events.",
                "SELECT DISTINCT source FROM reading_daily ORDER BY 1", every="source",
            ),
            query_variable(
                "event_type", "Event type", "What kind of event it is.",
                "SELECT DISTINCT event_type FROM reading_daily WHERE source IN ($source) ORDER BY 1", every="event_type",
            ),
        ],
    )  # fmt: skip


def _glance() -> list[Json]:
    return row(
        100, "At a glance",
        stat(
            1, "Readings", "Readings in the time range.",
            sql(f"SELECT coalesce(sum(events), 0) AS readings {CHOSEN}", table=True), unit="short",
        ),
        stat(
            2, "Value sum", "Sum of the values (READING_VALUE_PATH) in the time range, in the producer's unit.",
            sql(f"SELECT sum(value_sum) AS value {CHOSEN}", table=True), unit="short", nothing="no values",
        ),
        stat(
            3, "Current streak", "Consecutive UTC days with a reading of any source, up to today or yesterday.",
            sql("SELECT coalesce(max(days) FILTER (WHERE is_current), 0) AS days FROM reading_streaks", table=True),
            unit="suffix: days", decimals=0,
        ),
        stat(
            4, "Longest streak", "The most consecutive UTC days with a reading, ever.",
            sql("SELECT coalesce(max(days), 0) AS days FROM reading_streaks", table=True),
            unit="suffix: days", decimals=0,
        ),
        stat(
            5, "Newest reading", "Age of the newest reading of any source.",
            sql(
                "SELECT extract(epoch FROM now() - newest_reading)::double precision AS age FROM reading_freshness",
                table=True,
            ),
            unit="s", decimals=1, thresholds=_STALE, nothing="no reading yet",
        ),
        stat(
            6, "Dead letters", "Share of the documents loaded in the last 7 days that could not become a row.",
            sql("SELECT share FROM reading_reject_share", table=True),
            unit="percentunit", decimals=2, thresholds=steps("green", (0.01, YELLOW), (0.05, RED)),
            nothing="nothing loaded",
        ),
    )  # fmt: skip


def _over_time() -> list[Json]:
    def by(dimension: str, measure: str = "events") -> Json:
        return sql(
            f"SELECT bucket AS time, {dimension} AS metric, sum({measure}) AS value {CHOSEN} GROUP BY 1, 2 ORDER BY 1"
        )

    last_two_days = timeseries(
        13, "Last 48 hours", "Readings by the hour and source, whatever the time range above.",
        sql("""
            SELECT bucket AS time, source AS metric, sum(events) AS value
            FROM reading_hourly
            WHERE $__timeFilter(bucket) AND source IN ($source) AND event_type IN ($event_type)
            GROUP BY 1, 2 ORDER BY 1
        """),
        unit="short", bars=True, stacked=True,
    )  # fmt: skip
    return row(
        101, "Over time",
        timeseries(10, "Readings by source", _AUTO, by("source"), unit="short", bars=True, stacked=True),
        timeseries(11, "Readings by event type", _AUTO, by("event_type"), unit="short", bars=True, stacked=True),
        timeseries(
            12, "Value sum by source", f"Sum of the values, in the producer's unit. {_AUTO}", by("source", "value_sum"),
            unit="short", bars=True, stacked=True,
        ),
        last_two_days | {"timeFrom": "48h"},
    )  # fmt: skip


def _habits() -> list[Json]:
    return row(
        102, "Habits",
        table(
            20, "Readings by weekday and hour", "Readings in the time range by weekday and hour of the day (UTC).",
            sql(
                f"""
                SELECT to_char(DATE '2024-01-01' + weekday - 1, 'Dy') AS weekday, {_HOURS}
                FROM (
                    SELECT
                        extract(isodow FROM bucket AT TIME ZONE 'UTC')::int AS weekday,
                        extract(hour FROM bucket AT TIME ZONE 'UTC')::int AS hour,
                        sum(events) AS events
                    FROM reading_hourly
                    WHERE $__timeFilter(bucket) AND source IN ($source) AND event_type IN ($event_type)
                    GROUP BY bucket
                ) AS cells
                GROUP BY cells.weekday ORDER BY cells.weekday
                """,
                table=True,
            ),
            size=(24, 9), unit="short", overrides=_heat(),
        ),
        table(
            21, "Sources", "Sources by number of readings in the time range.",
            sql(
                f"""
                SELECT
                    source, sum(events) AS readings,
                    (sum(events) / sum(sum(events)) OVER ())::double precision AS share,
                    sum(value_sum) AS value_sum, max(last_at) AS newest
                {CHOSEN} GROUP BY source ORDER BY readings DESC
                """,
                table=True,
            ),
            overrides=[
                column("readings", unit="short"),
                column("share", unit="percentunit", decimals=1),
                column("value_sum", unit="short", displayName="value sum"),
                column("newest", unit="dateTimeAsIso"),
            ],
        ),
        table(
            22, "Longest streaks", "The ten longest runs of consecutive UTC days with a reading of any source, ever.",
            sql(
                """
                SELECT first_day::text AS "from", last_day::text AS "to", days, events AS readings, is_current AS current
                FROM reading_streaks ORDER BY days DESC, last_day DESC LIMIT 10
                """,
                table=True,
            ),
            overrides=[column("readings", unit="short")],
        ),
    )  # fmt: skip


def _heat() -> list[Json]:
    """The colours of the table that is a heat map: a narrow cell for each hour, darker where more is read."""
    hours = {
        "matcher": {"id": "byRegexp", "options": "/^\\d\\d$/"},
        "properties": [
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}},
            {"id": "color", "value": {"mode": "continuous-BlPu"}},
            {"id": "custom.width", "value": 46},
            {"id": "custom.align", "value": "center"},
            {"id": "noValue", "value": "0"},
        ],
    }
    return [hours, column("weekday", custom__width=80)]


def _health() -> list[Json]:
    return row(
        103, "Freshness and dead letters",
        table(
            30, "Freshness by source", "When each source was last read from, the most silent first.",
            sql(
                """
                SELECT
                    source, max(last_at) AS newest,
                    extract(epoch FROM now() - max(last_at))::double precision AS age
                FROM reading_daily WHERE source IN ($source) GROUP BY source ORDER BY age DESC
                """,
                table=True,
            ),
            size=(8, 8),
            overrides=[column("newest", unit="dateTimeAsIso"), column("age", unit="s", decimals=1)],
        ),
        timeseries(
            31, "Documents loaded and rejected", "Per UTC day, what its newest load that found a change made of it.",
            sql("""
                SELECT day::timestamp AT TIME ZONE 'UTC' AS time, loaded, rejected
                FROM reading_days WHERE $__timeFilter(day::timestamp AT TIME ZONE 'UTC') ORDER BY 1
            """),
            unit="short", size=(8, 8), bars=True, stacked=True,
            overrides=[
                column("loaded", color={"mode": "fixed", "fixedColor": "green"}),
                column("rejected", color={"mode": "fixed", "fixedColor": "red"}),
            ],
        ),
        bargauge(
            32, "Dead letters by reason", "All that wait in reading_rejects. docs/data-model.md says what to do on each reason.",
            sql(
                "SELECT reason, count(*) AS documents FROM reading_rejects GROUP BY reason ORDER BY documents DESC, reason",
                table=True,
            ),
            unit="short", thresholds=steps(ORANGE),
        ),
        table(
            33, "Newest dead letters", "The last 50 documents that could not become a row. Their raw BSON is in the table.",
            sql(
                """
                SELECT rejected_at AS rejected, reason, detail, mongo_id, event_day::text AS "day of the event"
                FROM reading_rejects ORDER BY rejected_at DESC, mongo_id LIMIT 50
                """,
                table=True,
            ),
            size=(24, 8), nothing="no dead letters",
            overrides=[
                column("rejected", unit="dateTimeAsIso", custom__width=170),
                column("reason", custom__width=170),
                column("mongo_id", custom__width=220),
                column("day of the event", custom__width=140),
            ],
        ),
    )  # fmt: skip
