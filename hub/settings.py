"""Every setting of the hub, read from the environment, `.env` and files of secrets in one place, at run time only."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from hub import secret_files
from hub.errors import SettingsError

_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_$-]{0,62}$")
_CRON_PART = re.compile(r"^(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?$")
# Minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).
_CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_NAMES = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"} | {
    "mon", "tue", "wed", "thu", "fri", "sat", "sun",
}  # fmt: skip


def _comma_list(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _cron(value: Any) -> Any:
    fields = value.split() if isinstance(value, str) else []
    if len(fields) != len(_CRON_BOUNDS) or not all(
        _is_cron_part(part, *bounds)
        for field, bounds in zip(fields, _CRON_BOUNDS, strict=True)
        for part in field.split(",")
    ):
        raise ValueError("must be a cron expression of five fields, such as '0 10 * * *'")
    return value


def _is_cron_part(part: str, low: int, high: int) -> bool:
    found = _CRON_PART.match(part)
    numbers = [found["first"], found["last"]] if found else []
    return found is not None and all(
        low <= int(number) <= high if number.isdigit() else number.lower() in _CRON_NAMES
        for number in numbers
        if number is not None
    )


Cron = Annotated[str, BeforeValidator(_cron)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list), Field(min_length=1)]


def given_secrets() -> dict[str, str]:
    """The settings that are files of HUB_SECRETS_DIR (/run/secrets, where Compose puts them), by name."""
    return secret_files.read(os.environ.get("HUB_SECRETS_DIR"))


def dagster_environment() -> dict[str, str]:
    """What dagster.yaml takes from the environment and is a file of secrets instead."""
    return {name: value for name, value in given_secrets().items() if name == "DAGSTER_DB_PASSWORD"}


class _FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True, frozen=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """As usual, but an empty file is a setting that is not set, as an empty variable is."""
        files = InitSettingsSource(settings_cls, {name.lower(): text for name, text in given_secrets().items()})
        return init_settings, env_settings, dotenv_settings, files


class LogSettings(_FromEnvironment):
    """How every process logs; also of those that need no other setting."""

    hub_log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Log lines: json, text, or auto: text on a terminal, else json."
    )
    hub_log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"


class WebSettings(LogSettings):
    """Where Dagster's web server is found, and who may come in from other machines."""

    dagster_url: str = Field("http://127.0.0.1:3000", description="Where the proxy API reaches Dagster's webserver.")
    dagster_public_url: str | None = Field(None, description="Dagster's address in links; DAGSTER_URL by default.")
    bind_addr: str = Field("127.0.0.1", description="Address that the ports of the stack are published on.")
    gateway_dir: Path = Field(Path("gateway"), description="Folder of the gateway's users.")

    @field_validator("dagster_url", "dagster_public_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s?#@]+(/[^\s?#]*)?$", value):
            raise ValueError("must be an address such as https://hub.example.net/dagster, without a query or a login")
        return value


