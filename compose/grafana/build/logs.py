"""The dashboard *Logs*: the lines of every service, errors over time, and services that start again and again."""

from __future__ import annotations

from compose.grafana.build.parts import (
    GREEN,
    ORANGE,
    RED,
    Json,
    dashboard,
    label_variable,
    log_lines,
    logql,
    row,
    stat,
    steps,
    text_variable,
    timeseries,
)

UID = "rh-logs"
CHOSEN = '{service=~"$service", level=~"$level"} |~ `(?i)$search`'
# Of a JSON line its message, its error and its traceback are shown, of any other the line itself.
_READABLE = (
    " | json msg=`msg`, event=`event`, error=`error`, exc=`exc` | drop __error__, __error_details__"
    " | line_format `{{ or .msg .event __line__ }}{{ with .error }} {{ . }}{{ end }}{{ with .exc }} {{ . }}{{ end }}`"
)
# Every line has a level: debug, info, warning, error, critical or unknown (compose/promtail).
ERRORS = "error|critical"
_WARNINGS = "warning"
# What each program writes once when it starts. A container that Docker restarts keeps its name and goes on in
# the same stream: its start is the only trace of it in the logs.
STARTS = (
    "listening on IPv4 address"  # PostgreSQL; the server that sets a new database up listens on its socket only
    "|Starting (Grafana|Loki|Promtail)"
    "|Started Dagster code server"
    "|Serving dagster-webserver"
    "|Instance is configured with the following daemons"
    "|Uvicorn running on"  # the proxy
    r"|sampling \S+ every"  # the collector of host metrics
)


def _selected(levels: str) -> str:
    return f'{{service=~"$service", level=~"{levels}"}} |~ `(?i)$search`'


def build() -> Json:
    return dashboard(
        UID,
        "Logs",
        "Log lines of every service, from Loki. A line of a run leads to its page in Dagster: open the line's details.",
        [*_glance(), *_lines()],
        since="now-6h",
        refresh="1m",
        variables=[
            label_variable("service", "Service", "A service of the stack, or a unit of the host.", every=".+"),
            label_variable("level", "Level", "How bad it is; `unknown` where the line does not say.", every=".+"),
            text_variable("search", "Search", "A regular expression; upper and lower case are the same."),
        ],
    )


def _glance() -> list[Json]:
    return row(
        100, "Over time",
        stat(
            1, "Errors", "Lines of level error or worse in the time range.",
            logql(f"sum(count_over_time({_selected(ERRORS)} [$__range]))", instant=True),
            unit="short", size=(3, 7), thresholds=steps(GREEN, (1, RED)), nothing="0",
        ),
        stat(
            2, "Warnings", "Lines of level warning in the time range.",
            logql(f"sum(count_over_time({_selected(_WARNINGS)} [$__range]))", instant=True),
            unit="short", size=(3, 7), thresholds=steps(GREEN, (1, ORANGE)), nothing="0",
        ),
        timeseries(
            10, "Lines by level", "How many lines were written, by level.",
            logql(f"sum by (level) (count_over_time({CHOSEN} [$__auto]))", legend="{{level}}"),
            unit="short", size=(9, 7), bars=True, stacked=True,
        ),
        timeseries(
            11, "Errors by service", "Lines of level error or worse, by service.",
            logql(f"sum by (service) (count_over_time({_selected(ERRORS)} [$__auto]))", legend="{{service}}"),
            unit="short", size=(9, 7), bars=True, stacked=True,
        ),
        timeseries(
            12, "Starts by service", "How often each service started, seen by what it writes then. More than one: it was restarted.",
            logql(
                f'sum by (service) (count_over_time({{service=~"$service"}} |~ `{STARTS}` [$__auto]))', legend="{{service}}",
            ),
            unit="short", size=(12, 6), bars=True, stacked=True,
        ),
        timeseries(
            13, "Lines by service", "How many lines were written, by service.",
            logql(f"sum by (service) (count_over_time({CHOSEN} [$__auto]))", legend="{{service}}"),
            unit="short", size=(12, 6), bars=True, stacked=True,
        ),
    )  # fmt: skip


def _lines() -> list[Json]:
    return row(
        101, "Lines",
        log_lines(20, "Lines", "The chosen lines, the newest first. Details of a line have its labels and the link to its run.",
                  logql(CHOSEN + _READABLE)),
    )  # fmt: skip
