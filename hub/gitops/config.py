"""The agent's configuration: root-owned INI files outside the repository, and the allowlist that names them.

    /etc/reading-hub/gitops/allowlist     one line for each deployment: NAME URL BRANCH
    /etc/reading-hub/gitops/NAME.ini      everything else

INI and not TOML: the host's Python may be 3.9, which has no tomllib.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError
from .log import Redactor

CONFIG_DIR = Path("/etc/reading-hub/gitops")
STATE_DIR = Path("/var/lib/reading-hub/gitops")
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")
_PROJECT = re.compile(r"^[a-z0-9][a-z0-9_-]*$")

_DEFAULTS: dict[str, dict[str, str]] = {
    "repository": {
        "path": "",
        "url": "",
        "branch": "main",
        "unencrypted": "refuse",
        "signatures": "off",
        "allowed_signers": "",
        "min_free_mb": "64",
        "timeout": "600",
    },
    "compose": {
        "project": "",
        "files": "compose/compose.yaml",
        "project_directory": "",
        "env_file": "",
        "profiles": "",
        "oneshot": "",
        "timeout": "1800",
        "attempts": "3",
    },
    "health": {"timeout": "300", "stable": "15", "interval": "2"},
    "dagster": {
        "url": "",
        "services": "",
        "drain_timeout": "900",
        "interval": "5",
        "on_timeout": "postpone",
        "on_unreachable": "postpone",
    },
    "database": {
        "services": "",
        "backup_command": "hub backup list --json --verified",
        "backup_max_age_hours": "24",
        "backup_timeout": "120",
    },
    "notify": {"command": "", "timeout": "30", "postponed_after": "3600"},
    "metrics": {"file": ""},
    "powers": {"allow": ""},
}


@dataclass(frozen=True)
class Config:
    """One deployment. Times are in seconds, paths absolute unless said otherwise."""

    name: str
    path: Path
    url: str
    branch: str
    unencrypted: str
    signatures: str
    allowed_signers: Path | None
    min_free_bytes: int
    git_timeout: float
    project: str
    files: tuple[str, ...]
    project_directory: str
    env_file: str
    profiles: tuple[str, ...]
    oneshot: tuple[str, ...]
    compose_timeout: float
    attempts: int
    health_timeout: float
    health_stable: float
    health_interval: float
    dagster_url: str
    dagster_services: tuple[str, ...]
    drain_timeout: float
    drain_interval: float
    drain_on_timeout: str
    drain_on_unreachable: str
    database_services: tuple[str, ...]
    backup_command: tuple[str, ...]
    backup_max_age: float
    backup_timeout: float
    notify_command: tuple[str, ...]
    notify_timeout: float
    postponed_after: float
    metrics_file: Path | None
    state_dir: Path
    powers: frozenset[str] = frozenset()

    @property
    def env_path(self) -> Path | None:
        """The env file for Compose; a relative one lies in the clone."""
        return self.path / self.env_file if self.env_file else None


def load(name: str, config_dir: Path = CONFIG_DIR, state_dir: Path = STATE_DIR) -> Config:
    """Read and check the configuration of `name`. Raises ConfigError, naming file, key and remedy."""
    if not NAME.match(name):
        raise ConfigError(
            "name", f"{name!r} is not a deployment name: use a-z, 0-9, '-' and '_', 63 characters at most"
        )
    _directory_is_safe(config_dir)
    allowed = _allowlist(config_dir / "allowlist")
    if name not in allowed:
        known = ", ".join(sorted(allowed)) or "none"
        raise ConfigError(
            "allowlist",
            f"{name} is not in {config_dir / 'allowlist'} (listed: {known}); add: {name} URL BRANCH",
        )
    source = config_dir / f"{name}.ini"
    config = _build(name, source, _parse(source, read_safely(source)), state_dir)
    if (config.url, config.branch) != allowed[name]:
        redact = Redactor()
        raise ConfigError(
            "allowlist",
            f"{source} asks for {redact(config.url)} {config.branch}, but the allowlist grants {name} "
            f"{redact(allowed[name][0])} {allowed[name][1]}; make them agree",
        )
    real = config.path.resolve()
    for what, place in (("configuration", config_dir), ("state", state_dir)):
        if place.resolve() == real or real in place.resolve().parents:
            raise ConfigError(
                "placement", f"the {what} folder {place} lies inside the clone {config.path}; move it out"
            )
    return config


def names(config_dir: Path = CONFIG_DIR) -> list[str]:
    """Every deployment on the allowlist, sorted."""
    _directory_is_safe(config_dir)
    return sorted(_allowlist(config_dir / "allowlist"))


def read_safely(path: Path) -> str:
    """The text of a file that only root or the running user can have written; else ConfigError."""
    try:
        with open(path, encoding="utf-8", opener=_opener) as file:
            check_owner(path, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError as error:
        raise ConfigError("missing", f"{path} does not exist; see deploy/gitops/ for an example") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("unreadable", f"{path} cannot be read: {error}") from error


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe in a file's place must not hold us


def _directory_is_safe(path: Path) -> None:
    try:
        info = os.stat(path)
    except OSError as error:
        raise ConfigError("missing", f"the configuration folder {path} cannot be read: {error.strerror}") from error
    check_owner(path, info)


def check_owner(path: Path, info: os.stat_result) -> None:
    """Raises ConfigError if somebody else than root and the running user can have written what `info` describes."""
    if info.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            "owner",
            f"{path} belongs to uid {info.st_uid}, not to root or uid {os.geteuid()}; run: chown root {path}",
        )
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(info.st_mode)
        raise ConfigError("writable", f"{path} can be written by others (mode {mode:04o}); run: chmod go-w {path}")


def _allowlist(path: Path) -> dict[str, tuple[str, str]]:
    granted: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(read_safely(path).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3 or not NAME.match(words[0]):
            raise ConfigError("allowlist", f"{path} line {number} is not 'NAME URL BRANCH'; correct or remove it")
        granted[words[0]] = (words[1], words[2])
    return granted


def _parse(source: Path, text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    try:
        parser.read_string(text, str(source))
    except configparser.Error as error:
        raise ConfigError("syntax", f"{source} is not a valid INI file: {str(error).splitlines()[0]}") from error
    values = {section: dict(keys) for section, keys in _DEFAULTS.items()}
    for section in parser.sections():
        if section not in values:
            raise ConfigError("key", f"{source}: no section [{section}] is known; there are: {', '.join(values)}")
        for key, value in parser.items(section):
            if key not in values[section]:
                known = ", ".join(values[section])
                raise ConfigError("key", f"{source}: [{section}] has no key {key!r}; there are: {known}")
            values[section][key] = value.strip()
    return values


def _build(name: str, source: Path, values: dict[str, dict[str, str]], state_dir: Path) -> Config:
    def text(section: str, key: str, choices: tuple[str, ...] = ()) -> str:
        value = values[section][key]
        if choices and value not in choices:
            raise ConfigError("value", f"{source}: [{section}] {key} = {value!r} must be one of {', '.join(choices)}")
        return value

    def needed(section: str, key: str) -> str:
        if not values[section][key]:
            raise ConfigError("value", f"{source}: [{section}] {key} is missing; set it")
        return values[section][key]

    def number(section: str, key: str) -> float:
        try:
            value = float(values[section][key])
        except ValueError as error:
            raise ConfigError(
                "value", f"{source}: [{section}] {key} = {values[section][key]!r} is no number"
            ) from error
        if not 0 <= value < 1e9:
            raise ConfigError("value", f"{source}: [{section}] {key} = {value:g} is out of range; use 0 or more")
        return value

    def words(section: str, key: str) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(values[section][key].replace("\n", " ")))
        except ValueError as error:
            raise ConfigError("value", f"{source}: [{section}] {key}: {error}; balance the quotes") from error

    def absolute(section: str, key: str) -> Path | None:
        value = values[section][key]
        if value and not value.startswith("/"):
            raise ConfigError("value", f"{source}: [{section}] {key} = {value!r} must be an absolute path")
        return Path(value) if value else None

    def powers() -> frozenset[str]:
        lines = [line.strip() for line in values["powers"]["allow"].splitlines() if line.strip()]
        for line in lines:
            if ": " not in line:
                raise ConfigError(
                    "value", f"{source}: [powers] allow: {line!r} is not 'SERVICE: WHAT', as plan prints it"
                )
        return frozenset(lines)

    needed("repository", "path")
    branch = needed("repository", "branch")
    if branch.startswith("-") or not re.match(r"^[A-Za-z0-9._/-]+$", branch):
        raise ConfigError("value", f"{source}: [repository] branch = {branch!r} is not a branch name")
    url = needed("repository", "url")
    if url.startswith(("-", "ext::")):
        raise ConfigError("value", f"{source}: [repository] url = {url!r} is not a URL the agent will fetch from")
    unencrypted = text("repository", "unencrypted", ("refuse", "allow"))
    if unencrypted == "refuse" and url.lower().startswith(("http://", "git://", "ftp://")):
        raise ConfigError(
            "value",
            f"{source}: [repository] url begins with {url.split('://')[0]}://: whoever is between here and the remote decides "
            "what runs; use https:// or SSH, or set unencrypted = allow",
        )
    project = needed("compose", "project")
    if not _PROJECT.match(project):
        raise ConfigError("value", f"{source}: [compose] project = {project!r} is not a Compose project name")
    signatures = text("repository", "signatures", ("off", "tip", "all"))
    signers = absolute("repository", "allowed_signers")
    if signatures != "off" and signers is None:
        raise ConfigError("value", f"{source}: [repository] signatures = {signatures} needs allowed_signers = /path")
    dagster_url, dagster_services = text("dagster", "url"), words("dagster", "services")
    if dagster_url and not dagster_services:
        raise ConfigError(
            "value", f"{source}: [dagster] url is set, so services must name whose replacement drains runs"
        )
    if dagster_url and not dagster_url.startswith(("http://", "https://")):
        raise ConfigError("value", f"{source}: [dagster] url must begin with http:// or https://")
    path = absolute("repository", "path")
    assert path is not None
    return Config(
        name=name,
        path=path,
        url=url,
        branch=branch,
        unencrypted=unencrypted,
        signatures=signatures,
        allowed_signers=signers,
        min_free_bytes=int(number("repository", "min_free_mb") * 1024 * 1024),
        git_timeout=number("repository", "timeout"),
        project=project,
        files=words("compose", "files"),
        project_directory=text("compose", "project_directory"),
        env_file=text("compose", "env_file"),
        profiles=words("compose", "profiles"),
        oneshot=words("compose", "oneshot"),
        compose_timeout=number("compose", "timeout"),
        attempts=int(number("compose", "attempts")),
        health_timeout=number("health", "timeout"),
        health_stable=number("health", "stable"),
        health_interval=number("health", "interval"),
        dagster_url=dagster_url,
        dagster_services=dagster_services,
        drain_timeout=number("dagster", "drain_timeout"),
        drain_interval=number("dagster", "interval"),
        drain_on_timeout=text("dagster", "on_timeout", ("postpone", "proceed")),
        drain_on_unreachable=text("dagster", "on_unreachable", ("postpone", "proceed")),
        database_services=words("database", "services"),
        backup_command=words("database", "backup_command"),
        backup_max_age=number("database", "backup_max_age_hours") * 3600,
        backup_timeout=number("database", "backup_timeout"),
        notify_command=words("notify", "command"),
        notify_timeout=number("notify", "timeout"),
        postponed_after=number("notify", "postponed_after"),
        metrics_file=absolute("metrics", "file"),
        state_dir=state_dir,
        powers=powers(),
    )
