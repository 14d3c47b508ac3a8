"""The rules of the stack, checked on the parsed Compose file, and by Compose itself where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.healthcheck import problem
from hub.secret_files import wanted
from hub.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "compose" / "compose.yaml").read_text()
MODEL: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = MODEL["services"]
EVERY = pytest.mark.parametrize("name", sorted(SERVICES))
DEMANDED = set(re.findall(r"\$\{(\w+):\?", TEXT))
# Not needed where MONGO_URI names a server elsewhere, or without the profile `gateway`.
GENERATED = DEMANDED | {"MONGO_PASSWORD", "GATEWAY_SECRET"}
SECRETS: dict[str, str] = MODEL["x-secrets"]
COMPOSE = (
    shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
)

# What the code location has no use for: settings of other services, or of commands run by hand.
ELSEWHERE = {"METRICS_HOST", "METRICS_ROOT", "METRICS_SPOOL_MB"} | {
    "PORT", "PROXY_HOST", "PROXY_RATE_PER_SECOND", "PROXY_TIMEOUT_SECONDS", "PROXY_CORS_ORIGINS", "PROXY_ROOT_PATH", "DAGSTER_PUBLIC_URL",
    "BIND_ADDR",
    "BACKUP_AGE_IDENTITY",  # never on this machine: it opens the copies
}  # fmt: skip
NOT_OURS = {"AWS_ENDPOINT_URL", "AWS_REGION", "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE"}


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """The secrets that it finds in /run/secrets: the name of the file there, and which secret it is."""
    listed = [{"source": one} if isinstance(one, str) else one for one in service.get("secrets", [])]
    return {one.get("target", one["source"]): one["source"] for one in listed}


def ours(service: dict[str, Any]) -> bool:
    return str(service["image"]).startswith("reading-hub:")


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {
        "timescaledb", "migrate", "dagster-code", "dagster-webserver", "dagster-daemon", "proxy", "system-metrics",
        "grafana", "loki", "promtail", "alloy", "docker-socket-proxy", "mongo", "gateway",
    }  # fmt: skip
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "mongo": ["mongo"],
        "alloy": ["alloy"],
        "gateway": ["gateway"],
    }


@EVERY
def test_every_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "gateway" else [])
    assert "privileged" not in service
    assert service["read_only"] is True
    assert service["mem_limit"]
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@EVERY
def test_every_image_has_a_version(name: str) -> None:
    image = SERVICES[name]["image"]
    if ours(SERVICES[name]):
        assert image == "reading-hub:${HUB_VERSION:-latest}"
    else:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-pg\d+)?(@sha256:[0-9a-f]{64})?", image)


def test_one_service_builds_the_image_and_none_pulls_it() -> None:
    policies = {name: service.get("pull_policy") for name, service in SERVICES.items() if ours(service)}
    assert {name for name, service in SERVICES.items() if "build" in service} == {"dagster-code"}
    assert policies.pop("dagster-code") == "build"
    assert set(policies.values()) == {"never"}


@EVERY
def test_every_service_has_a_healthcheck_and_starts_after_healthy_ones(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert {"test", "interval", "timeout", "retries", "start_period"} == set(
            service["healthcheck"]
        )  # Docker 20.10 knows these
    for other, how in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other == "migrate" else "service_healthy"
        optional = {"required": False} if other == "mongo" else {}  # of a profile
        assert how == {"condition": wanted, **optional}
    if ours(service) and name != "migrate":
        assert "migrate" in service["depends_on"]


@pytest.mark.parametrize("name", sorted(name for name in SERVICES if ours(SERVICES[name]) and name != "migrate"))
def test_our_healthchecks_are_targets_of_a_known_form(name: str) -> None:
    command = SERVICES[name]["healthcheck"]["test"]
    assert command[:4] == ["CMD", "python", "-m", "hub.healthcheck"]
    assert problem(re.sub(r"(127\.0\.0\.1):\d+", r"\1:1", command[4]))  # not well, since nothing is there


def test_only_the_proxy_has_the_docker_socket_and_only_promtail_and_alloy_reach_it() -> None:
    assert [name for name in SERVICES if "docker.sock" in str(SERVICES[name].get("volumes"))] == ["docker-socket-proxy"]
    reach = {name for name, service in SERVICES.items() if "docker-api" in service.get("networks", [])}
    assert reach == {"docker-socket-proxy", "promtail", "alloy"}
    assert SERVICES["docker-socket-proxy"]["networks"] == ["docker-api"]


def test_of_docker_only_what_promtail_and_alloy_ask_for_is_let_through() -> None:
    """The program adds ^ and $ itself, and matches the path alone, decoded."""
    options = [part.partition("=") for part in SERVICES["docker-socket-proxy"]["command"]]
    allowed = {name.removeprefix("-allow"): rule for name, _, rule in options if re.match("-allow[A-Z]", name)}
    assert set(allowed) == {"GET", "HEAD"}
    one = "f" * 64
    asked = ["/_ping", "/version", "/v1.41/containers/json", "/v1.41/networks"]
    asked += [f"/v1.41/containers/{one}/{what}" for what in ("json", "logs")]
    assert all(re.fullmatch(allowed["GET"], path) for path in asked)
    assert allowed["HEAD"] == "/_ping"
    refused = [
        f"/v1.41/containers/{one}/{what}" for what in ("archive", "export", "top", "changes", "attach/ws", "stats")
    ]
    refused += [
        f"/v1.41/containers/{one}/json/../archive",
        f"/v1.41/containers/{one}/logs/archive",
        "/containers/json/x",
    ]
    refused += [
        "/info",
        "/events",
        "/images/json",
        "/volumes",
        "/v1.41/containers/name/json",
        "/secrets",
        "/",
        "/networks/x",
    ]
    assert not [path for path in refused if re.fullmatch(allowed["GET"], path)]


def test_networks_and_ports() -> None:
    assert MODEL["networks"] == {
        "edge": {}, "backend": {"internal": True}, "logs": {"internal": True}, "docker-api": {"internal": True},
    }  # fmt: skip
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "timescaledb": ["${BIND_ADDR:-127.0.0.1}:${TIMESCALEDB_PORT:-5432}:5432"],
        "dagster-webserver": ["${BIND_ADDR:-127.0.0.1}:${DAGSTER_PORT:-3000}:3000"],
        "proxy": ["${BIND_ADDR:-127.0.0.1}:${PORT:-8085}:8085"],
        "grafana": ["${BIND_ADDR:-127.0.0.1}:${GRAFANA_PORT:-3001}:3000"],
        "loki": ["${BIND_ADDR:-127.0.0.1}:${LOKI_PORT:-3100}:3100"],
        # The one that is for other machines: TLS and a login are before everything that it leads to.
        "gateway": [
            "${GATEWAY_ADDR:-0.0.0.0}:${GATEWAY_PORT:-443}:443",
            "${GATEWAY_ADDR:-0.0.0.0}:${GATEWAY_HTTP_PORT:-80}:80",
        ],
    }
    # An internal network publishes nothing and reaches nothing: these also, and the code location for MongoDB and S3.
    edge = {name for name, service in SERVICES.items() if "edge" in service.get("networks", [])}
    assert edge == set(published) | {"dagster-code"}


def test_no_command_of_compose_can_remove_data() -> None:
    named = {
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if re.match(r"\w+:", mount)
    }
    assert set(MODEL["volumes"]) == named
    assert all(volume == {"external": True} for volume in MODEL["volumes"].values())
    assert {"postgres_data", "grafana_data", "loki_data", "promtail_data"} <= named


@EVERY
def test_mounted_configuration_is_a_folder_of_this_repository_read_only(name: str) -> None:
    """A file mounted alone keeps its old content when git replaces it."""
    for mount in SERVICES[name].get("volumes", []):
        if mount.startswith("./"):
            source, _, options = mount.split(":")
            assert (ROOT / "compose" / source).is_dir()
            assert options == "ro"
            folder = source.removeprefix("./").split("/")[0]
            assert SERVICES[name]["labels"]["reading-hub.content"] == f"${{CONTENT_{folder.upper()}:-}}"


def test_promtail_ships_everybody_but_itself() -> None:
    shipped = {
        name for name, service in SERVICES.items() if service.get("labels", {}).get("reading-hub.logs") == "true"
    }
    assert shipped == set(SERVICES) - {"promtail", "alloy", "docker-socket-proxy"}


def test_each_service_has_the_secrets_that_it_needs_and_no_others() -> None:
    have = {name: set(secrets_of(service).values()) for name, service in SERVICES.items() if "secrets" in service}
    roles = {"POSTGRES_PASSWORD", "DB_PASSWORD", "DAGSTER_DB_PASSWORD", "GRAFANA_DB_PASSWORD", "PROXY_DB_PASSWORD"}
    assert have == {
        "timescaledb": {"POSTGRES_PASSWORD"},
        "migrate": roles | {"MONGO_URI"},
        "dagster-code": roles
        | {"MONGO_URI", "BACKUP_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "NOTIFY_URLS"},
        "dagster-webserver": {"DAGSTER_DB_PASSWORD"},
        "dagster-daemon": {"DAGSTER_DB_PASSWORD"},
        "proxy": {"DB_PASSWORD", "PROXY_DB_PASSWORD"},
        "system-metrics": {"DB_PASSWORD"},
        "grafana": {"GF_SECURITY_ADMIN_PASSWORD", "GRAFANA_DB_PASSWORD", "GATEWAY_HEADER"},
        "mongo": {"MONGO_PASSWORD"},
        "gateway": {"GATEWAY_LOGIN"},
    }


def test_no_secret_is_in_an_environment_a_label_or_a_command() -> None:
    """`docker inspect` shows them to whoever may ask Docker, Promtail among them."""
    named = set(re.findall(r"\$\{(\w+)", "\n".join(SECRETS.values())))
    assert named == set(SECRETS) - {"GATEWAY_HEADER", "GATEWAY_LOGIN"} | {"GATEWAY_SECRET"}  # the two have it in them
    assert MODEL["secrets"] == {name: {"file": f"../.secrets/{name}"} for name in SECRETS}
    for name, service in SERVICES.items():
        others = str({part: value for part, value in service.items() if part != "secrets"})
        seen = set(re.findall(r"\$\{(\w+)(?!\w|:\+true})", others))  # `:+true` says that it is set, and no more
        assert not seen & named, name
        for variable, value in service.get("environment", {}).items():
            if variable in SECRETS:
                assert "/run/secrets/" in value, f"{name}: {variable} is written down"
        for target, source in secrets_of(service).items():
            if ours(service):
                assert target.lower() in Settings.model_fields, f"{name}: {source}"
            else:
                configuration = ["grafana/provisioning/datasources/datasources.yaml", "gateway/Caddyfile"]
                files = [
                    str(service["environment"]),
                    *((ROOT / "compose" / file).read_text() for file in configuration),
                ]
                assert f"/run/secrets/{target}" in "".join(files), f"{name}: {source}"


def test_a_changed_secret_replaces_whoever_reads_it() -> None:
    """But for the servers whose password applies at their first start only: nothing would change but an interruption."""
    for name, service in SERVICES.items():
        reads = bool(secrets_of(service)) and name not in ("timescaledb", "mongo")
        assert (service.get("labels", {}).get("reading-hub.secrets") == "${SECRETS:-}") == (reads or ours(service)), (
            name
        )


def test_the_code_location_listens_where_only_web_server_and_daemon_are() -> None:
    """It has no login, does what it is told, and may read the superuser's password."""
    command = SERVICES["dagster-code"]["command"]
    place = command[command.index("--socket") + 1]
    assert not {"-h", "-p", "--host", "--port"} & set(command)
    (server,) = yaml.safe_load((ROOT / "compose" / "workspace.yaml").read_text())["load_from"]
    assert server["grpc_server"] == {"socket": place, "location_name": "reading_hub"}
    folder = os.path.dirname(place)
    mounts = {name for name, service in SERVICES.items() if f"dagster_storage:{folder}" in service.get("volumes", [])}
    assert mounts == {"dagster-code", "dagster-webserver", "dagster-daemon", "migrate"}
    image = (ROOT / "compose" / "Dockerfile").read_text()
    assert json.dumps(command) in image
    assert "4000" not in image


