"""The pieces that dashboards are made of: each function returns a part of Grafana's JSON.

Defaults that every panel shares stand here once. A panel's number is given by hand: links and alert rules name it.
"""

from __future__ import annotations

import textwrap
from typing import Any

Json = dict[str, Any]

HUB, DAGSTER, LOKI = "reading-hub", "dagster", "loki"
_TYPES = {HUB: "grafana-postgresql-datasource", DAGSTER: "grafana-postgresql-datasource", LOKI: "loki"}
# Grafana's grid is 24 columns wide; 8 rows are about 300 pixels.
_COLUMNS = 24
TAG = "reading-hub"

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"


def source(uid: str) -> Json:
    """A reference to a datasource."""
    return {"type": _TYPES[uid], "uid": uid}


# --- Queries ----------------------------------------------------------------------------------------------


def sql(text: str, *, database: str = HUB, table: bool = False, ref: str = "A") -> Json:
    """A query of a database: a time series (columns time, metric, value) unless `table`."""
    return {
        "refId": ref,
        "datasource": source(database),
        "editorMode": "code",
        "format": "table" if table else "time_series",
        "rawQuery": True,
        "rawSql": textwrap.dedent(text).strip(),
    }


def logql(expression: str, *, legend: str = "", instant: bool = False, ref: str = "A") -> Json:
    """A query of Loki."""
    return {
        "refId": ref,
        "datasource": source(LOKI),
        "editorMode": "code",
        "expr": textwrap.dedent(expression).strip(),
        "legendFormat": legend,
        "queryType": "instant" if instant else "range",
    }


# --- Fields -----------------------------------------------------------------------------------------------


def steps(base: str, *above: tuple[float, str]) -> Json:
    """Thresholds: a colour, and another one from each value on."""
    return {
        "mode": "absolute",
        "steps": [{"color": base, "value": None}, *({"color": color, "value": value} for value, color in above)],
    }


