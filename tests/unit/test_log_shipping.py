"""The rules of Loki, Promtail and Alloy, checked on their parsed files; the real programs check them in the other test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import alloy

COMPOSE = Path(__file__).resolve().parents[2] / "compose"
LOKI: dict[str, Any] = yaml.safe_load((COMPOSE / "loki" / "loki.yaml").read_text())
PROMTAIL: dict[str, Any] = yaml.safe_load((COMPOSE / "promtail" / "promtail.yaml").read_text())
ALLOY = alloy.parse((COMPOSE / "alloy" / "config.alloy").read_text())
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
CONTAINERS, JOURNAL = PROMTAIL["scrape_configs"]
DAYS = 31
LABELS = {"container", "job", "service", "level", "unit"}


# --- Loki -------------------------------------------------------------------------------------------------------


def test_loki_keeps_31_days_and_deletes_what_is_older() -> None:
    assert LOKI["limits_config"]["retention_period"] == f"{24 * DAYS}h"
    assert LOKI["compactor"]["retention_enabled"] is True
    assert LOKI["compactor"]["delete_request_store"] == "filesystem"
    [schema] = LOKI["schema_config"]["configs"]
    assert (schema["store"], schema["object_store"], schema["schema"]) == ("tsdb", "filesystem", "v13")
    assert schema["index"]["period"] == "24h"  # retention needs it


def test_all_that_is_kept_can_be_asked_for_and_caught_up_with() -> None:
    limits = LOKI["limits_config"]
    kept = hours(limits["retention_period"])
    assert hours(limits["max_query_length"]) >= kept
    assert hours(limits["max_query_lookback"]) >= kept
    assert hours(limits["reject_old_samples_max_age"]) == kept


def hours(text: str) -> int:
    return int(text.removesuffix("h"))


def test_loki_has_limits_and_takes_structured_metadata() -> None:
    limits = LOKI["limits_config"]
    assert limits["allow_structured_metadata"] is True
    assert limits["discover_service_name"] == []
    assert limits["discover_log_levels"] is False
    for name in ("ingestion_rate_mb", "per_stream_rate_limit", "max_line_size", "max_global_streams_per_user",
                 "max_query_series", "max_entries_limit_per_query", "query_timeout"):  # fmt: skip
        assert limits[name]


def test_loki_writes_to_its_volume_alone_and_calls_nobody() -> None:
    paths = re.findall(r"(?<=[ :{])/[\w/]+", re.sub(r"#.*", "", (COMPOSE / "loki" / "loki.yaml").read_text()))
    assert paths
    assert all(path.startswith("/loki") for path in paths)
    assert "loki_data:/loki" in SERVICES["loki"]["volumes"]
    assert LOKI["analytics"] == {"reporting_enabled": False}
    assert LOKI["ruler"]["enable_api"] is False
    assert LOKI["server"]["http_listen_address"] == "0.0.0.0"
    assert LOKI["server"]["http_listen_port"] == 3100


# --- Promtail ---------------------------------------------------------------------------------------------------


def test_promtail_takes_labelled_containers_and_so_never_its_own_lines() -> None:
    [discovery] = CONTAINERS["docker_sd_configs"]
    assert discovery["host"] == "tcp://docker-socket-proxy:2375"
    assert discovery["filters"] == [{"name": "label", "values": ["reading-hub.logs=true"]}]
    first = CONTAINERS["relabel_configs"][0]
    assert first == {
        "source_labels": ["__meta_docker_container_label_reading_hub_logs"], "regex": "true", "action": "keep",
    }  # fmt: skip
    for name in ("promtail", "alloy", "docker-socket-proxy"):
        assert "reading-hub.logs" not in SERVICES[name].get("labels", {})


def test_promtail_keeps_its_place_and_never_gives_up() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["promtail"]["volumes"])
    assert Path(PROMTAIL["positions"]["filename"]).parent == Path(mounts["promtail_data"])
    assert JOURNAL["journal"]["path"] == mounts["/var/log/journal"]
    [client] = PROMTAIL["clients"]
    assert client["url"] == "http://loki:3100/loki/api/v1/push"
    assert client["backoff_config"]["max_retries"] == 0  # without end
    assert PROMTAIL["server"]["http_listen_port"] == 9080


def relabelled(rules: list[dict[str, Any]], labels: dict[str, str]) -> dict[str, str] | None:
    """What Prometheus's rules make of the labels: expressions match whole values; None if dropped."""
    labels = dict(labels)
    for rule in rules:
        value = ";".join(labels.get(name, "") for name in rule.get("source_labels", []))
        found = re.fullmatch(rule.get("regex", "(.*)"), value)
        if rule.get("action") == "keep":
            if not found:
                return None
        elif found:
            template = re.sub(r"\$(\d)", r"\\\1", rule.get("replacement", "$1"))
            labels[rule["target_label"]] = found.expand(template)
    return {name: value for name, value in labels.items() if not name.startswith("__")}


