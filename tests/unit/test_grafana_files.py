"""Grafana's files: what they are built from, what nobody may change unnoticed, and that all of it holds together."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from assets.checks import REJECTED_SHARE, STALE_HOURS
from compose.grafana.build import logs as built_logs
from compose.grafana.build.dashboards import built
from hub.settings import Settings
from tests.support import grafana, logql

DASHBOARDS = grafana.dashboards()
EACH = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
PANELS = [(uid, panel) for uid, one in DASHBOARDS.items() for panel in grafana.panels(one)]
EACH_PANEL = pytest.mark.parametrize(("uid", "panel"), PANELS, ids=[f"{uid} {panel['title']}" for uid, panel in PANELS])
LOG_LABELS = {"container", "job", "service", "level", "unit"}


def test_the_files_are_what_the_source_builds() -> None:
    have = {path.name: path.read_text() for path in (grafana.FOLDER / "dashboards").iterdir()}
    assert have == built(), "run python -m compose.grafana.build"


def test_uids_and_titles_stay_as_they_are() -> None:
    """Bookmarks, links and alert rules name them, and a datasource whose uid changes is left aside by Grafana."""
    assert {uid: one["title"] for uid, one in DASHBOARDS.items()} == {
        "rh-reading": "Reading",
        "rh-hosts": "Hosts",
        "rh-pipeline": "Pipeline",
        "rh-backups": "Backups",
        "rh-logs": "Logs",
    }
    sources = grafana.provisioned("datasources/datasources.yaml")["datasources"]
    assert [(one["uid"], one["name"], one["type"]) for one in sources] == [
        ("reading-hub", "Reading Hub", "grafana-postgresql-datasource"),
        ("dagster", "Dagster", "grafana-postgresql-datasource"),
        ("loki", "Loki", "loki"),
    ]
    assert [(rule["uid"], rule["title"]) for rule in grafana.rules()] == [
        ("rh-backup-stale", "No verified backup in 26 hours"),
        ("rh-readings-stale", "No reading loaded in 26 hours"),
        ("rh-rejects", "More than 5 % of the documents are rejected"),
        ("rh-run-failed", "A job fails"),
        ("rh-disk-full", "A disk is more than 85 % full"),
        ("rh-error-logs", "A service logs errors"),
        ("rh-restarting", "A container restarts again and again"),
    ]


@EACH
def test_the_schema_of_dashboards_knows_every_part(dashboard: dict[str, Any]) -> None:
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    assert list(_lost(dashboard, again)) == []


def _lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """What of `given` is missing in `kept` or differs there."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            yield from _lost(value, kept[name], f"{path}.{name}") if name in kept else [f"{path}.{name}"]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


@EACH_PANEL
def test_a_panel_says_what_it_shows_and_in_which_unit(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith("."), "a description is a sentence"
    assert panel["type"] == "logs" or panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] in ("reading-hub", "dagster", "loki")
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]


@EACH
def test_panels_have_numbers_of_their_own_and_fit_into_the_grid(dashboard: dict[str, Any]) -> None:
    everything = dashboard["panels"]
    numbers = [panel["id"] for panel in everything]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = set(itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ))  # fmt: skip
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = max(y for _, y in taken) + 1
    assert len(taken) == 24 * rows, "a line of panels is not full"


@EACH
def test_variables_and_datasources_that_are_used_exist(dashboard: dict[str, Any]) -> None:
    names = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard)))
    assert used == names
    for one in dashboard["templating"]["list"]:
        assert one["label"]
        assert one["description"]
    sources = {one["uid"]: one["type"] for one in grafana.provisioned("datasources/datasources.yaml")["datasources"]}
    for reference in _references(dashboard):
        assert sources[reference["uid"]] == reference["type"]


