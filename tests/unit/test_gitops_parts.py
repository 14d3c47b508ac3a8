"""The agent's small parts: configuration, redaction, ignore rules, plans, state, units, scripts."""

from __future__ import annotations

import ast
import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub.gitops import backup_gate, config, dagster, dockerignore, plan, report, state
from hub.gitops.command import Finished
from hub.gitops.containers import Container, stopped_on_purpose
from hub.gitops.errors import ConfigError
from hub.gitops.log import Redactor, quote
from hub.gitops.stack import Model, Service
from tests.support.gitops import REPOSITORY

SOURCES = sorted((REPOSITORY / "hub/gitops").glob("*.py"))
SYSTEMD = REPOSITORY / "deploy/systemd"


def test_of_what_compose_says_only_what_is_wrong_is_repeated() -> None:
    """Lines as Compose 2.40 writes them, also where nothing but progress was said."""
    said = [
        " Network gitopslab_backend  Created ",
        " Container gitopslab-web-1  Starting ",
        "Error response from daemon: driver failed programming external connectivity on endpoint web-1",
    ]
    err = "\n".join(said).encode()
    assert Finished(["docker"], 1, b"", err).complaint() == said[2]
    assert Finished(["docker"], 1, b"", "\n".join(said[:2]).encode()).complaint() == (
        "Network gitopslab_backend  Created | Container gitopslab-web-1  Starting"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_every_module_is_python_3_9_and_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
        assert not isinstance(node, ast.Match)
        assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_nothing_is_imported_after_the_start(path: Path) -> None:
    """An import inside a function would read the tree that the run has just moved."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert not [n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))]


def write_config(folder: Path, text: str) -> Path:
    folder.chmod(0o755)
    (folder / "allowlist").write_text("# comment\n\nprod /r.git main\n")
    (folder / "prod.ini").write_text(text)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


GOOD = "[repository]\npath = /srv/x\nurl = /r.git\n[compose]\nproject = hub\n"


def test_a_short_configuration_has_defaults(tmp_path: Path) -> None:
    found = config.load("prod", write_config(tmp_path, GOOD), tmp_path / "state")
    assert (found.branch, found.files, found.attempts) == ("main", ("compose/compose.yaml",), 3)
    assert found.backup_command == ("hub", "backup", "list", "--json", "--verified")
    assert found.env_path is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + "[health]\ntimeuot = 3\n", "timeuot"),
        (GOOD + "[helth]\n", "helth"),
        (GOOD + "[health]\ntimeout = soon\n", "'soon'"),
        (GOOD + "[health]\ntimeout = -1\n", "-1"),
        (GOOD + "[health]\ntimeout = nan\n", "nan"),
        (GOOD + "[dagster]\nurl = http://x\n", "services"),
        (GOOD + "[dagster]\nurl = file:///etc/passwd\nservices = a\n", "http://"),
        (GOOD + "[dagster]\non_timeout = maybe\n", "'maybe'"),
        (GOOD + "[metrics]\nfile = a.prom\n", "absolute"),
        (GOOD + "[notify]\ncommand = tell 'me\n", "quotes"),
        (GOOD.replace("hub", "-f"), "'-f'"),
        (GOOD.replace("/r.git", "ext::sh -c id"), "ext::"),
        (GOOD.replace("/srv/x", "x"), "absolute"),
        (GOOD.replace("path = /srv/x\n", ""), "path"),
        (GOOD + "branch = -x\n", "branch"),
        (GOOD.replace("url", "signatures = tip\nurl"), "allowed_signers"),
        ("no section", "prod.ini"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    if "branch = -x" in text:
        text = GOOD.replace("[compose]", "branch = -x\n[compose]")
    with pytest.raises(ConfigError, match=named.replace("'", ".")):
        config.load("prod", write_config(tmp_path, text), tmp_path / "state")


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "-x", "x" * 64])
def test_a_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a deployment name"):
        config.load(name, write_config(tmp_path, GOOD))


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    example = (REPOSITORY / "deploy/gitops/deployment.ini.example").read_text()
    write_config(tmp_path, example)
    (tmp_path / "allowlist").write_text("prod git@github.com:example/reading-hub.git main\n")
    found = config.load("prod", tmp_path, tmp_path / "state")
    assert found.database_services == ("timescaledb",)
    assert found.signatures == "tip"
    assert found.backup_command[:2] == ("docker", "compose")


def test_the_documentation_names_every_key() -> None:
    text = (REPOSITORY / "docs/gitops.md").read_text()
    for section, keys in config._DEFAULTS.items():
        assert f"`[{section}]`" in text
        for key in keys:
            assert f"`{key}`" in text, f"[{section}] {key}"


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("docs", "docs/a.md", True),
        ("docs", "x/docs/a.md", False),
        ("**/docs", "x/docs/a.md", True),
        ("*.md", "a.md", True),
        ("*.md", "x/a.md", False),
        ("**/*.md", "x/y/a.md", True),
        ("**/*.md", "a.md", True),
        ("/docs/", "docs/a", True),
        ("*\n!src", "src/a.py", False),
        ("*\n!src", "b.py", True),
        ("*\n!src\nsrc/b.py", "src/b.py", True),
        ("# docs", "docs", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].txt", "a.txt", True),
        ("[ab].txt", "c.txt", False),
        ("a.b", "axb", False),
        ("", "x", False),
        ("foo**bar", "fooxbar", True),
        ("**", "a/b", True),
        ("./docs", "docs/a", True),
        (r"\!x", "!x", True),
    ],
)
def test_dockerignore_rules(pattern: str, path: str, ignored: bool) -> None:
    assert dockerignore.parse(pattern)(path) is ignored


def test_secrets_do_not_pass(tmp_path: Path) -> None:
    redact = Redactor()
    secret = "DB_PASSWORD='s3cr3t-value'\n#X_TOKEN=comment\nDB_HOST=localhost\nMONGO_URI=mongodb://a:b@c\n"
    (tmp_path / ".env").write_text(secret)
    redact.learn_env_file(tmp_path / ".env")
    redact.learn_env_file(tmp_path / "absent")
    text = redact("s3cr3t-value https://user:token@host/x API_KEY=abc password: xyz localhost ssh://git@host")
    for word in ("s3cr3t", "user:token", "abc", "xyz"):
        assert word not in text
    assert "localhost" in text
    assert "***@host/x" in text


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('a"b\\c\nd', '"a\\"b\\\\c\\nd"'),
        ("red\x1b[31m\x7f\x85\u2028\u202e\udcff", '"red\\x1b[31m\\x7f\\u0085\\u2028\\u202e\\xff"'),
        ("line\n", '"line\\n"'),
        ("x" * 3000, f'"{"x" * 2000} … (3000 characters)"'),
        (True, "true"),
        ("", '""'),
        ("a=b", '"a=b"'),
    ],
)
def test_logfmt_values_stay_on_one_line(value: object, line: str) -> None:
    assert quote(value) == line


@pytest.mark.parametrize(
    ("item", "epoch"),
    [
        ({"finished_at": "2026-01-02T03:04:05Z"}, 1767323045),
        ({"name": "20260102T030405Z"}, 1767323045),
        ({"time": "2026-01-02 05:04:05.123+02:00"}, 1767323045),
        ({"created_at": 1767323045}, 1767323045),
        ({"id": "2026-01-02T03-04-05Z"}, 1767323045),
        ({"name": "latest"}, 0),
        ({}, 0),
        ({"created_at": "2026-01-02T03:04:05+00:00", "verified_at": "2026-02-02T03:04:05+00:00"}, 1767323045),
        ({"name": "20260102T030405Z", "created_at": "2026-01-02T03:04:09Z", "verified_at": None}, 1767323045),
        ({"name": "2026-01-02T03:04:05-23:59"}, 1767323045 + 86340),
        ({"time": True}, None),
        ({"time": float("nan")}, None),
        ({"time": float("inf")}, None),
        ({"time": -1}, None),
        ({"time": 1767323045000}, None),
        ({"time": "yesterday"}, None),
        ({"time": ["2026-01-02T03:04:05Z"]}, None),
        ({"time": "2026-01-02T03:04:05Z or so"}, None),
        ({"created_at": "2026-02-30T03:04:05Z"}, None),
        ({"created_at": "2026-02-01T24:00:00Z"}, None),
        ({"created_at": "2026-02-01T03:04:05+24:00"}, None),
        ({"created_at": "2026-02-01T03:04:05+23:60"}, None),
        ({"created_at": "0000-01-01T00:00:00Z"}, None),
        ({"name": "20270102T030405Z"}, None),
        ({"name": "20260230T030405Z", "created_at": "2026-01-02T03:04:05Z"}, None),
        ({"created_at": "2026-01-02T03:04:05Z", "verified_at": "2099-01-02T03:04:05Z"}, None),
        ({"created_at": "2099-01-02T03:04:05Z", "verified_at": "2026-01-02T03:04:05Z"}, None),
    ],
)
def test_times_of_backups(item: dict[str, object], epoch: int | None) -> None:
    assert backup_gate._when(item, latest=1790000000) == epoch


def container(**changes: object) -> Container:
    base = {
        "id": "1",
        "service": "web",
        "status": "running",
        "health": "",
        "exit_code": 0,
        "oom": False,
        "restarts": 0,
        "restart_policy": "unless-stopped",
        "started_at": "x",
        "image": "web:1",
        "image_id": "i",
        "config_hash": "h",
    }
    return Container(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "terms", "why"),
    [
        ({}, {}, ""),
        ({"status": "exited"}, {}, "stopped"),
        ({"status": "exited", "exit_code": 143}, {}, "stopped"),
        ({"status": "exited", "exit_code": 1}, {}, ""),
        ({"status": "exited", "exit_code": 137, "oom": True}, {}, ""),
        ({"status": "paused"}, {}, "paused"),
        ({"status": "restarting", "exit_code": 1}, {}, ""),
        ({"status": "created"}, {}, ""),
        ({"status": "exited"}, {"oneshot": True}, ""),
        ({"status": "exited"}, {"known": False}, ""),
        ({"status": "exited"}, {"rebooted": True}, "stopped"),
        ({"status": "exited", "restart_policy": "no"}, {"rebooted": True}, ""),
        ({"status": "exited", "restart_policy": "no"}, {"rebooted": True, "was_held": True}, "stopped"),
        (None, {}, "removed"),
        (None, {"known": False}, ""),
    ],
)
def test_what_counts_as_stopped_on_purpose(changes: dict[str, object] | None, terms: dict[str, bool], why: str) -> None:
    box = None if changes is None else container(**changes)
    base = {"oneshot": False, "known": True, "was_held": False, "rebooted": False}
    assert stopped_on_purpose("web", box, **{**base, **terms}) == why


def test_an_unknown_service_is_replaced_and_an_equal_one_is_not(tmp_path: Path) -> None:
    cfg = config.load("prod", write_config(tmp_path, GOOD), tmp_path / "state")
    same = {"definition": "d", "image": "web:1", "content": "c"}
    model = Model("b", {n: Service(n, "web:1", "", False, True, same) for n in ("known", "unknown", "new")})
    memory = state.State(deployed={"known": same, "unknown": None})
    running = {n: container(service=n) for n in ("known", "unknown")}
    found = plan.make(cfg, memory, "a", model, running)
    assert found.replace == {"unknown": "an interrupted deployment left it unknown", "new": "new"}


def test_the_state_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prod.json"
    first = state.State(last_good="a", in_flight=state.InFlight("a", "b", services=["web"]), deployed={"web": None})
    state.save(path, first)
    assert state.load(path) == first
    assert path.stat().st_mode & 0o777 == 0o600

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        state.save(path, state.State(last_good="c"))
    assert state.load(path) == first
    assert [p.name for p in tmp_path.iterdir()] == ["prod.json"]


def test_the_state_ignores_keys_of_later_versions(tmp_path: Path) -> None:
    path = tmp_path / "prod.json"
    flight = {"origin": "a", "target": "b", "x": 1}
    path.write_text(json.dumps({"version": 1, "last_good": "a", "later": 1, "in_flight": flight}))
    assert state.load(path).in_flight == state.InFlight("a", "b")


def test_only_so_many_failed_commits_are_remembered() -> None:
    memory = state.State()
    for number in range(60):
        memory.mark_bad(str(number), "why")
    assert len(memory.bad) == 50
    assert "59" in memory.bad
    assert "9" not in memory.bad


def test_metrics_are_prometheus_text() -> None:
    memory = state.State(
        last_good="abc", last={"result": "deployed", "ended": 1767323045.5, "duration": 2, "last_success": 1}
    )
    lines = report.metrics_text('a"b', memory, {"in_step": True, "held": {}}).splitlines()
    assert 'reading_hub_gitops_in_step{name="a\\"b"} 1' in lines
    assert 'reading_hub_gitops_last_run_timestamp_seconds{name="a\\"b"} 1767323045.500' in lines
    assert all(line.startswith(("# HELP ", "# TYPE ", "reading_hub_gitops_")) for line in lines)


def test_the_question_to_dagster_is_valid_graphql() -> None:
    graphql = pytest.importorskip("graphql")
    schema = pytest.importorskip("dagster_graphql.schema").create_schema()
    assert graphql.validate(schema.graphql_schema, graphql.parse(dagster.QUERY)) == []


def test_the_units_say_what_they_must() -> None:
    service, timer = (configparser.ConfigParser(strict=False, interpolation=None) for _ in range(2))
    service.optionxform = str  # type: ignore[assignment,method-assign]
    service.read(SYSTEMD / "reading-hub-gitops@.service")
    timer.read(SYSTEMD / "reading-hub-gitops@.timer")
    assert timer["Timer"]["OnBootSec"]
    assert service["Service"]["SuccessExitStatus"] == "75"
    assert service["Service"]["ExecStart"].endswith("gitops.pyz sync %i")
    assert service["Service"]["ProtectSystem"] == "strict"
    assert {"MemoryMax", "MemorySwapMax", "OOMPolicy", "TasksMax", "TimeoutStartSec", "TimeoutStopSec"} <= set(
        service["Service"]
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_service_is_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "reading-hub-gitops@.service"
    shutil.copy(SYSTEMD / unit.name, unit)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze has no --offline")
    assert done.returncode == 0, done.stdout[-300:]


def test_installing_twice_keeps_the_configuration_and_uninstalling_keeps_it_too(tmp_path: Path) -> None:
    env = {**os.environ, "DESTDIR": str(tmp_path), "PYTHON": sys.executable}

    def script(name: str, *args: str) -> None:
        subprocess.run([str(REPOSITORY / "deploy/gitops" / name), *args], env=env, check=True, capture_output=True)

    script("install-agent", "prod")
    ini = tmp_path / "etc/reading-hub/gitops/prod.ini"
    assert ini.stat().st_mode & 0o077 == 0
    ini.write_text("mine\n")
    script("install-agent", "prod")
    assert ini.read_text() == "mine\n"
    pyz = tmp_path / "usr/local/lib/reading-hub/gitops.pyz"
    shown = subprocess.run(
        [sys.executable, "-S", str(pyz), "sync", "--help"], capture_output=True, text=True, check=True
    )
    assert "--config-dir" in shown.stdout
    script("uninstall-agent")
    assert not pyz.exists()
    assert not list((tmp_path / "etc/systemd/system").iterdir())
    assert ini.read_text() == "mine\n"