def test_labels_of_a_container() -> None:
    docker = {
        "__meta_docker_container_name": "/reading-hub-proxy-1",
        "__meta_docker_container_label_com_docker_compose_service": "proxy",
        "__meta_docker_container_label_reading_hub_logs": "true",
    }
    assert relabelled(CONTAINERS["relabel_configs"], docker) == {
        "container": "reading-hub-proxy-1", "service": "proxy", "job": "reading-hub",
    }  # fmt: skip
    for value in ("", "false", "not true"):
        labels = {**docker, "__meta_docker_container_label_reading_hub_logs": value}
        assert relabelled(CONTAINERS["relabel_configs"], labels) is None


@pytest.mark.parametrize(
    ("unit", "transport", "label", "service"),
    [
        ("docker.service", "stdout", "docker.service", "docker"),
        ("reading-hub-gitops@prod.service", "stdout", "reading-hub-gitops@prod.service", "reading-hub-gitops@prod"),
        ("session-17.scope", "syslog", "session.scope", "session"),
        ("user@1000.service", "journal", "user.service", "user"),
        ("run-r0d1e2.service", "stdout", "run.service", "run"),
        ("", "kernel", "kernel", "kernel"),
    ],
)
def test_labels_of_a_line_of_the_journal(unit: str, transport: str, label: str, service: str) -> None:
    journal = {"__journal__transport": transport, "__journal_priority_keyword": "notice", "job": "journal"}
    if unit:
        journal["__journal__systemd_unit"] = unit
    assert relabelled(JOURNAL["relabel_configs"], journal) == {
        "job": "journal", "unit": label, "service": service, "level": "notice",
    }  # fmt: skip


def test_these_labels_and_no_others() -> None:
    targets = {rule["target_label"] for config in (CONTAINERS, JOURNAL) for rule in config["relabel_configs"]
               if "target_label" in rule}  # fmt: skip
    stages = CONTAINERS["pipeline_stages"]
    made = {name for stage in stages if "labels" in stage for name in stage["labels"]}
    assert targets | made | set(JOURNAL["journal"]["labels"]) == LABELS
    assert [stage["structured_metadata"] for stage in stages if "structured_metadata" in stage] == [{"run_id": None}]
    assert JOURNAL["pipeline_stages"] == stages


def test_no_stage_drops_a_line() -> None:
    text = (COMPOSE / "promtail" / "promtail.yaml").read_text()
    assert not re.search(r"drop|sampling|limit:", re.sub(r"#.*", "", text))


# --- Alloy says the same ----------------------------------------------------------------------------------------


def stages_of(block: alloy.Block) -> list[dict[str, Any]]:
    """The stages of a block of Alloy in the form of Promtail's file."""
    made = []
    for one in block.blocks:
        name = one.name.removeprefix("stage.")
        if name == "match":
            made.append({"match": {**one.attributes, "stages": stages_of(one)}})
        elif name in ("labels", "structured_metadata"):
            made.append({name: {key: value or None for key, value in one.attributes["values"].items()}})
        else:
            made.append({name: one.attributes})
    return made


def test_alloy_has_the_same_stages() -> None:
    assert stages_of(ALLOY.one("loki.process")) == CONTAINERS["pipeline_stages"]


def test_alloy_has_the_same_relabelling() -> None:
    containers, journal = ALLOY.one("discovery.relabel", "containers"), ALLOY.one("loki.relabel", "journal")
    assert [rule.attributes for rule in containers.all("rule")] == CONTAINERS["relabel_configs"]
    assert [rule.attributes for rule in journal.all("rule")] == JOURNAL["relabel_configs"]


def test_alloy_has_the_same_sources_and_the_same_loki() -> None:
    [discovery] = CONTAINERS["docker_sd_configs"]
    docker, source = ALLOY.one("discovery.docker"), ALLOY.one("loki.source.docker")
    assert docker.attributes == {key: discovery[key] for key in ("host", "refresh_interval")}
    assert [one.attributes for one in docker.all("filter")] == discovery["filters"]
    assert source.attributes == {
        "host": discovery["host"],
        "targets": "discovery.relabel.containers.output",
        "forward_to": ["loki.process.stages.receiver"],
    }
    assert ALLOY.one("loki.source.journal").attributes == {
        **JOURNAL["journal"],
        "relabel_rules": "loki.relabel.journal.rules",
        "forward_to": ["loki.process.stages.receiver"],
    }
    [client] = PROMTAIL["clients"]
    backoff = client["backoff_config"]
    assert ALLOY.one("loki.process").attributes == {"forward_to": ["loki.write.loki.receiver"]}
    assert ALLOY.one("loki.write").one("endpoint").attributes == {
        "url": client["url"],
        "min_backoff_period": backoff["min_period"],
        "max_backoff_period": backoff["max_period"],
        "max_backoff_retries": backoff["max_retries"],
    }
