"""What is wrong with the settings is said in one sentence that names each and repeats no value."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from hub.errors import SettingsError
from hub.settings import load_definition_settings, load_settings

GOOD: dict[str, Any] = {"mongo_uri": "mongodb://db", "db_host": "db", "db_password": "hunter2"}
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env but the test's own."""
    monkeypatch.chdir(tmp_path)


def complaint(**given: Any) -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(**given)
    text = str(error.value)
    assert "\n" not in text
    assert not error.value.retryable
    return text


def test_a_missing_setting_is_named_with_where_to_set_it() -> None:
    text = complaint(mongo_uri="mongodb://db", db_password="x")
    assert text == "DB_HOST is not set: set it in .env or the environment (.env.example shows how)."


def test_all_missing_settings_are_named_at_once() -> None:
    assert complaint().startswith("MONGO_URI and DB_HOST and DB_PASSWORD are not set: set them in .env")


def test_an_empty_setting_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", "")
    assert "DB_HOST is not set" in complaint(mongo_uri="mongodb://db", db_password="x")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mongo_uri", f"postgresql://ann:{SECRET}@db", "must begin with mongodb://"),
        ("db_port", f"{SECRET}", "valid integer"),
        ("db_port", "70000", "65535"),
        ("db_port", "0", "greater than or equal to 1"),
        ("db_name", f"hub; DROP TABLE {SECRET}", "plain name"),
        ("db_user", "", "plain name"),
        ("dagster_db_name", "x" * 64, "63 at most"),
        ("reading_start_date", f"{SECRET}", "date"),
        ("reading_cron", "10 o'clock", "cron expression"),
        ("reading_cron", "0 10 * *", "five fields"),
        ("reading_time_field", "", "at least 1 item"),
        ("reading_time_field", "when,_id", "cannot be a time field"),
        ("reading_time_field", "meta.time", "cannot be a time field"),
        ("reading_time_field", "$now", "cannot be a time field"),
        ("reading_sensor_seconds", "1", "5"),
        ("retry_seconds", "-1", "0"),
    ],
)
def test_a_malformed_setting_is_named_with_what_it_must_be_and_never_repeated(name: str, value: str, said: str) -> None:
    text = complaint(**{**GOOD, name: value})
    assert text.startswith(f"{name.upper()} ")
    assert said in text
    assert SECRET not in text
    assert "Input should" not in text
    assert "Value error" not in text


def test_missing_and_malformed_settings_come_in_one_sentence() -> None:
    text = complaint(db_host="db", mongo_uri=f"http://ann:{SECRET}@db", db_port=0)
    assert text.startswith("DB_PASSWORD is not set; ")
    for name in ("MONGO_URI", "DB_PORT"):
        assert f"{name} must" in text
    assert SECRET not in text


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MONGO_URI=mongodb://file\nDB_HOST=file\nDB_PASSWORD='p w#'\nOTHER=ignored\n")
    monkeypatch.setenv("DB_HOST", "environment")
    settings = load_settings()
    assert (settings.db_host, settings.db_port) == ("environment", 5432)
    assert settings.mongo_uri.get_secret_value() == "mongodb://file"
    assert settings.db_password.get_secret_value() == "p w#"


def test_no_text_of_the_settings_holds_a_secret() -> None:
    settings = load_settings(**{**GOOD, "mongo_uri": f"mongodb://ann:{SECRET}@db", "dagster_db_password": SECRET})
    assert SECRET not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


def test_the_environment_of_a_child_makes_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(**GOOD, reading_time_field="a, b", reading_start_date="2021-02-03", db_user="ann")
    environment = settings.environment()
    assert (environment["DAGSTER_DB_USER"], environment["DAGSTER_DB_PASSWORD"]) == ("ann", SECRET)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    again = load_settings()
    assert again.environment() == environment
    assert again.reading_time_field == settings.reading_time_field == ("a", "b")
    assert again.reading_start_date == dt.date(2021, 2, 3)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(**GOOD).db_host = "other"  # type: ignore[misc]


def test_definitions_need_no_setting_and_say_which_one_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_definition_settings().reading_cron == "0 10 * * *"
    monkeypatch.setenv("READING_START_DATE", "yesterday")
    with pytest.raises(SettingsError, match="READING_START_DATE must"):
        load_definition_settings()


def test_without_settings_for_roles_one_role_does_everything() -> None:
    settings = load_settings(**GOOD)
    assert settings.as_admin() is settings
    assert (settings.owner, settings.with_roles, settings.grafana_role) == (settings.db_user, False, None)


def test_the_administrator_works_on_both_databases_and_keeps_the_owner() -> None:
    given = {"db_admin_user": "postgres", "db_admin_password": "root's", "dagster_db_user": "dagster"}
    settings = load_settings(**GOOD, **given, dagster_db_password="dagster's")
    admin = settings.as_admin()
    assert (admin.db_user, admin.dagster_db_user, admin.owner) == ("postgres", "postgres", settings.db_user)
    assert admin.db_password.get_secret_value() == "root's"
    assert admin.dagster_db_password == admin.db_password
    assert admin.as_admin() == admin
    assert (settings.with_roles, settings.grafana_role) == (True, "grafana")


def test_the_administrators_password_is_the_users_unless_it_is_set() -> None:
    admin = load_settings(**GOOD, db_admin_user="postgres").as_admin()
    assert admin.db_password.get_secret_value() == SECRET
