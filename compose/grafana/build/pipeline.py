"""The dashboard *Pipeline*: Dagster's runs, ticks and checks, out of its own database, and how far the rollups are."""

from __future__ import annotations

from compose.grafana.build.parts import (
    BLUE,
    DAGSTER,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Json,
    cell_background,
    column,
    dashboard,
    data_link,
    mapped,
    outward,
    query_variable,
    row,
    sql,
    stat,
    steps,
    table,
    timeseries,
)

UID = "rh-pipeline"
# Dagster keeps times without a zone, in UTC, and starts and ends in seconds. What is launched without a job
# runs in one whose name begins with two underscores.
_RUNS = """(
    SELECT
        run_id, status, partition, start_time, end_time,
        CASE WHEN left(pipeline_name, 2) = '__' THEN 'assets' ELSE pipeline_name END AS job,
        create_timestamp AT TIME ZONE 'UTC' AS created,
        to_timestamp(start_time) AS started,
        to_timestamp(end_time) AS ended
    FROM runs
) AS run"""
_STATUS = mapped(
    SUCCESS=("success", GREEN), FAILURE=("failure", RED), CANCELED=("canceled", ORANGE), STARTED=("running", BLUE),
    STARTING=("starting", BLUE), QUEUED=("queued", YELLOW), NOT_STARTED=("not started", YELLOW),
    CANCELING=("canceling", ORANGE), SKIPPED=("nothing to do", "text"), SUCCEEDED=("passed", GREEN),
    FAILED=("failed", RED), PLANNED=("planned", YELLOW), EXECUTION_FAILED=("not executed", RED),
)  # fmt: skip
_COLOURS = [
    column(name, color={"mode": "fixed", "fixedColor": colour})
    for name, colour in (("SUCCESS", GREEN), ("FAILURE", RED), ("CANCELED", ORANGE), ("SKIPPED", "semi-dark-blue"), ("STARTED", YELLOW))
]  # fmt: skip


def _ticks(of: str = "job_ticks") -> str:
    """Ticks with what stands in their JSON."""
    return f"""(
    SELECT
        status, type,
        "timestamp" AT TIME ZONE 'UTC' AS ticked,
        tick_body::jsonb->>'job_name' AS name,
        tick_body::jsonb->>'skip_reason' AS reason,
        split_part(tick_body::jsonb->'error'->>'message', E'\\n', 1) AS error
    FROM {of}
) AS tick"""


def _dagster(text: str, *, is_table: bool = False) -> Json:
    return sql(text, database=DAGSTER, table=is_table)


def build() -> Json:
    return dashboard(
        UID,
        "Pipeline",
        "Runs, queue, sensors and schedules, checks, and how far the rollups are. Dagster's own page says more of each run.",
        [*_glance(), *_runs(), *_rollups(), *_automation()],
        since="now-7d",
        refresh="1m",
        variables=[
            query_variable(
                "job", "Job", "A Dagster job; `assets` are runs that were launched without one.",
                f"SELECT DISTINCT job FROM {_RUNS} ORDER BY 1", every="job", database=DAGSTER,
            ),
            query_variable(
                "dagster", "Dagster", "Address of Dagster's web server: DAGSTER_PUBLIC_URL, as the database role has it.",
                "SELECT coalesce(nullif(current_setting('reading_hub.dagster_url', true), ''), 'http://127.0.0.1:3000')",
                every=None, hidden=True,
            ),
        ],
        links=[outward("Dagster", "${dagster}/runs", "Runs in Dagster")],
    )  # fmt: skip


def _glance() -> list[Json]:
    def runs(what: str) -> Json:
        return _dagster(f"SELECT {what} FROM {_RUNS} WHERE $__timeFilter(created) AND job IN ($job)", is_table=True)

    return row(
        100, "At a glance",
        stat(1, "Runs", "Runs created in the time range.", runs("count(*) AS runs"), unit="short"),
        stat(
            2, "Failed", "Runs of the time range that failed.", runs("count(*) FILTER (WHERE status = 'FAILURE') AS failed"),
            unit="short", thresholds=steps(GREEN, (1, RED)),
        ),
        stat(
            3, "Success rate", "Share of the finished runs of the time range that succeeded.",
            runs(
                "(count(*) FILTER (WHERE status = 'SUCCESS'))::double precision"
                " / nullif(count(*) FILTER (WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')), 0) AS rate"
            ),
            unit="percentunit", decimals=1, thresholds=steps(RED, (0.9, ORANGE), (0.99, GREEN)), nothing="no runs",
        ),
        stat(
            4, "Running", "Runs under way now; dagster.yaml allows two at once.",
            _dagster("SELECT count(*) AS runs FROM runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING')", is_table=True),
            unit="short",
        ),
        stat(
            5, "Queue", "Age of the oldest run that waits for its turn.",
            _dagster(
                "SELECT extract(epoch FROM now() - min(created))::double precision AS age"
                f" FROM {_RUNS} WHERE status IN ('QUEUED', 'NOT_STARTED')",
                is_table=True,
            ),
            unit="s", decimals=0, thresholds=steps(YELLOW, (1800, RED)), nothing="empty",
        ),
        stat(
            6, "Daemon", "Age of the oldest heartbeat among the daemon's parts; each beats about every 30 s.",
            _dagster(
                "SELECT extract(epoch FROM now() - min(\"timestamp\" AT TIME ZONE 'UTC'))::double precision AS age"
                " FROM daemon_heartbeats",
                is_table=True,
            ),
            unit="s", decimals=0, thresholds=steps(GREEN, (180, ORANGE), (1800, RED)), nothing="never ran",
        ),
    )  # fmt: skip


