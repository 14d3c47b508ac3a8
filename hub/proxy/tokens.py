"""Bearer tokens: made once, shown once, kept as a hash. A token is `rh_<id>_<secret>`."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import hmac
import re
import secrets

from hub.errors import HubError, SettingsError
from hub.timescale.connection import Connection

SCOPES = ("read", "sync")
_FORM = re.compile(r"^rh_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})$")
_NOBODY = bytes(32)

LOOKUP = "SELECT name, scopes, secret, expires_at, revoked_at FROM api_tokens WHERE id = %s"


@dataclasses.dataclass(frozen=True)
class Token:
    """A valid token, without its secret."""

    id: str
    name: str
    scopes: frozenset[str]
    expires_at: dt.datetime | None = None
    created_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None


def parse(text: str) -> tuple[str, str] | None:
    """The id and the secret of a token's text, None if it is none."""
    found = _FORM.match(text)
    return (found["id"], found["secret"]) if found else None


def digest(secret: str) -> bytes:
    """What is kept of a secret. It has 256 random bits: nothing slower than SHA-256 is needed."""
    return hashlib.sha256(secret.encode()).digest()


Row = tuple[str, list[str], bytes, dt.datetime | None, dt.datetime | None]


def judge(identifier: str, secret: str, row: Row | None, now: dt.datetime) -> Token | None:
    """The token if `row`, which LOOKUP found, says that it is valid. Takes as long whatever is wrong."""
    name, scopes, stored, expires_at, revoked_at = row or ("", [], _NOBODY, None, None)
    genuine = hmac.compare_digest(bytes(stored), digest(secret))
    if row is None or not genuine or revoked_at is not None or (expires_at is not None and expires_at <= now):
        return None
    return Token(identifier, name, frozenset(scopes), expires_at)


def create(connection: Connection, name: str, scopes: set[str], *, days: int | None = None) -> str:
    """Make a token and return its text, which cannot be had again. Raises SettingsError for a wrong scope."""
    if not scopes or not scopes <= set(SCOPES):
        raise SettingsError(f"--scope must be one of {', '.join(SCOPES)}, not {', '.join(sorted(scopes)) or 'nothing'}")
    identifier, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO api_tokens (id, name, scopes, secret, expires_at) VALUES (%s, %s, %s, %s, now() + %s)",
        (identifier, name, sorted(scopes), digest(secret), dt.timedelta(days=days) if days else None),
    )
    return f"rh_{identifier}_{secret}"


def listed(connection: Connection) -> list[Token]:
    """Every token, the newest last."""
    rows = connection.execute(
        "SELECT id, name, scopes, expires_at, created_at, revoked_at FROM api_tokens ORDER BY created_at, id"
    )
    return [Token(row[0], row[1], frozenset(row[2]), *row[3:]) for row in rows]


def revoke(connection: Connection, identifier: str) -> str:
    """Make a token worthless within seconds; return its name. Raises HubError where there is none."""
    row = connection.execute(
        "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s RETURNING name", (identifier,)
    ).fetchone()
    if row is None:
        raise HubError(f"there is no token {identifier!r}; `hub proxy token list` shows those that exist")
    return str(row[0])
