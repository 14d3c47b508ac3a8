"""What runs on Kubernetes agrees with what runs in Compose: names, numbers, commands, hardening, and no secret in a file."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coloredlogs
import pytest
import yaml
from dagster._utils.log import default_date_format_string, default_format_string

from hub.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
COMPOSE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
INSTANCE: dict[str, Any] = yaml.safe_load((ROOT / "dagster.yaml").read_text())
DOCUMENT = (ROOT / "docs" / "scale.md").read_text()
DAGSTER, LOKI, ALLOY = (
    yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in ("dagster", "loki", "alloy")
)  # fmt: skip
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    found
    for path in KUSTOMIZATION["resources"]
    for found in yaml.safe_load_all((FOLDER / path).read_text())
    if found
]  # fmt: skip
CODE: dict[str, Any] = DAGSTER["dagster-user-deployments"]["deployments"][0]
LAUNCHER: dict[str, Any] = DAGSTER["runLauncher"]["config"]["k8sRunLauncher"]
PIPELINE_CONFIG = (FOLDER / "config" / "config.alloy").read_text()
SETTINGS = {name.upper() for name in Settings.model_fields}
USER = int(re.search(r"^USER (\d+):", (ROOT / "compose" / "Dockerfile").read_text(), re.MULTILINE)[1])  # type: ignore[index]
LOCKED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
# What the chart starts: its values, under the names that the services have in Compose.
CHART = {
    "dagster-webserver": DAGSTER["dagsterWebserver"],
    "dagster-daemon": DAGSTER["dagsterDaemon"],
    "dagster-code": CODE,
}


def environment(name: str) -> dict[str, str]:
    """The ConfigMap that kustomize makes of a file of config/."""
    lines = (FOLDER / "config" / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    """Name → spec of the pods that the manifests make."""
    kinds = ("Deployment", "DaemonSet", "Job")
    return {name: found["spec"]["template"] for kind in kinds for name, found in named(kind).items()}


PODS = pods()
EVERY_POD = pytest.mark.parametrize("name", sorted(PODS))
EVERY_CHART = pytest.mark.parametrize("name", sorted(CHART))


def container(name: str) -> dict[str, Any]:
    (only,) = PODS[name]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def mebibytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|m|g)", re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text)).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit in ("Gi", "g") else 1)


def scalars(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from scalars(inner, f"{path}[{number}]")
    else:
        yield path, str(value)


# --- Dagster's instance ---------------------------------------------------------------------------------------------------


def test_every_part_of_the_instance_has_its_value() -> None:
    """A new key of dagster.yaml needs one here, and a line below that compares it."""
    assert set(INSTANCE) == {
        "storage", "concurrency", "run_queue", "run_launcher", "run_monitoring", "run_retries", "scheduler", "schedules", "sensors",
        "retention", "telemetry", "nux", "python_logs",
    }  # fmt: skip


def test_runs_wait_for_the_same_limits() -> None:
    limits = DAGSTER["concurrency"]
    assert limits["enabled"] is True
    assert limits["runs"] == {"maxConcurrentRuns": INSTANCE["concurrency"]["runs"]["max_concurrent_runs"]}
    assert limits["pools"] == INSTANCE["concurrency"]["pools"]
    # The chart refuses a limit that is set in both places.
    queue = DAGSTER["dagsterDaemon"]["runCoordinator"]
    assert queue["enabled"]
    assert queue["type"] == "QueuedRunCoordinator"
    assert not {"maxConcurrentRuns", "tagConcurrencyLimits"} & set(queue["config"]["queuedRunCoordinator"])
    seconds = INSTANCE["run_queue"]["dequeue_interval_seconds"]
    assert queue["config"]["queuedRunCoordinator"]["dequeueIntervalSeconds"] == seconds


def test_no_asset_names_a_pool_of_which_the_documents_know_nothing() -> None:
    code = "\n".join(path.read_text() for folder in ("assets", "pipelines") for path in (ROOT / folder).glob("*.py"))
    for pool in re.findall(r"\bpool\s*=\s*[\"'](\w+)", code):
        assert pool in DOCUMENT
    assert "No asset names a pool" in DOCUMENT


def test_lost_runs_are_found_as_in_compose_but_have_longer_to_start() -> None:
    ours, theirs = INSTANCE["run_monitoring"], DAGSTER["dagsterDaemon"]["runMonitoring"]
    assert theirs["enabled"] is ours["enabled"] is True
    assert theirs["maxRuntimeSeconds"] == ours["max_runtime_seconds"]
    assert theirs["pollIntervalSeconds"] == ours["poll_interval_seconds"]
    assert theirs["startTimeoutSeconds"] > ours["start_timeout_seconds"]
    retries = INSTANCE["run_retries"]
    assert DAGSTER["dagsterDaemon"]["runRetries"] == {
        "enabled": retries["enabled"],
        "maxRetries": retries["max_retries"],
        "retryOnAssetOrOpFailure": retries["retry_on_asset_or_op_failure"],
    }


def test_the_rest_of_the_instance_is_the_same() -> None:
    daemon = DAGSTER["dagsterDaemon"]
    for part in ("schedules", "sensors"):
        assert daemon[part] == {
            "useThreads": INSTANCE[part]["use_threads"],
            "numWorkers": INSTANCE[part]["num_workers"],
        }
    for part in ("schedule", "sensor"):
        kept = DAGSTER["retention"][part]["purgeAfterDays"]
        assert {**INSTANCE["retention"][part]["purge_after_days"], "started": -1} == kept
    assert DAGSTER["retention"]["enabled"] is True
    assert DAGSTER["telemetry"] == INSTANCE["telemetry"] == {"enabled": False}
    assert {"managed_python_loggers": DAGSTER["pythonLogs"]["managedPythonLoggers"]} == INSTANCE["python_logs"]
    assert DAGSTER["additionalInstanceConfig"]["nux"] == INSTANCE["nux"]
    assert (
        str(daemon["heartbeatTolerance"])
        == (COMPOSE["dagster-daemon"]["environment"]["DAGSTER_DAEMON_HEARTBEAT_TOLERANCE"])
    )


def test_dagster_keeps_its_database_and_the_pipeline_its_name() -> None:
    database, postgres = environment("database"), DAGSTER["postgresql"]
    assert postgres["enabled"] is False
    assert postgres["postgresqlScheme"] == INSTANCE["storage"]["custom"]["config"]["postgres_db"]["scheme"]
    assert postgres["postgresqlHost"] == database["DB_HOST"]
    assert str(postgres["service"]["port"]) == database["DB_PORT"]
    assert postgres["postgresqlDatabase"] == database["DAGSTER_DB_NAME"]
    assert postgres["postgresqlUsername"] == database["DAGSTER_DB_USER"]
    (server,) = yaml.safe_load((ROOT / "compose" / "workspace.yaml").read_text())["load_from"]
    (ours,) = DAGSTER["dagsterWebserver"]["workspace"]["servers"]
    assert ours["name"] == "reading_hub"
    assert server["grpc_server"]["location_name"] == ours["name"]
    assert (CODE["name"], CODE["port"]) == (ours["host"], ours["port"])


def test_the_code_location_is_started_as_in_compose() -> None:
    """Less pipelines.process, which the chart's command leaves no place for."""
    command = COMPOSE["dagster-code"]["command"]
    definitions = command[command.index("pipelines.definitions") - 1 :]
    assert CODE["dagsterApiGrpcArgs"] == [*definitions, "--log-format", "json"]