def _runs() -> list[Json]:
    return row(
        101, "Runs",
        timeseries(
            10, "Runs by outcome", "Runs by the time they were created, and how they ended.",
            _dagster(f"""
                SELECT date_bin('$__interval', created, TIMESTAMPTZ '2000-01-03 00:00:00+00') AS time, status AS metric,
                    count(*) AS value
                FROM {_RUNS} WHERE $__timeFilter(created) AND job IN ($job) GROUP BY 1, 2 ORDER BY 1
            """),
            unit="short", size=(8, 8), bars=True, stacked=True, overrides=_COLOURS,
        ) | {"interval": "1h"},
        timeseries(
            11, "Durations", "How long each run took, at the time of its end.",
            _dagster(f"""
                SELECT ended AS time, job AS metric, end_time - start_time AS value
                FROM {_RUNS} WHERE $__timeFilter(ended) AND job IN ($job) AND start_time IS NOT NULL ORDER BY 1
            """),
            unit="s", size=(8, 8), points=True,
        ),
        timeseries(
            12, "Wait before start", "From a run's creation to its start: the queue, and the start of its process.",
            _dagster(f"""
                SELECT started AS time, job AS metric,
                    greatest(extract(epoch FROM started - created)::double precision, 0) AS value
                FROM {_RUNS} WHERE $__timeFilter(started) AND job IN ($job) ORDER BY 1
            """),
            unit="s", size=(8, 8), points=True,
        ),
        table(
            13, "Newest runs", "The last 100 runs of the time range. The run's number leads to its page in Dagster.",
            _dagster(
                f"""
                SELECT created, job, status, end_time - start_time AS duration,
                    coalesce(partition, (
                        SELECT string_agg(DISTINCT value, ' to ' ORDER BY value) FROM run_tags
                        WHERE run_tags.run_id = run.run_id AND key LIKE 'dagster/asset_partition_range_%'
                    )) AS days,
                    run_id AS run
                FROM {_RUNS} WHERE $__timeFilter(created) AND job IN ($job) ORDER BY created DESC LIMIT 100
                """,
                is_table=True,
            ),
            size=(24, 9),
            overrides=[
                column("created", unit="dateTimeAsIso", custom__width=180),
                column("status", mappings=_STATUS, custom__cellOptions=cell_background(), custom__width=110),
                column("duration", unit="s", decimals=1, custom__width=110),
                column("run", links=[data_link("The run in Dagster", "${dagster}/runs/${__value.raw}", new_tab=True)]),
            ],
        ),
    )  # fmt: skip