def test_the_code_location_takes_every_setting() -> None:
    known = {name.upper() for name in Settings.model_fields}
    environment = set(SERVICES["dagster-code"]["environment"]) | set(secrets_of(SERVICES["dagster-code"]))
    assert known - environment == ELSEWHERE
    for name, service in SERVICES.items():
        if ours(service):
            assert set(service.get("environment", {})) <= known | NOT_OURS, name


def test_the_image_takes_nothing_but_code(tmp_path: Path) -> None:
    dockerfile = (ROOT / "compose" / "Dockerfile").read_text()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    }
    assert copied == set(allowed)
    assert all((ROOT / path).exists() for path in copied)
    assert "USER 10001:10001" in dockerfile
    assert "--require-hashes" in dockerfile
    assert not re.search(r"PASSWORD|SECRET|TOKEN", dockerfile)


def test_the_image_is_locked_to_the_versions_of_the_tests() -> None:
    def versions(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    image, plain, tests = (
        versions("requirements-image.lock"),
        versions("requirements.lock"),
        versions("requirements-dev.lock"),
    )
    assert plain.items() <= image.items()
    assert {"s3fs", "pyrage", "dagster-k8s"} <= set(image)
    assert {name: version for name, version in image.items() if name in tests} == {
        name: version for name, version in tests.items() if name in image
    }


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what `make init` and Compose need."""
    (tmp_path / "compose").mkdir()
    for name in ("init.sh", "compose.yaml"):
        shutil.copy(ROOT / "compose" / name, tmp_path / "compose" / name)
    return tmp_path


def init(clone: Path) -> str:
    done = subprocess.run([clone / "compose" / "init.sh"], capture_output=True, text=True, check=True)
    return done.stdout


def parsed(clone: Path) -> dict[str, str]:
    lines = (clone / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_init_writes_every_secret_once(clone: Path) -> None:
    said = init(clone)
    written = parsed(clone)
    assert set(written) == GENERATED | {"COMPOSE_PROFILES"}
    assert len({written[name] for name in GENERATED}) == len(GENERATED)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", written[name]) for name in GENERATED)  # they stand in URLs
    assert not any(written[name] in said for name in GENERATED)
    assert stat.S_IMODE((clone / ".env").stat().st_mode) == 0o600
    before = (clone / ".env").read_text()
    assert "nothing was changed" in init(clone)
    assert (clone / ".env").read_text() == before


def test_init_keeps_what_is_there(clone: Path) -> None:
    (clone / ".env").write_text("MONGO_URI=mongodb://elsewhere\nDB_PASSWORD=mine\nPROXY_DB_PASSWORD=\nPORT=9000")
    init(clone)
    written = parsed(clone)
    assert (written["MONGO_URI"], written["DB_PASSWORD"], written["PORT"]) == ("mongodb://elsewhere", "mine", "9000")
    assert len(written["PROXY_DB_PASSWORD"]) == 32
    assert "COMPOSE_PROFILES" not in written
    assert "MONGO_PASSWORD" not in written


def config(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` with the clone's .env and nothing of this process's environment."""
    command = ["docker", "compose", "--env-file", ".env", "--file", "compose/compose.yaml", *arguments]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(command, capture_output=True, text=True, cwd=clone, env=environment)


@pytest.mark.skipif(not COMPOSE, reason="Docker Compose is not installed")
def test_compose_accepts_it_with_what_init_wrote(clone: Path) -> None:
    init(clone)
    done = config(clone, "--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    model = yaml.safe_load(done.stdout)
    assert set(model["services"]) == set(SERVICES)
    assert (
        wanted(model)["MONGO_URI"]
        == f"mongodb://reading_hub:{parsed(clone)['MONGO_PASSWORD']}@mongo:27017/?authSource=admin"
    )


@pytest.mark.skipif(not COMPOSE, reason="Docker Compose is not installed")
@pytest.mark.parametrize("secret", sorted(DEMANDED))
def test_compose_names_a_missing_secret(clone: Path, secret: str) -> None:
    init(clone)
    env = clone / ".env"
    env.write_text("".join(line for line in env.read_text().splitlines(True) if not line.startswith(f"{secret}=")))
    done = config(clone, "config", "--quiet")
    assert done.returncode != 0
    assert secret in done.stderr
    assert "make init" in done.stderr


@pytest.mark.skipif(not COMPOSE, reason="Docker Compose is not installed")
def test_a_mongodb_elsewhere_needs_no_password_of_one_here(clone: Path) -> None:
    (clone / ".env").write_text("MONGO_URI=mongodb://reader:pw@elsewhere/\n")
    init(clone)
    done = config(clone, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert wanted(json.loads(done.stdout))["MONGO_URI"] == "mongodb://reader:pw@elsewhere/"


@pytest.mark.skipif(not COMPOSE, reason="Docker Compose is not installed")
def test_no_service_sees_a_secret_in_what_compose_makes_of_it(clone: Path) -> None:
    init(clone)
    with (clone / ".env").open("a") as file:
        file.write("NOTIFY_URLS='ntfy://u:p$$x@host/t'\nBACKUP_URL=s3://bucket\nAWS_SECRET_ACCESS_KEY=verysecret\n")
    done = config(clone, "--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    values = wanted(model)
    assert values["NOTIFY_URLS"] == "ntfy://u:p$$x@host/t"
    assert set(values) == set(model["secrets"])
    services = json.dumps(model["services"])
    assert not [name for name, value in values.items() if value and value in services]


def test_make_up_names_a_missing_source_at_once(clone: Path) -> None:
    init(clone)
    shutil.copy(ROOT / "Makefile", clone)
    env = clone / ".env"
    env.write_text("".join(line for line in env.read_text().splitlines(True) if "MONGO" not in line))
    given = {name: value for name, value in os.environ.items() if not name.startswith("MONGO_")}
    done = subprocess.run(["make", "up"], cwd=clone, capture_output=True, text=True, env=given)
    assert done.returncode != 0
    assert "MONGO_URI is not set" in done.stdout


def test_make_names_every_daily_command() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^ +make ([\w-]+)", told, re.MULTILINE))
    assert listed >= {
        "init", "up", "down", "restart", "logs", "ps", "backup", "restore", "drill", "backfill", "upgrade", "doctor",
        "demo", "dev", "test", "bench", "check", "smoke",
    }  # fmt: skip
    makefile = (ROOT / "Makefile").read_text()
    assert not re.search(r"down.*(-v\b|--volumes)|volume (rm|prune)", makefile)


def test_backups_may_read_what_grafana_writes() -> None:
    """Grafana makes folders of mode 0700; only their owner can read them, and no capability is left to others."""
    (user,) = re.findall(r"^USER (\d+):", (ROOT / "compose" / "Dockerfile").read_text(), re.MULTILINE)
    assert SERVICES["grafana"]["user"].split(":")[0] == user
    assert any(volume.endswith("grafana_data:ro") for volume in SERVICES["dagster-code"]["volumes"])