def _references(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _references(one)


@EACH
def test_dashboards_lead_to_each_other_and_say_how_old_they_are(dashboard: dict[str, Any]) -> None:
    first = dashboard["links"][0]
    assert first["type"] == "dashboards"
    assert set(first["tags"]) <= set.intersection(*(set(one["tags"]) for one in DASHBOARDS.values()))
    assert dashboard["timezone"] == "utc"
    assert dashboard["time"]["to"] == "now"
    assert dashboard["refresh"] in dashboard["timepicker"]["refresh_intervals"]
    assert dashboard["description"]
    assert not dashboard["editable"]


def test_the_pipeline_leads_to_dagster() -> None:
    pipeline = DASHBOARDS["rh-pipeline"]
    assert [link["url"] for link in pipeline["links"][1:]] == ["${dagster}/runs"]
    runs = next(panel for panel in grafana.panels(pipeline) if panel["title"] == "Newest runs")
    links = [one["value"][0]["url"] for override in runs["fieldConfig"]["overrides"]
             for one in override["properties"] if one["id"] == "links"]  # fmt: skip
    assert links == ["${dagster}/runs/${__value.raw}"]


@pytest.mark.parametrize("rule", grafana.rules(), ids=lambda rule: rule["uid"])
def test_an_alert_says_what_to_do_and_where_to_look(rule: dict[str, Any]) -> None:
    panel = {panel["id"] for panel in grafana.panels(DASHBOARDS[rule["dashboardUid"]])}
    assert rule["panelId"] in panel
    assert f"/d/{rule['dashboardUid']}" in rule["annotations"]["description"]
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["noDataState"] in ("OK", "NoData", "Alerting")
    assert rule["execErrState"] == "Error"
    assert rule["condition"] == rule["data"][-1]["refId"] == rule["data"][-1]["model"]["refId"]
    steps = [(one["refId"], one["model"].get("type"), one["model"].get("expression")) for one in rule["data"]]
    if rule["data"][0]["datasourceUid"] == "loki":  # Grafana does not compare a series
        assert steps == [("A", None, None), ("B", "reduce", "A"), ("C", "threshold", "B")]
    else:
        assert steps == [("A", None, None), ("B", "threshold", "A")]
    # Grafana puts environment variables into annotations: a dollar sign would be one.
    assert "$" not in json.dumps(rule["annotations"])
    for one in rule["data"]:
        assert one["datasourceUid"] == one["model"]["datasource"]["uid"]
        assert one["datasourceUid"] in ("reading-hub", "dagster", "loki", "__expr__")


def test_the_limits_are_those_of_the_checks_in_dagster() -> None:
    limits = {
        rule["uid"]: rule["data"][-1]["model"]["conditions"][0]["evaluator"]["params"] for rule in grafana.rules()
    }
    assert limits["rh-readings-stale"] == [STALE_HOURS]
    assert limits["rh-rejects"] == [100 * REJECTED_SHARE]
    assert limits["rh-backup-stale"] == [Settings.model_fields["backup_stale_hours"].default]
    assert limits["rh-disk-full"] == [85]


def test_rules_and_dashboards_have_folders_of_their_own() -> None:
    """Grafana makes the folder of rules first, under a uid of its own: a shared one would be there twice."""
    (provider,) = grafana.provisioned("dashboards/dashboards.yaml")["providers"]
    assert (provider["folder"], provider["folderUid"]) == ("Reading Hub", "reading-hub")
    folders = {group["folder"] for group in grafana.provisioned("alerting/rules.yaml")["groups"]}
    assert folders == {"Reading Hub alerts"}


def test_alerts_send_nothing_before_somebody_says_where() -> None:
    notifications = grafana.provisioned("alerting/notifications.yaml")
    (mute,), (policy,) = notifications["muteTimes"], notifications["policies"]
    assert mute["time_intervals"] == [{"times": [{"start_time": "00:00", "end_time": "24:00"}]}]
    (route,) = policy["routes"]
    assert route["object_matchers"] == [["alertname", "=~", ".+"]]
    assert route["mute_time_intervals"] == [mute["name"]]


class TestDatasources:
    def test_databases_are_read_as_the_read_only_role(self) -> None:
        for one in grafana.provisioned("datasources/datasources.yaml")["datasources"][:2]:
            assert (one["url"], one["user"]) == ("${DB_HOST}:${DB_PORT}", "${GRAFANA_DB_USER}")
            assert one["secureJsonData"] == {"password": "$__file{/run/secrets/GRAFANA_DB_PASSWORD}"}
            assert one["jsonData"]["sslmode"] == "disable"
            assert "database" not in one, "Grafana 13 reads it from jsonData"
            assert not one["editable"]

    def test_each_names_its_database(self) -> None:
        hub, dagster, _ = grafana.provisioned("datasources/datasources.yaml")["datasources"]
        assert (hub["jsonData"]["database"], hub["jsonData"]["timescaledb"]) == ("${DB_NAME}", True)
        assert (dagster["jsonData"]["database"], dagster["jsonData"]["timescaledb"]) == ("${DAGSTER_DB_NAME}", False)

    def test_a_line_of_a_run_leads_to_the_run(self) -> None:
        loki = grafana.provisioned("datasources/datasources.yaml")["datasources"][2]
        assert loki["url"] == "http://loki:3100"
        in_text, in_label = loki["jsonData"]["derivedFields"]
        line = '{"level": "info", "msg": "loaded", "run_id": "0eff2234-d5c9-4cc7-85d3-c4bb4e36c04f"}'
        for text in (line, line.replace(": ", ":")):
            found = re.search(in_text["matcherRegex"], text)
            assert found
            assert found[1] == "0eff2234-d5c9-4cc7-85d3-c4bb4e36c04f"
        assert (in_label["matcherType"], in_label["matcherRegex"]) == ("label", "run_id")
        for field in (in_text, in_label):
            assert field["url"] == "${DAGSTER_PUBLIC_URL}/runs/$${__value.raw}"


class TestLogs:
    def test_every_query_of_loki_is_right(self) -> None:
        if reason := logql.missing():
            pytest.skip(reason)
        queries = [query for query in grafana.queries() if query.datasource == "loki"]
        for chosen in ({"service": ".+", "level": ".+", "search": ""},
                       {"service": "proxy|grafana", "level": "error", "search": "time ?out"}):  # fmt: skip
            parsed = logql.parse([logql.interpolate(query.text, chosen) for query in queries])
            for query, found in zip(queries, parsed, strict=True):
                assert found.problems == (), query.where
                assert found.kind == ("log" if query.kind == "logs" else "metric"), query.where
                assert found.labels() <= LOG_LABELS, query.where
                assert set(found.grouping) <= LOG_LABELS, query.where
        assert len(queries) == 9

    def test_the_alert_counts_the_starts_that_the_dashboard_shows(self) -> None:
        rule = next(rule for rule in grafana.rules() if rule["uid"] == "rh-restarting")
        assert f"`{built_logs.STARTS}`" in rule["data"][0]["model"]["expr"]

    @pytest.mark.parametrize("line", [
        '2026-11-24 20:07:01.923 UTC [1] LOG:  listening on IPv4 address "0.0.0.0", port 5432',
        'logger=settings t=2026-11-24T18:57:37Z level=info msg="Starting Grafana" version=13.0.0',
        'level=info ts=2026-11-24T18:57:37Z caller=main.go:126 msg="Starting Loki" version="(version=3.6.15)"',
        'level=info ts=2026-11-24T18:57:37Z caller=promtail.go:133 msg="Starting Promtail" version="(version=3.6.11)"',
        "Started Dagster code server for module pipelines.definitions on port 4000 in process 7",
        "Serving dagster-webserver on http://0.0.0.0:3000 in process 7",
        '{"level": "info", "logger": "uvicorn.error", "msg": "Uvicorn running on http://0.0.0.0:8085 (Press CTRL+C to quit)"}',
        '{"level": "info", "logger": "hub.metrics.collect", "msg": "sampling attic every 60 s"}',
        "Instance is configured with the following daemons: ['AssetDaemon', 'SensorDaemon']",
    ])  # fmt: skip
    def test_what_a_program_writes_when_it_starts_is_known(self, line: str) -> None:
        assert re.search(built_logs.STARTS, line)