def _rollups() -> list[Json]:
    return row(
        102, "Lag",
        table(
            20, "Rollups", "How far each rollup is materialized, how far its source is ahead, and what waits for a refresh.",
            sql(
                "SELECT rollup, watermark, lag_seconds AS lag, waiting, refreshed_at AS refreshed FROM rollup_progress",
                table=True,
            ),
            size=(14, 7),
            overrides=[
                column("watermark", unit="dateTimeAsIso"),
                column("refreshed", unit="dateTimeAsIso"),
                column("lag", unit="s", decimals=1, thresholds=steps(GREEN, (86400, ORANGE)),
                       custom__cellOptions=cell_background()),
                column("waiting", unit="suffix: buckets", thresholds=steps(GREEN, (1, YELLOW), (100, ORANGE)),
                       custom__cellOptions=cell_background()),
            ],
        ),
        timeseries(
            21, "Load after the day's end",
            "From the end of each UTC day to its newest load that found a change. Late readings and backfills make it long.",
            sql("""
                SELECT day::timestamp AT TIME ZONE 'UTC' AS time,
                    greatest(extract(epoch FROM load_at - (day + 1)::timestamp AT TIME ZONE 'UTC')::double precision, 0) AS delay
                FROM reading_days WHERE whole AND $__timeFilter(day::timestamp AT TIME ZONE 'UTC') ORDER BY 1
            """),
            unit="s", size=(10, 7), bars=True, legend="hidden",
        ),
        timeseries(
            22, "Missing documents",
            "Documents that MongoDB holds and no load has read, at each count of the ledger (hourly); and days whose documents"
            " the sweep found to be others than were read. `hub ledger` names the days; runs for them are asked for.",
            sql("""
                SELECT counted_at AS time, stream AS metric, missing AS value
                FROM ledger_runs WHERE $__timeFilter(counted_at) ORDER BY 1
            """),
            sql("""
                SELECT counted_at AS time, stream || ': days changed' AS metric, changed_days AS value
                FROM ledger_runs WHERE $__timeFilter(counted_at) ORDER BY 1
            """, ref="B"),
            unit="short", size=(14, 7),
        ),
        table(
            23, "Ledger", "The newest count of each stream: what MongoDB holds, and what of it is missing here.",
            sql(
                """
                SELECT DISTINCT ON (stream) stream, counted_at AS counted, documents, undated, missing, missing_days AS "days missing",
                    changed_days AS "days changed"
                FROM ledger_runs ORDER BY stream, counted_at DESC
                """,
                table=True,
            ),
            size=(10, 7), nothing="no count yet",
            overrides=[
                column("counted", unit="dateTimeFromNow", custom__width=130),
                *(
                    column(name, thresholds=steps(GREEN, (1, RED)), custom__cellOptions=cell_background())
                    for name in ("missing", "days missing", "days changed")
                ),
            ],
        ),
    )  # fmt: skip


def _automation() -> list[Json]:
    def ticks(kind: str) -> Json:
        return _dagster(f"""
            SELECT date_bin('$__interval', ticked, TIMESTAMPTZ '2000-01-03 00:00:00+00') AS time, status AS metric,
                count(*) AS value
            FROM {_ticks()} WHERE $__timeFilter(ticked) AND type = '{kind}' GROUP BY 1, 2 ORDER BY 1
        """)

    kept = "Dagster forgets ticks that had nothing to do: of sensors after 2 days, of schedules after 7."
    return row(
        103, "Sensors, schedules and checks",
        timeseries(30, "Sensor ticks", f"How often sensors looked, and what came of it. {kept}", ticks("SENSOR"), unit="short",
                   bars=True, stacked=True, overrides=_COLOURS, size=(12, 7)) | {"interval": "10m"},
        timeseries(31, "Schedule ticks", f"How often schedules came due, and what came of it. {kept}", ticks("SCHEDULE"),
                   unit="short", bars=True, stacked=True, overrides=_COLOURS, size=(12, 7)) | {"interval": "1h"},
        table(
            32, "Last ticks", "The newest tick of each sensor and schedule that is switched on, or was.",
            _dagster(
                f"""
                SELECT name, lower(type) AS kind, ticked, status, coalesce(error, reason) AS "what it said"
                FROM {_ticks("(SELECT DISTINCT ON (selector_id) * FROM job_ticks ORDER BY selector_id, id DESC) AS newest")}
                ORDER BY name
                """,
                is_table=True,
            ),
            size=(12, 9),
            overrides=[
                column("kind", custom__width=90),
                column("ticked", unit="dateTimeFromNow", custom__width=130),
                column("status", mappings=_STATUS, custom__cellOptions=cell_background(), custom__width=120),
            ],
        ),
        table(
            33, "Checks", "The newest result of each asset check, failed ones first.",
            _dagster(
                """
                SELECT asset_key::jsonb->>-1 AS asset, check_name AS check, status,
                    evaluation_event_timestamp AT TIME ZONE 'UTC' AS checked, run_id AS run
                FROM (
                    SELECT DISTINCT ON (asset_key, check_name)
                        asset_key, check_name, execution_status AS status, run_id, evaluation_event_timestamp
                    FROM asset_check_executions
                    WHERE execution_status <> 'PLANNED'
                    ORDER BY asset_key, check_name, id DESC
                ) AS newest
                ORDER BY status = 'SUCCEEDED', asset, check_name
                """,
                is_table=True,
            ),
            size=(12, 9), nothing="no check has run yet",
            overrides=[
                column("status", mappings=_STATUS, custom__cellOptions=cell_background(), custom__width=110),
                column("checked", unit="dateTimeFromNow", custom__width=130),
                column("run", custom__width=110,
                       links=[data_link("The run in Dagster", "${dagster}/runs/${__value.raw}", new_tab=True)]),
            ],
        ),
    )  # fmt: skip