def column(name: str, **properties: Any) -> Json:
    """Properties of one column or series, by its name; `__` in a property's name stands for a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def mapped(**texts: tuple[str, str]) -> list[Json]:
    """Value mappings: value to text and colour."""
    options = {
        value: {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


def cell_background() -> Json:
    """A table cell in the colour of its value."""
    return {"type": "color-background", "mode": "basic"}


def data_link(title: str, url: str, *, new_tab: bool = False) -> Json:
    """A link of a value."""
    return {"title": title, "url": url, "targetBlank": new_tab}


# --- Panels -----------------------------------------------------------------------------------------------


def _panel(
    kind: str, number: int, title: str, description: str, queries: list[Json], size: tuple[int, int],
    *, defaults: Json, options: Json, overrides: list[Json] | None = None, transformations: list[Json] | None = None,
) -> Json:  # fmt: skip
    panel: Json = {
        "id": number,
        "type": kind,
        "title": title,
        "description": description,
        "datasource": queries[0]["datasource"],
        "gridPos": {"h": size[1], "w": size[0], "x": 0, "y": 0},
        "fieldConfig": {"defaults": defaults, "overrides": overrides or []},
        "options": options,
        "targets": queries,
    }
    if transformations:
        panel["transformations"] = transformations
    return panel


def timeseries(
    number: int, title: str, description: str, *queries: Json, unit: str, size: tuple[int, int] = (12, 8),
    bars: bool = False, stacked: bool = False, points: bool = False, minimum: float | None = 0,
    maximum: float | None = None, decimals: int | None = None, legend: str = "list", calcs: tuple[str, ...] = (),
    thresholds: Json | None = None, overrides: list[Json] | None = None,
) -> Json:  # fmt: skip
    """Values over time: lines, or bars, or points."""
    custom: Json = {
        "drawStyle": "bars" if bars else "points" if points else "line",
        "fillOpacity": 70 if bars else 25 if stacked else 8,
        "lineWidth": 0 if bars else 1,
        "pointSize": 6 if points else 4,
        "showPoints": "always" if points else "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults: Json = {"unit": unit, "custom": custom, "color": {"mode": "palette-classic"}}
    if thresholds:
        defaults |= {"thresholds": thresholds}
        custom["thresholdsStyle"] = {"mode": "dashed"}
    for name, value in (("min", minimum), ("max", maximum), ("decimals", decimals)):
        if value is not None:
            defaults[name] = value
    return _panel(
        "timeseries", number, title, description, list(queries), size, defaults=defaults, overrides=overrides,
        options={
            "legend": {
                "calcs": list(calcs), "displayMode": legend, "placement": "bottom", "showLegend": legend != "hidden",
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )  # fmt: skip


def stat(
    number: int, title: str, description: str, *queries: Json, unit: str, size: tuple[int, int] = (4, 4),
    thresholds: Json | None = None, decimals: int | None = None, mappings: list[Json] | None = None,
    nothing: str = "none", links: list[Json] | None = None, background: bool = False,
) -> Json:  # fmt: skip
    """One number; `nothing` is shown where the database has none. `background`: coloured by its thresholds."""
    defaults: Json = {
        "unit": unit,
        "color": {"mode": "thresholds"},
        "thresholds": thresholds or steps(BLUE),
        "mappings": [
            *(mappings or []),
            {"type": "special", "options": {"match": "null+nan", "result": {"text": nothing, "index": 99}}},
        ],
        "noValue": nothing,
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if links:
        defaults["links"] = links
    return _panel(
        "stat", number, title, description, list(queries), size, defaults=defaults,
        options={
            "colorMode": "background" if background else "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
            "wideLayout": True,
        },
    )  # fmt: skip


def table(
    number: int, title: str, description: str, query: Json, *, size: tuple[int, int] = (12, 8), unit: str = "none",
    overrides: list[Json] | None = None, transformations: list[Json] | None = None, sort: str | None = None,
    nothing: str = "nothing in this time range",
) -> Json:  # fmt: skip
    """Rows and columns; `sort` is the column that it is sorted by, the greatest first."""
    return _panel(
        "table", number, title, description, [query], size, overrides=overrides, transformations=transformations,
        defaults={"unit": unit, "custom": {"align": "auto", "cellOptions": {"type": "auto"}}, "noValue": nothing},
        options={
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
            "showHeader": True,
            "sortBy": [{"displayName": sort, "desc": True}] if sort else [],
        },
    )  # fmt: skip


def bargauge(
    number: int, title: str, description: str, query: Json, *, unit: str, size: tuple[int, int] = (8, 8),
    thresholds: Json | None = None, maximum: float | None = None,
) -> Json:  # fmt: skip
    """A bar for each row of a table with a name and a number."""
    defaults: Json = {"unit": unit, "min": 0, "color": {"mode": "thresholds"}, "thresholds": thresholds or steps(BLUE)}
    if maximum is not None:
        defaults["max"] = maximum
    return _panel(
        "bargauge", number, title, description, [query], size, defaults=defaults,
        options={
            "displayMode": "basic",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "limit": 20, "values": True},
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
    )  # fmt: skip


def log_lines(number: int, title: str, description: str, query: Json, *, size: tuple[int, int] = (24, 14)) -> Json:
    """Log lines."""
    return _panel(
        "logs", number, title, description, [query], size, defaults={},
        options={
            "dedupStrategy": "none",
            "enableLogDetails": True,
            "prettifyLogMessage": False,
            "showCommonLabels": False,
            "showLabels": False,
            "showTime": True,
            "sortOrder": "Descending",
            "wrapLogMessage": True,
        },
    )  # fmt: skip


# --- Variables --------------------------------------------------------------------------------------------


def query_variable(
    name: str, label: str, description: str, text: str, *, every: str | None, database: str = HUB, hidden: bool = False
) -> Json:
    """A variable whose values the database lists.

    With `every`, several may be chosen, and All stands for that SQL: the column itself, so that
    `source IN ($source)` becomes `source IN (source)` and holds in an empty database too.
    """
    one: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": source(database),
        "query": textwrap.dedent(text).strip(),
        "refresh": 1,
        "sort": 0,
        "hide": 2 if hidden else 0,
        "multi": every is not None,
        "includeAll": every is not None,
    }
    if every is not None:
        one |= {"allValue": every, "current": {"text": ["All"], "value": ["$__all"]}}
    return one


def label_variable(name: str, label: str, description: str, *, every: str) -> Json:
    """A variable with the values of the label of its name in Loki; `every` is what All stands for, as a regex."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": source(LOKI),
        "query": {"label": name, "refId": "A", "stream": "", "type": 1},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": every,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def text_variable(name: str, label: str, description: str) -> Json:
    """A field to type into."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": description,
        "query": "",
        "hide": 0,
        "current": {"text": "", "value": ""},
    }


# --- Dashboards -------------------------------------------------------------------------------------------


def row(number: int, title: str, *panels: Json) -> list[Json]:
    """A heading and the panels below it."""
    return [{"id": number, "type": "row", "title": title, "collapsed": False, "panels": []}, *panels]


def dashboard(
    uid: str, title: str, description: str, panels: list[Json], *, since: str, refresh: str,
    variables: list[Json], links: list[Json] | None = None,
) -> Json:  # fmt: skip
    """A dashboard; panels are set from left to right, and a new line begins where one does not fit."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": [TAG],
        "timezone": "utc",
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 41,
        "time": {"from": since, "to": "now"},
        "timepicker": {"refresh_intervals": ["30s", "1m", "5m", "15m", "1h"]},
        "refresh": refresh,
        "links": [
            {
                "type": "dashboards", "title": "Reading Hub", "icon": "external link", "tooltip": "",
                "tags": [TAG], "asDropdown": False, "includeVars": False, "keepTime": False, "targetBlank": False,
                "url": "",
            },
            *(links or []),
        ],
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": _set(panels),
    }  # fmt: skip


def outward(title: str, url: str, tooltip: str) -> Json:
    """A link at the dashboard's top to another site."""
    return {
        "type": "link", "title": title, "icon": "external link", "tooltip": tooltip, "tags": [], "asDropdown": False,
        "includeVars": False, "keepTime": False, "targetBlank": True, "url": url,
    }  # fmt: skip


def _set(panels: list[Json]) -> list[Json]:
    x = y = height = 0
    for panel in panels:
        if panel["type"] == "row":
            panel["gridPos"] = {"h": 1, "w": _COLUMNS, "x": 0, "y": y + height}
            x, y, height = 0, y + height + 1, 0
            continue
        place = panel["gridPos"]
        if x + place["w"] > _COLUMNS:
            x, y, height = 0, y + height, 0
        place |= {"x": x, "y": y}
        x, height = x + place["w"], max(height, place["h"])
    return panels
