"""The dashboard *Hosts*: CPU, memory, disks and network of every host that runs the collector."""

from __future__ import annotations

from compose.grafana.build.parts import (
    ORANGE,
    RED,
    YELLOW,
    Json,
    bargauge,
    cell_background,
    column,
    dashboard,
    query_variable,
    row,
    sql,
    steps,
    table,
    timeseries,
)

UID = "rh-hosts"
_RANGE = "Five-minute averages in time ranges up to 3 days, hourly ones beyond."
_FILL = steps("green", (70, YELLOW), (85, RED))


def _chosen(value: str, name: str = "host", joined: str = "") -> Json:
    """A series for each chosen host, of the rollup that fits the time range."""
    return sql(f"""
        SELECT bucket AS time, {name} AS metric, {value} AS value
        FROM system_metrics_between($__timeFrom(), $__timeTo()){joined}
        WHERE host IN ($host) ORDER BY 1
    """)


def build() -> Json:
    return dashboard(
        UID,
        "Hosts",
        "CPU, memory, disks and network of the hosts that run `hub metrics collect`.",
        [*_now(), *_work(), *_disks(), *_network()],
        since="now-6h",
        refresh="1m",
        variables=[
            query_variable(
                "host", "Host", "A host that runs the collector.",
                "SELECT DISTINCT host FROM system_metrics_hourly UNION SELECT DISTINCT host FROM system_metrics_5m ORDER BY 1",
                every="host",
            )
        ],
    )  # fmt: skip


def _now() -> list[Json]:
    return row(
        100, "Now",
        table(
            1, "Hosts", "The newest sample of each host. A sample older than five minutes means a collector that is down.",
            sql(
                """
                SELECT
                    host,
                    max(cpu) AS "CPU", max(load) AS "load per core", max(memory) AS memory, max(disk) AS "fullest disk",
                    max(uptime) AS uptime,
                    extract(epoch FROM now() - max(time))::double precision AS "newest sample"
                FROM (
                    SELECT DISTINCT ON (host, metric_type)
                        host, time,
                        CASE metric_type WHEN 'cpu' THEN (payload->>'percent')::double precision END AS cpu,
                        CASE metric_type WHEN 'cpu' THEN
                            (payload->>'load_1m')::double precision / (payload->>'cores')::double precision END AS load,
                        CASE metric_type WHEN 'memory' THEN (payload->>'percent')::double precision END AS memory,
                        CASE metric_type WHEN 'disk' THEN (payload->>'percent')::double precision END AS disk,
                        CASE metric_type WHEN 'uptime' THEN (payload->>'seconds')::double precision END AS uptime
                    FROM system_metrics
                    WHERE time >= now() - INTERVAL '1 day' AND host IN ($host)
                    ORDER BY host, metric_type, time DESC
                ) AS newest
                GROUP BY host ORDER BY host
                """,
                table=True,
            ),
            size=(16, 6), nothing="no sample in the last 24 hours: is `hub metrics collect` running?",
            overrides=[
                column("CPU", unit="percent", decimals=0, thresholds=steps("green", (80, ORANGE), (95, RED)),
                       custom__cellOptions=cell_background()),
                column("memory", unit="percent", decimals=0, thresholds=steps("green", (80, ORANGE), (95, RED)),
                       custom__cellOptions=cell_background()),
                column("fullest disk", unit="percent", decimals=0, thresholds=_FILL, custom__cellOptions=cell_background()),
                column("load per core", unit="none", decimals=2),
                column("uptime", unit="s", decimals=0),
                column("newest sample", unit="s", decimals=0, thresholds=steps("green", (300, RED)),
                       custom__cellOptions=cell_background()),
            ],
        ),
        bargauge(
            2, "Disks now", "How full each file system is, of what ordinary users can have. At 85 % an alert fires.",
            sql(
                "SELECT host || ' ' || mount AS disk, percent FROM system_disks WHERE host IN ($host) ORDER BY percent DESC",
                table=True,
            ),
            unit="percent", size=(8, 6), thresholds=_FILL, maximum=100,
        ),
    )  # fmt: skip


def _work() -> list[Json]:
    return row(
        101, "CPU and memory",
        timeseries(10, "CPU", f"Share of all cores that is busy. {_RANGE}", _chosen("cpu_percent_avg"), unit="percent",
                   maximum=100, size=(8, 7)),
        timeseries(
            11, "Load per core", f"Processes that run or wait, for each core; above 1 they wait for each other. {_RANGE}",
            _chosen("load_1m_avg / nullif(cpu_cores, 0)"), unit="none", decimals=2, size=(8, 7),
        ),
        timeseries(
            12, "Memory", f"Share of the memory that is not available to new processes. {_RANGE}",
            _chosen("100 * memory_used_avg / nullif(memory_total, 0)"), unit="percent", maximum=100, size=(8, 7),
        ),
        timeseries(13, "Swap", "The most swap in use in each bucket.", _chosen("swap_used_max"), unit="bytes", size=(12, 7)),
        timeseries(
            14, "Temperature", "The hottest sensor in each bucket; empty on hosts without sensors.",
            sql("""
                SELECT bucket AS time, host AS metric, temperature_max AS value
                FROM system_metrics_between($__timeFrom(), $__timeTo())
                WHERE host IN ($host) AND temperature_max IS NOT NULL ORDER BY 1
            """),
            unit="celsius", minimum=None, size=(12, 7),
        ),
    )  # fmt: skip


def _disks() -> list[Json]:
    return row(
        102, "Disks",
        timeseries(
            20, "Disk fill", "How full each file system was at the end of each bucket.",
            _chosen(
                "(mount.value->>'percent')::double precision", "host || ' ' || mount.key",
                " CROSS JOIN LATERAL jsonb_each(disk_mounts) AS mount",
            ),
            unit="percent", maximum=100, size=(8, 7), thresholds=steps("transparent", (85, RED)),
        ),
        timeseries(21, "Disk reads", f"Bytes a second, of all disks. {_RANGE}", _chosen("disk_read_rate_avg"), unit="Bps",
                   size=(8, 7)),
        timeseries(22, "Disk writes", f"Bytes a second, of all disks. {_RANGE}", _chosen("disk_write_rate_avg"), unit="Bps",
                   size=(8, 7)),
    )  # fmt: skip


def _network() -> list[Json]:
    return row(
        103, "Network",
        timeseries(30, "Received", f"Bytes a second, of all interfaces. {_RANGE}", _chosen("receive_rate_avg"), unit="Bps",
                   size=(8, 7)),
        timeseries(31, "Sent", f"Bytes a second, of all interfaces. {_RANGE}", _chosen("send_rate_avg"), unit="Bps",
                   size=(8, 7)),
        timeseries(
            32, "Errors and drops", "Packets with an error or dropped since the bucket before, by interface.",
            sql("""
                SELECT time, metric, greatest(packets - lag(packets) OVER (PARTITION BY metric ORDER BY time), 0) AS value
                FROM (
                    SELECT
                        bucket AS time, host || ' ' || interface.key AS metric,
                        (interface.value->>'errors')::double precision + (interface.value->>'drops')::double precision AS packets
                    FROM system_metrics_between($__timeFrom(), $__timeTo())
                    CROSS JOIN LATERAL jsonb_each(interfaces) AS interface
                    WHERE host IN ($host)
                ) AS counters
                ORDER BY 1
            """),
            unit="short", size=(8, 7), bars=True,
        ),
    )  # fmt: skip
