"""No message of the hub holds a password, and each says whether trying again makes sense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import DeniedError, HubError, RefusedError, SchemaError, SettingsError, UnavailableError, redact

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"mongodb://ann:{SECRET}@db:27017/x", "mongodb://***@db:27017/x"),
        (f"mongodb+srv://ann:{SECRET}@cluster.net/?retryWrites=true", "mongodb+srv://***@cluster.net/?retryWrites=true"),
        (f"postgresql+psycopg://ann:{SECRET}@[::1]:5432/hub", "postgresql+psycopg://***@[::1]:5432/hub"),
        (f"no 'mongodb://ann:{SECRET}@a,b' or mongodb://bob:{SECRET}@c", "no 'mongodb://***@a,b' or mongodb://***@c"),
        (f"MONGODB://ann:{SECRET}@db", "MONGODB://***@db"),
        (f"mongodb://ann:{SECRET}/x@y@db/x", "mongodb://***@db/x"),
        (f"mongodb://ann:it's{SECRET}@db/x", "mongodb://***@db/x"),
        (f"host=db password={SECRET} user=ann", "host=db password=*** user=ann"),
        (f"password='{SECRET} two' user=ann", "password=*** user=ann"),
        (f"password='it\\\\'s {SECRET}' user=ann".replace("\\\\", "\\"), "password=*** user=ann"),
        (f"Password: {SECRET}", "Password: ***"),
        (f"{{'password': '{SECRET}', 'user': 'ann'}}", "{'password': ***, 'user': 'ann'}"),
        (f'{{"password": "{SECRET}"}}', '{"password": ***}'),
        (f"DB_PASSWORD={SECRET} DB_HOST=x", "DB_PASSWORD=*** DB_HOST=x"),
        (f"PGPASSWORD={SECRET}", "PGPASSWORD=***"),
        (f"GF_SECURITY_ADMIN_PASSWORD: {SECRET}", "GF_SECURITY_ADMIN_PASSWORD: ***"),
    ],
)  # fmt: skip
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "PostgreSQL database 'hub' on db:5432 refused DB_USER 'ann': wrong password. Correct DB_PASSWORD.",
        "mongodb://db:27017/x cannot be reached",
        "see https://example.org/manual",
        'password authentication failed for user "ann"',
        "ann@example.org has no password",
        "",
    ],
)
def test_messages_without_credentials_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=12)


@settings(max_examples=200)
@given(WORDS)
def test_no_password_without_blanks_gets_through_a_connection_string(password: str) -> None:
    assert (
        redact(f"cannot reach mongodb://ann:{password}@host.example/hub")
        == "cannot reach mongodb://***@host.example/hub"
    )


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (SettingsError, False),
        (UnavailableError, True),
        (DeniedError, False),
        (SchemaError, False),
        (RefusedError, False),
        (HubError, False),
    ],
)
def test_an_error_knows_whether_to_try_again_and_forgets_passwords(kind: type[HubError], retryable: bool) -> None:
    error = kind(f"mongodb://ann:{SECRET}@db went away")
    assert error.retryable is retryable
    assert isinstance(error, HubError)
    assert SECRET not in str(error) + repr(error)
