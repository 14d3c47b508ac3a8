"""The dashboard *Backups*: how old the newest verified one is, and what was done with backups."""

from __future__ import annotations

from compose.grafana.build.parts import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Json,
    cell_background,
    column,
    dashboard,
    mapped,
    query_variable,
    row,
    sql,
    stat,
    steps,
    table,
    timeseries,
)

UID = "rh-backups"
_STATE = mapped(done=("done", GREEN), failed=("failed", RED), lost=("lost", RED), running=("running", BLUE))
_FRESH = steps(GREEN, (26 * 3600, RED))
_DAYS_8 = steps(GREEN, (8 * 86400, ORANGE))


def build() -> Json:
    return dashboard(
        UID,
        "Backups",
        "Age of the newest verified backup, sizes, durations and restore drills, from the table backup_runs.",
        [*_glance(), *_trends(), *_history()],
        since="now-90d",
        refresh="5m",
        variables=[
            query_variable(
                "kind", "Kind", "What was done.", "SELECT DISTINCT kind FROM backup_runs ORDER BY 1", every="kind"
            )
        ],
    )


def _age(condition: str) -> Json:
    return sql(
        "SELECT extract(epoch FROM now() - max(finished_at))::double precision AS age"
        f" FROM backup_runs WHERE state = 'done' AND {condition}",
        table=True,
    )


def _glance() -> list[Json]:
    return row(
        100, "At a glance",
        stat(
            1, "Newest verified", "Age of the newest backup of which every byte was read back. At 26 hours an alert fires.",
            sql("SELECT extract(epoch FROM now() - max(taken_at))::double precision AS age FROM backup_verified", table=True),
            unit="s", decimals=1, thresholds=_FRESH, nothing="none", background=True,
        ),
        stat(
            2, "Last good drill", "Since a backup was last restored into a scratch database and found equal. Weekly, on Sunday.",
            _age("kind = 'drill'"), unit="s", decimals=1, thresholds=_DAYS_8, nothing="never",
        ),
        stat(
            3, "Last copy off-site", "Since a backup was last copied to BACKUP_URL and compared there.",
            _age("kind = 'upload'"), unit="s", decimals=1, thresholds=_FRESH, nothing="never",
        ),
        stat(
            4, "Size", "Size of the newest backup.",
            sql("SELECT bytes FROM backup_runs WHERE kind = 'backup' AND bytes IS NOT NULL ORDER BY id DESC LIMIT 1", table=True),
            unit="bytes", decimals=1, nothing="none",
        ),
        stat(
            5, "Duration", "How long the newest backup took.",
            sql("SELECT seconds FROM backup_runs WHERE kind = 'backup' AND state = 'done' ORDER BY id DESC LIMIT 1", table=True),
            unit="s", decimals=1, nothing="none",
        ),
        stat(
            6, "Went wrong", "Runs of the time range that failed, or whose process ended without a word.",
            sql(
                "SELECT count(*) AS runs FROM backup_runs WHERE $__timeFilter(started_at) AND state IN ('failed', 'lost')",
                table=True,
            ),
            unit="short", thresholds=steps(GREEN, (1, RED)),
        ),
    )  # fmt: skip


def _trends() -> list[Json]:
    return row(
        101, "Sizes and durations",
        timeseries(
            10, "Size", "Each backup, and what was backed up: the size on the server and in volumes.",
            sql("""
                SELECT started_at AS time, bytes AS backup, bytes_live AS "on the server"
                FROM backup_runs WHERE $__timeFilter(started_at) AND kind = 'backup' AND bytes IS NOT NULL ORDER BY 1
            """),
            unit="bytes", size=(8, 8),
        ),
        timeseries(
            11, "Rows", "Rows of all tables in each backup. Fewer than before wants a reason.",
            sql("""
                SELECT started_at AS time, rows
                FROM backup_runs WHERE $__timeFilter(started_at) AND kind = 'backup' AND rows IS NOT NULL ORDER BY 1
            """),
            unit="short", size=(8, 8), legend="hidden",
        ),
        timeseries(
            12, "Durations", "How long each run took, by kind.",
            sql("""
                SELECT started_at AS time, kind AS metric, seconds AS value
                FROM backup_runs
                WHERE $__timeFilter(started_at) AND kind IN ($kind) AND seconds IS NOT NULL ORDER BY 1
            """),
            unit="s", size=(8, 8), points=True,
        ),
    )  # fmt: skip


def _history() -> list[Json]:
    columns = [
        column("state", mappings=_STATE, custom__cellOptions=cell_background(), custom__width=90),
        column("started", unit="dateTimeAsIso", custom__width=170),
        column("duration", unit="s", decimals=1, custom__width=100),
        column("backup", custom__width=170),
        column("rows", unit="short", custom__width=90),
        column("size", unit="bytes", decimals=1, custom__width=100),
        column("kind", custom__width=80),
    ]
    return row(
        102, "History",
        table(
            20, "Drills", "The last 20 restore drills of the time range: a backup is restored, compared, dropped.",
            sql(
                """
                SELECT started_at AS started, backup, state, seconds AS duration, rows, message
                FROM backup_runs WHERE $__timeFilter(started_at) AND kind = 'drill' ORDER BY id DESC LIMIT 20
                """,
                table=True,
            ),
            size=(24, 6), overrides=columns[:5], nothing="no drill in this time range",
        ),
        table(
            21, "Runs", "The last 200 runs of the time range. `lost`: its process ended without a word.",
            sql(
                """
                SELECT started_at AS started, kind, backup, state, seconds AS duration, bytes AS size, rows, message
                FROM backup_runs WHERE $__timeFilter(started_at) AND kind IN ($kind) ORDER BY id DESC LIMIT 200
                """,
                table=True,
            ),
            size=(24, 10), overrides=columns,
        ),
    )  # fmt: skip