class DefinitionSettings(WebSettings):
    """What Dagster's definitions depend on. Everything has a default, so definitions always load."""

    reading_start_date: dt.date = Field(
        dt.date(2020, 1, 1), description="First UTC day that exists as a partition; earlier readings are dead letters."
    )
    mongo_db_name: str = "reading"
    mongo_collection: str = "events"
    reading_time_field: Annotated[CommaList, Field(description="Fields that hold the time; first present wins.")] = (
        "timestamp",
        "extracted_at",
    )
    reading_value_path: str = "payload.value"
    reading_compress_after_days: int = Field(30, ge=8, description="Age at which chunks go to the columnstore.")
    reading_retention_days: int | None = Field(
        None, ge=90, description="Age at which raw readings are dropped; off by default. The rollups stay."
    )
    reading_cron: Cron = Field("0 10 * * *", description="When yesterday's readings are loaded (UTC).")
    ledger_cron: Cron = Field("5 * * * *", description="When MongoDB counts its documents by day (UTC).")
    sweep_cron: Cron = Field("30 3 * * *", description="When the documents of the last 30 days are compared (UTC).")
    sweep_all_cron: Cron = Field("0 5 * * 6", description="When all documents are compared by digest (UTC).")
    report_cron: Cron = Field(
        "30 10 * * 1", description="When the report of the week before is written (UTC): after its last day is loaded."
    )
    retry_seconds: int = Field(20, ge=0, description="Pause before a step is tried again after a server was away.")
    reading_sensor_seconds: int = Field(
        60,
        ge=5,
        description="Runs for what arrived are asked for once in this time; looks without a change stream, too.",
    )
    backup_cron: Cron = Field("30 2 * * *", description="When a backup is taken, verified and copied off-site (UTC).")
    backup_drill_cron: Cron = Field("0 4 * * 0", description="When the newest backup is restored as a drill (UTC).")
    metrics_start_date: dt.date = Field(
        dt.date(2026, 1, 1), description="First UTC day of host metrics as a partition."
    )
    metrics_cron: Cron = Field("*/15 * * * *", description="When the rollups of host metrics are refreshed.")

    @field_validator("reading_time_field")
    @classmethod
    def _top_level(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name == "_id" or name.startswith("$") or "." in name:
                raise ValueError(f"{name!r} cannot be a time field: name top-level fields of the document")
        return value


class Settings(DefinitionSettings):
    """All settings. `load_settings()` builds it and turns what is wrong into one clear sentence."""

    mongo_uri: SecretStr = Field(description="Where the reading events come from: mongodb://… or mongodb+srv://…")
    mongo_own: str | None = Field(
        None, description="HOST:PORT of a MongoDB of the stack, where samples may be written; compose.yaml sets it."
    )
    reading_sensor_overlap_minutes: int = Field(15, ge=0)

    db_host: str = Field(description="Host of the PostgreSQL/TimescaleDB server.")
    db_port: int = Field(5432, ge=1, le=65535)
    db_name: str = "reading_hub"
    db_user: str = "reading_hub"
    db_password: SecretStr = Field(description="Password of DB_USER.")
    db_admin_user: str | None = Field(
        None, description="Superuser for `hub db upgrade`, `hub db roles`, backups and restores; DB_USER by default."
    )
    db_admin_password: SecretStr | None = Field(None, description="Password of DB_ADMIN_USER; DB_PASSWORD by default.")
    db_owner: str | None = Field(None, description="Role that owns every object; DB_USER by default.")
    grafana_db_user: str = Field("grafana", description="Role that Grafana reads with, made if it has a password.")
    grafana_db_password: SecretStr | None = Field(None, description="Password of GRAFANA_DB_USER.")
    dagster_db_name: str = "dagster"
    dagster_db_user: str | None = Field(None, description="Defaults to DB_USER.")
    dagster_db_password: SecretStr | None = Field(None, description="Defaults to DB_PASSWORD.")

    metrics_host: str | None = Field(None, description="Name of this host in system_metrics; its own by default.")
    metrics_root: Path = Field(Path("/"), description="Where the host's root is mounted, in a container: /host.")
    metrics_spool_mb: int = Field(64, ge=1, description="Most that may wait on disk for the database; a day is 12 MB.")

    port: int = Field(8085, ge=1, le=65535, description="Port of the proxy API.")
    proxy_host: str = Field("127.0.0.1", description="Address that the proxy API listens on.")
    proxy_db_user: str | None = Field(None, description="Role for reads, which `hub db roles` makes; else DB_USER.")
    proxy_db_password: SecretStr | None = Field(None, description="Password of PROXY_DB_USER.")
    proxy_rate_per_second: float = Field(100, gt=0, description="Requests a second for each token; bursts of twice it.")
    proxy_timeout_seconds: float = Field(10, gt=0, description="After this an answer is a 503 or 504.")
    proxy_root_path: str | None = Field(
        None, pattern=r"^(/[A-Za-z0-9._~-]+)+$", description="Path of the API behind a reverse proxy of yours: /hub."
    )
    proxy_cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)] = ()

    backup_dir: Path = Path("backups")
    hub_data_dir: Path = Path(".hub")

    backup_volumes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)] = Field(
        (), description="Folders that are part of every backup, separated by commas."
    )
    backup_jobs: int = Field(2, ge=1, le=32, description="Parallel jobs of a dump and a restore.")
    backup_keep_last: int = Field(7, ge=1)
    backup_keep_daily: int = Field(14, ge=0)
    backup_keep_weekly: int = Field(8, ge=0)
    backup_keep_monthly: int = Field(12, ge=0)
    backup_keep_yearly: int = Field(10, ge=0)
    backup_stale_hours: int = Field(26, ge=1, description="Age of the newest verified backup that is an alarm.")
    backup_url: SecretStr | None = Field(None, description="Where copies go: s3://bucket/folder, file:///mnt/nas, …")
    aws_access_key_id: SecretStr | None = Field(None, description="For BACKUP_URL=s3://…; or as boto3 finds them.")
    aws_secret_access_key: SecretStr | None = None
    backup_age_recipient: str | None = Field(None, description="age1…: copies are encrypted to it before they leave.")
    backup_age_identity: Path | None = Field(None, description="File with the age identity that opens them again.")
    notify_urls: SecretStr | None = Field(None, description="apprise URLs, separated by spaces or commas.")

    @field_validator("mongo_uri")
    @classmethod
    def _mongo_scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return value

    @field_validator(
        "db_name", "db_user", "db_admin_user", "db_owner", "grafana_db_user", "dagster_db_name", "dagster_db_user",
        "proxy_db_user",
    )  # fmt: skip
    @classmethod
    def _identifier(cls, value: str | None) -> str | None:
        if value is not None and not _IDENTIFIER.match(value):
            raise ValueError("must be a plain name of letters, digits, '_', '-' or '$', 63 at most")
        return value

    @property
    def owner(self) -> str:
        """The role that owns the tables and rollups."""
        return self.db_owner or self.db_user

    @property
    def with_roles(self) -> bool:
        """Whether administrator, owner and writer are different roles."""
        return bool(self.db_owner or self.db_admin_user)

    @property
    def grafana_role(self) -> str | None:
        """GRAFANA_DB_USER where roles are in use: a role that happens to have its default name is left alone."""
        return self.grafana_db_user if self.grafana_db_password or self.with_roles else None

    def as_admin(self) -> Settings:
        """The same settings for the superuser's work: DB_USER, also for Dagster's database, is DB_ADMIN_USER."""
        if self.db_admin_user is None:
            return self
        password = self.db_admin_password or self.db_password
        return self.model_copy(
            update={
                "db_user": self.db_admin_user, "db_password": password, "db_owner": self.owner,
                "dagster_db_user": self.db_admin_user, "dagster_db_password": password,
            }
        )  # fmt: skip

    def as_dagster(self) -> Settings:
        """The same settings, pointing at Dagster's instance database."""
        return self.model_copy(
            update={
                "db_name": self.dagster_db_name,
                "db_user": self.dagster_db_user or self.db_user,
                "db_password": self.dagster_db_password or self.db_password,
            }
        )

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, complete, for child processes. Holds secrets."""
        env: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            env[name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
        env.setdefault("DAGSTER_DB_USER", env["DB_USER"])
        env.setdefault("DAGSTER_DB_PASSWORD", env["DB_PASSWORD"])
        return env


def _message(text: str) -> str:
    return text.removeprefix("Value error, ").replace("Input should be", "must be")


def _sentence(error: ValidationError) -> str:
    """One sentence for all that is wrong. Values are never repeated: they may be secrets."""
    missing, malformed = [], []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else "a setting"
        if problem["type"] == "missing":
            missing.append(name)
        else:
            malformed.append(f"{name} {_message(problem['msg'])}")
    parts = []
    if missing:
        parts.append(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set")
    parts.extend(malformed)
    them = "it" if len(missing) + len(malformed) == 1 else "them"
    return f"{'; '.join(parts)}: set {them} in .env or the environment (.env.example shows how)."


_S = TypeVar("_S", bound=LogSettings)


def _load(kind: type[_S], **overrides: Any) -> _S:
    try:
        return kind(**overrides)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; keyword arguments win over the environment.

    Raises SettingsError naming each missing or malformed setting.
    """
    return _load(Settings, **overrides)


def load_definition_settings() -> DefinitionSettings:
    """Read what Dagster's definitions depend on. Raises SettingsError when one is malformed."""
    return _load(DefinitionSettings)


def load_log_settings() -> LogSettings:
    """Read how this process logs. Raises SettingsError when HUB_LOG_FORMAT or HUB_LOG_LEVEL is malformed."""
    return _load(LogSettings)


def load_web_settings() -> WebSettings:
    """Read where Dagster's web server is found. Raises SettingsError when one is malformed."""
    return _load(WebSettings)
