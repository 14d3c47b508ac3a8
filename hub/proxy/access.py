"""Who may do what: the Bearer token of a request, its scope and its rate."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hub.proxy import tokens
from hub.proxy.database import Database
from hub.proxy.limits import RateLimit
from hub.proxy.problems import Problem
from hub.proxy.tokens import Token

# A revoked token works for this long at most.
_REMEMBERED_SECONDS = 5.0
_REMEMBERED = 1_000
# Guesses a second from one address; the secret has 256 bits, this is for the database's sake.
_GUESSES = 5

_bearer = HTTPBearer(auto_error=False, description="A token of `hub proxy token create`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class Access:
    """Tells tokens apart, and remembers the valid ones for some seconds."""

    def __init__(self, database: Database, *, rate: float) -> None:
        self._database = database
        self._requests = RateLimit(rate, 2 * rate)
        self._guesses = RateLimit(_GUESSES, 4 * _GUESSES)
        self._known: dict[tuple[str, bytes], tuple[Token, float]] = {}

    async def admit(self, request: Request, credentials: HTTPAuthorizationCredentials | None, scope: str) -> Token:
        """The request's token. Raises Problem 401, 403, 429 or 503."""
        client = request.client.host if request.client else ""
        parsed = tokens.parse(credentials.credentials) if credentials else None
        if parsed is None:
            raise _nobody()
        token = await self._token(*parsed, client)
        if token is None:
            self._guesses.spend(client)
            raise _nobody()
        request.state.token = token.id
        self._requests.spend(token.id)
        if scope not in token.scopes:
            raise Problem(403, f"This token lacks the scope {scope}.")
        return token

    async def _token(self, identifier: str, secret: str, client: str) -> Token | None:
        now, wall = time.monotonic(), dt.datetime.now(dt.UTC)
        place = (identifier, tokens.digest(secret))
        token, until = self._known.get(place, (None, 0.0))
        if token and now < until and (token.expires_at is None or wall < token.expires_at):
            return token
        if self._guesses.exhausted(client):
            self._guesses.spend(client)
        async with self._database.read() as connection:
            found = await connection.execute(tokens.LOOKUP, (identifier,))
            token = tokens.judge(identifier, secret, await found.fetchone(), wall)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        if token:
            self._known[place] = (token, now + _REMEMBERED_SECONDS)
        return token


def _nobody() -> Problem:
    return Problem(401, "A valid token is needed: Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"})


def needs(scope: str) -> Callable[[Request, Credentials], Awaitable[Token]]:
    """A dependency: the token of the request, which must have this scope."""

    async def admitted(request: Request, credentials: Credentials) -> Token:
        access: Access = request.app.state.access
        return await access.admit(request, credentials, scope)

    return admitted
