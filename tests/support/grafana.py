"""Grafana's files as the tests see them, and its queries as Grafana sends them: macros and variables put in."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "compose" / "grafana"
Json = dict[str, Any]

# Macros are called by name with arguments that hold no closing bracket, as in Grafana.
_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
_VARIABLE = re.compile(r"\$(?:([a-z]\w*)|\{([a-z]\w*)\})")


@dataclasses.dataclass(frozen=True)
class Query:
    """A query of a panel, a variable or an alert rule; `where` names it in a failure."""

    where: str
    kind: str
    """The panel's type, `variable` or `alert`."""
    datasource: str
    text: str
    table: bool
    panel: Json


@dataclasses.dataclass(frozen=True)
class Range:
    """A time range, and the interval that Grafana chooses for it on a panel of about 600 pixels."""

    since: dt.datetime
    until: dt.datetime
    interval: str


def dashboards() -> dict[str, Json]:
    """The dashboards by uid."""
    found = [json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))]
    return {one["uid"]: one for one in found}


def provisioned(name: str) -> Json:
    """A file below provisioning/."""
    return yaml.safe_load((FOLDER / "provisioning" / name).read_text())


def panels(dashboard: Json) -> list[Json]:
    """The panels of a dashboard, its headings left out."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def rules() -> list[Json]:
    """The alert rules of every group."""
    return [rule for group in provisioned("alerting/rules.yaml")["groups"] for rule in group["rules"]]


def queries() -> list[Query]:
    """Every query there is, of databases and of Loki."""
    return [*_of_dashboards(), *_of_rules()]


def _of_dashboards() -> Iterator[Query]:
    for uid, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                text = target.get("rawSql") or target["expr"]
                table = target.get("format") == "table"
                where = f"{uid} {panel['title']}"
                yield Query(where, panel["type"], target["datasource"]["uid"], text, table, panel)
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and isinstance(variable["query"], str):
                where = f"{uid} ${variable['name']}"
                yield Query(where, "variable", variable["datasource"]["uid"], variable["query"], True, {})


def _of_rules() -> Iterator[Query]:
    for rule in rules():
        for one in rule["data"]:
            if one["datasourceUid"] != "__expr__":
                text = one["model"].get("rawSql") or one["model"]["expr"]
                yield Query(rule["uid"], "alert", one["datasourceUid"], text, one["model"].get("format") == "table", {})


def every() -> dict[str, dict[str, str]]:
    """By dashboard, what each variable that takes several values stands for while All is chosen."""
    return {
        uid: {one["name"]: one["allValue"] for one in dashboard["templating"]["list"] if one.get("includeAll")}
        for uid, dashboard in dashboards().items()
    }


def literals(*values: str) -> str:
    """Chosen values as Grafana puts them into SQL."""
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


def with_variables(text: str, values: Mapping[str, str]) -> str:
    """Put variables in, as the browser does. Raises KeyError for one that the dashboard does not have."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def expand(text: str, chosen: Range, *, timescale: bool) -> str:
    """Put the macros of Grafana's PostgreSQL datasource in, as its backend does. Raises ValueError for an unknown one."""
    text = text.replace("$__interval", chosen.interval)

    def macro(found: re.Match[str]) -> str:
        return _macro(found[1], [part.strip() for part in found[2].split(",")], chosen, timescale)

    return _MACRO.sub(macro, text)


def _macro(name: str, arguments: Sequence[str], chosen: Range, timescale: bool) -> str:
    column, since, until = arguments[0], _stamp(chosen.since), _stamp(chosen.until)
    epochs = int(chosen.since.timestamp()), int(chosen.until.timestamp())
    if name in ("__timeGroup", "__timeGroupAlias"):
        seconds = _seconds(arguments[1].strip("'"))
        floor = f"floor(extract(epoch from {column})/{seconds})*{seconds}"
        group = f"time_bucket('{seconds:.3f}s',{column})" if timescale else floor
        return group if name == "__timeGroup" else f'{group} AS "time"'
    known = {
        "__time": f'{column} AS "time"',
        "__timeEpoch": f'extract(epoch from {column}) as "time"',
        "__timeFilter": f"{column} BETWEEN {since} AND {until}",
        "__timeFrom": since,
        "__timeTo": until,
        "__unixEpochFilter": f"{column} >= {epochs[0]} AND {column} <= {epochs[1]}",
        "__unixEpochFrom": str(epochs[0]),
        "__unixEpochTo": str(epochs[1]),
    }
    if name not in known:
        raise ValueError(f"Grafana's PostgreSQL datasource has no macro ${name}")
    return known[name]


def _stamp(time: dt.datetime) -> str:
    return f"'{time.astimezone(dt.UTC).isoformat().replace('+00:00', 'Z')}'"


def _seconds(interval: str) -> float:
    return float(interval[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[interval[-1]]