# --- Runs -----------------------------------------------------------------------------------------------------------------


def test_a_run_is_a_pod_with_what_the_code_location_has() -> None:
    assert DAGSTER["runLauncher"]["type"] == "K8sRunLauncher"
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert LAUNCHER["securityContext"] == LOCKED  # the chart hands on the pod's security context, not the container's
    assert mebibytes(CODE["resources"]["limits"]["memory"]) == mebibytes(COMPOSE["dagster-code"]["mem_limit"])
    assert re.search(r"^dagster-k8s==", (ROOT / "requirements-image.lock").read_text(), re.MULTILINE)


def test_what_runs_share_is_on_claims_that_every_node_can_write() -> None:
    claims = named("PersistentVolumeClaim")
    mounts = {mount["name"]: mount["mountPath"] for mount in CODE["volumeMounts"]}
    shared = {
        mounts[volume["name"]]: volume["persistentVolumeClaim"]["claimName"]
        for volume in CODE["volumes"]
        if "persistentVolumeClaim" in volume
    }
    pipeline = environment("pipeline")
    assert set(shared) == {pipeline["BACKUP_DIR"], pipeline["HUB_DATA_DIR"]}
    for claim in shared.values():
        assert claims[claim]["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("BACKUP_DIR", "HUB_DATA_DIR"):
        assert pipeline[name] == COMPOSE["dagster-code"]["environment"][name]


# --- Images, commands, settings -----------------------------------------------------------------------------------------------


def test_one_image_of_this_version_everywhere() -> None:
    (image,) = KUSTOMIZATION["images"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert image["name"] == "reading-hub"
    assert image["newTag"] == version
    for values in (*CHART.values(), DAGSTER["pipelineRun"]):
        assert values["image"]["repository"] == image["newName"]
        assert values["image"]["tag"] == image["newTag"]
    for name in sorted(PODS):
        assert container(name)["image"] == (COMPOSE["grafana"]["image"] if name == "grafana" else "reading-hub")
    assert f"{image['newName']}:{version}" in DOCUMENT
    assert COMPOSE["alloy"]["image"].startswith(f"grafana/alloy:{ALLOY['image']['tag']}@")


@pytest.mark.parametrize("name", ["migrate", "proxy", "system-metrics"])
def test_commands_are_those_of_compose(name: str) -> None:
    # There Dagster's password is a file, and MongoDB is never the stack's own.
    compose = [part.replace("python -m pipelines.process ", "").replace(" && { hub mongo initiate hub mongo:27017 || true; }", "")
               for part in COMPOSE[name]["command"]]  # fmt: skip
    assert container(name)["command"] == compose


def test_settings_have_names_that_the_hub_knows() -> None:
    for name in ("database", "pipeline"):
        assert set(environment(name)) <= SETTINGS | {"HUB_LOG_FORMAT"}
    Settings(mongo_uri="mongodb://db", db_password="x", **{k.lower(): v for k, v in environment("database").items()})


def test_databases_roles_and_addresses_are_those_of_compose() -> None:
    everywhere = COMPOSE["dagster-code"]["environment"]
    for name, value in environment("database").items():
        assert everywhere[name] == value, name
    grafana = COMPOSE["grafana"]["environment"]
    for name, value in environment("grafana").items():
        alone = re.sub(r"\$\{GATEWAY_HOST:\+[^}]*\}", "", grafana[name])  # as it is without the gateway
        assert re.sub(r"\$\{\w+:-(?:\$\{\w+:-)?([^}]+)\}+", r"\1", alone) == value, name


# --- Secrets --------------------------------------------------------------------------------------------------------------


def secrets_made() -> dict[str, set[str]]:
    """The Secrets that the document makes, with their keys."""
    commands = re.sub(r"\\\n\s*", "", DOCUMENT)
    made = re.findall(r"^kubectl create secret generic (\S+) (.*)$", commands, re.MULTILINE)
    return {name: set(re.findall(r"--from-literal=([\w-]+)=", rest)) for name, rest in made}


def test_every_secret_that_is_named_is_made_by_the_document_with_its_keys() -> None:
    made, whole, keys = secrets_made(), set(), set()
    for spec in PODS.values():
        (only,) = spec["spec"]["containers"]
        whole |= {source["secretRef"]["name"] for source in only["envFrom"] if "secretRef" in source}
        for variable in only.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                keys.add((reference["name"], reference["key"]))
                assert reference["key"] == variable["name"]
    whole |= {source["name"] for source in CODE["envSecrets"]}
    keys.add((DAGSTER["global"]["postgresqlSecretName"], "postgresql-password"))
    keys |= {
        (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for variable in DAGSTER["dagsterDaemon"]["env"]
    }
    assert whole | {name for name, _ in keys} == set(made)
    assert all(key in made[name] for name, key in keys)
    # A Secret that is given whole becomes variables by the names of its keys.
    assert all(made[name] <= SETTINGS for name in whole)


def test_the_code_location_has_each_password_that_compose_gives_it() -> None:
    given = set().union(*(secrets_made()[source["name"]] for source in CODE["envSecrets"]))
    assert {name for name in COMPOSE["dagster-code"]["environment"] if name.endswith("_PASSWORD")} <= given
    assert "MONGO_URI" in given


def test_no_secret_is_written_down() -> None:
    assert not named("Secret")
    assert DAGSTER["generatePostgresqlPasswordSecret"] is False
    for name in ("database", "pipeline", "grafana"):
        assert not [
            key for key in environment(name) if re.search(r"PASSWORD|SECRET|TOKEN|_URI$|BACKUP_URL|NOTIFY", key)
        ]
    for document in (DAGSTER, LOKI, ALLOY, *OBJECTS):
        for path, value in scalars(document):
            assert "://" not in value or "@" not in value, path
            assert not re.search(r"password$", path, re.IGNORECASE), path


def test_the_superuser_and_mongodb_are_known_where_they_are_needed_alone() -> None:
    def knows(name: str) -> set[str]:
        return {source["secretRef"]["name"] for source in container(name)["envFrom"] if "secretRef" in source}

    assert {name for name in PODS if "reading-hub-admin" in knows(name)} == {"migrate"}
    assert {name for name in PODS if "reading-hub-source" in knows(name)} == {"migrate"}
    for name in ("dagster-webserver", "dagster-daemon"):
        assert "envSecrets" not in CHART[name]


# --- Hardening ------------------------------------------------------------------------------------------------------------


@EVERY_POD
def test_every_pod_is_locked_down(name: str) -> None:
    spec, only = PODS[name]["spec"], container(name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == (472 if name == "grafana" else USER)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == LOCKED
    assert not {"hostPID", "hostIPC"} & set(spec)
    assert spec.get("hostNetwork", False) is (name == "system-metrics")
    for volume in spec["volumes"]:
        if "hostPath" in volume:
            assert name == "system-metrics"
            (mount,) = [mount for mount in only["volumeMounts"] if mount["name"] == volume["name"]]
            assert mount["readOnly"] is True
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]


@EVERY_POD
def test_every_pod_has_limits_and_probes(name: str) -> None:
    only = container(name)
    assert mebibytes(only["resources"]["limits"]["memory"]) == mebibytes(COMPOSE[name]["mem_limit"])
    assert set(only["resources"]["requests"]) == {"cpu", "memory"}
    if name != "migrate":
        assert {"startupProbe", "livenessProbe"} <= set(only)
    if name in named("Service"):
        assert "readinessProbe" in only


@EVERY_CHART
def test_what_the_chart_starts_is_locked_down_too(name: str) -> None:
    values = CHART[name]
    assert values["securityContext"] == LOCKED
    assert values["podSecurityContext"]["runAsNonRoot"] is True
    assert values["podSecurityContext"]["runAsUser"] == USER
    assert values["podSecurityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert mebibytes(values["resources"]["limits"]["memory"]) == mebibytes(COMPOSE[name]["mem_limit"])
    assert values["livenessProbe"]
    # With a read-only root, both are written to.
    assert {"/tmp", "/opt/dagster/storage"} <= {mount["mountPath"] for mount in values["volumeMounts"]}
    assert {mount["name"] for mount in values["volumeMounts"]} == {volume["name"] for volume in values["volumes"]}
    assert values["image"]["pullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("name", ["dagster-code", "dagster-daemon", "system-metrics"])
def test_probes_ask_what_compose_asks(name: str) -> None:
    probes = CHART.get(name) or container(name)
    compose = [part.replace("unix:///opt/dagster/storage/code.sock", "tcp://127.0.0.1:4000")
               for part in COMPOSE[name]["healthcheck"]["test"]]  # fmt: skip
    assert ["CMD", *probes["livenessProbe"]["exec"]["command"]] == compose


def test_nothing_but_the_daemon_and_alloy_may_ask_kubernetes() -> None:
    assert DAGSTER["dagster-user-deployments"]["rbacEnabled"] is False
    assert LOKI["rbac"] == {"namespaced": True}
    assert LOKI["sidecar"]["rules"]["enabled"] is False
    assert ALLOY["rbac"] == {
        "namespaces": [KUSTOMIZATION["namespace"]],
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        "clusterRules": [],
    }


def test_alloy_is_root_without_a_capability() -> None:
    given = dict(ALLOY["alloy"]["securityContext"])
    assert given.pop("runAsUser") == 0
    assert given.pop("seccompProfile") == {"type": "RuntimeDefault"}
    assert given == LOCKED
    assert ALLOY["alloy"]["enableReporting"] is False
    assert mebibytes(ALLOY["alloy"]["resources"]["limits"]["memory"]) == mebibytes(COMPOSE["alloy"]["mem_limit"])


# --- Objects that name each other -----------------------------------------------------------------------------------------


@EVERY_POD
def test_what_a_pod_mounts_or_reads_exists(name: str) -> None:
    spec, only = PODS[name]["spec"], container(name)
    maps = {made["name"] for made in KUSTOMIZATION["configMapGenerator"]}
    by_document = {f"grafana-{part}" for part in re.findall(r"(\w+):(?:provisioning/\w+|dashboards)", DOCUMENT)}
    assert KUSTOMIZATION["generatorOptions"] == {"disableNameSuffixHash": True}
    for source in only["envFrom"]:
        assert "secretRef" in source or source["configMapRef"]["name"] in maps
    for volume in spec["volumes"]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] in by_document
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in named("PersistentVolumeClaim")
    assert {mount["name"] for mount in only["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_maps_and_files_that_the_charts_name_exist() -> None:
    maps = {made["name"]: made for made in KUSTOMIZATION["configMapGenerator"]}
    for values in CHART.values():
        assert {source["name"] for source in values["envConfigMaps"]} <= set(maps)
    alloy = ALLOY["alloy"]["configMap"]
    assert maps[alloy["name"]]["files"] == [f"config/{alloy['key']}"]
    listed = [path for made in maps.values() for path in made.get("envs", []) + made.get("files", [])]
    assert {FOLDER / path for path in listed} == set((FOLDER / "config").iterdir())
    assert {FOLDER / path for path in KUSTOMIZATION["resources"]} == set((FOLDER / "manifests").iterdir())


def test_services_and_controllers_find_their_pods_and_grafana_its_folders() -> None:
    for kind in ("Deployment", "DaemonSet"):
        for name, found in named(kind).items():
            labels = found["spec"]["template"]["metadata"]["labels"]
            assert found["spec"]["selector"]["matchLabels"].items() <= labels.items(), name
    for name, found in named("Service").items():
        if name == "timescaledb":
            assert found["spec"]["type"] == "ExternalName"
            continue
        assert found["spec"]["selector"].items() <= PODS[name]["metadata"]["labels"].items()
        (port,) = found["spec"]["ports"]
        assert port["targetPort"] in {port["name"] for port in container(name)["ports"]}
    # The folders that Compose mounts, one ConfigMap for each: they hold no folders themselves.
    mounted = {mount["mountPath"] for mount in container("grafana")["volumeMounts"]}
    assert "/etc/reading-hub/dashboards" in mounted
    for path in (ROOT / "compose" / "grafana" / "provisioning").glob("*/*.yaml"):
        assert f"/etc/grafana/provisioning/{path.parent.name}" in mounted


# --- Logs -----------------------------------------------------------------------------------------------------------------


def test_lines_have_the_services_of_compose() -> None:
    labels = {name: spec["metadata"]["labels"] for name, spec in PODS.items()}
    labels |= {name: values["labels"] for name, values in CHART.items()}
    labels["loki"] = LOKI["loki"]["podLabels"]
    for name, given in labels.items():
        assert given["reading-hub.logs"] == COMPOSE[name]["labels"]["reading-hub.logs"] == "true"
        assert given["reading-hub.service"] == name


def block(text: str, head: str) -> str:
    """A block of Alloy's configuration, from its head to the brace at the margin."""
    start = text.index(head)
    return text[start : text.index("\n}\n", start)]


@pytest.mark.parametrize("head", ['loki.process "stages"', 'loki.relabel "journal"', 'loki.source.journal "journal"'])
def test_lines_are_read_as_in_compose(head: str) -> None:
    compose = (ROOT / "compose" / "alloy" / "config.alloy").read_text()
    assert block(PIPELINE_CONFIG, head) == block(compose, head)


def test_labels_are_the_agreed_ones_and_run_id_is_none_of_them() -> None:
    given = set(re.findall(r'target_label\s+= "(\w+)"', PIPELINE_CONFIG))
    given |= set(re.findall(r"stage\.labels \{\s*values = \{(\w+) =", PIPELINE_CONFIG))
    pods = block(PIPELINE_CONFIG, 'loki.process "pods"')
    dropped = re.search(r"stage\.label_drop \{\s*values = \[(.+)\]", pods)
    assert dropped is not None
    assert "run_id" in dropped[1]
    assert given - {"__path__", "run_id"} == {"container", "job", "service", "level", "unit"}
    assert 'stage.structured_metadata {\n\t\tvalues = {run_id = "run"}' in pods
    assert LOKI["loki"]["limits_config"]["allow_structured_metadata"] is True


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_the_level_of_a_daemons_line_is_found(level: str) -> None:
    """Dagster's chart leaves no way to ask the daemon for JSON: its lines are Dagster's own, in colors."""
    record = logging.makeLogRecord({"name": "dagster.daemon.SensorDaemon", "levelname": level, "msg": "level=none"})
    line = coloredlogs.ColoredFormatter(default_format_string(), default_date_format_string()).format(record)
    assert "\x1b[" in line
    assert "stage.decolorize { }" in block(PIPELINE_CONFIG, 'loki.process "pods"')
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
    expressions = re.findall(r"stage\.regex \{\s*expression = `(.+)`", PIPELINE_CONFIG)
    assert [match["level"] for expression in expressions if (match := re.match(expression, plain))] == [level]


def test_logs_are_kept_for_31_days_and_go_to_the_loki_of_the_chart() -> None:
    limits = LOKI["loki"]["limits_config"]
    compose = yaml.safe_load((ROOT / "compose" / "loki" / "loki.yaml").read_text())
    assert limits["retention_period"] == f"{31 * 24}h"
    same = set(limits) - {"volume_enabled"}
    assert {name: limits[name] for name in same} == {name: compose["limits_config"][name] for name in same}
    assert LOKI["loki"]["schemaConfig"] == compose["schema_config"]
    assert LOKI["loki"]["server"]["log_level"] == compose["server"]["log_level"]
    assert LOKI["loki"]["compactor"]["retention_enabled"] is True
    assert LOKI["loki"]["compactor"]["delete_request_store"] == LOKI["loki"]["storage"]["type"] == "filesystem"
    assert LOKI["deploymentMode"] == "Monolithic"
    assert LOKI["singleBinary"]["replicas"] == 1
    assert f"http://{LOKI['fullnameOverride']}:3100/loki/api/v1/push" in PIPELINE_CONFIG


# --- Who reaches whom -----------------------------------------------------------------------------------------------------


def test_the_code_location_is_reached_by_web_server_and_daemon_alone() -> None:
    """Its gRPC has no login. The pods of runs have its labels, and nobody needs to reach them."""
    (policy,) = named("NetworkPolicy").values()
    (rule,) = policy["spec"]["ingress"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= CODE["labels"].items()
    assert rule["ports"] == [{"protocol": "TCP", "port": CODE["port"]}]
    every = {**{name: values["labels"] for name, values in CHART.items()},
             **{name: spec["metadata"]["labels"] for name, spec in PODS.items()}}  # fmt: skip
    may = {
        name
        for name, labels in every.items()
        for peer in rule["from"]
        if set(peer) == {"podSelector"} and peer["podSelector"]["matchLabels"].items() <= labels.items()
    }
    assert may == {"dagster-webserver", "dagster-daemon"}


def test_probes_of_the_web_server_name_an_address_of_its_own() -> None:
    """kubelet asks by the pod's IP address, which the guard refuses as a Host."""
    server = CHART["dagster-webserver"]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert server[probe]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "dagster-webserver"}]
    assert environment("database")["DAGSTER_URL"].startswith("http://dagster-webserver:")
