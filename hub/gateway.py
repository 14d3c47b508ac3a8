"""Who comes in by the gateway: a file of names and hashed passwords that Caddy reads (compose/gateway/Caddyfile)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import bcrypt

from hub.errors import HubError, SettingsError

FILE = "users"
# Caddy computes one for each login that it has not seen: 60 ms of one core. The passwords are long.
_ROUNDS = 10
_SHORTEST, _LONGEST = 12, 72  # bcrypt looks at no more
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


def add(folder: Path, name: str, password: str | None = None) -> str:
    """Let somebody in, or give them a new password; returns it, which is written down nowhere. Raises HubError."""
    if not _NAME.fullmatch(name) or name == "nobody":
        raise HubError(
            f"{name!r} is no name for a user: lower-case letters, digits, '.', '_', '@' and '-', 64 at most."
        )
    password = password or secrets.token_urlsafe(18)
    size = len(password.encode())
    if not _SHORTEST <= size <= _LONGEST:
        raise HubError(
            f"The password has {size} bytes: {_SHORTEST} to {_LONGEST} are taken. Without one, hub makes one."
        )
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(_ROUNDS)).decode()
    with _users(folder) as users:
        users[name] = hashed
    return password


def remove(folder: Path, name: str) -> None:
    """Let them in no more. Raises HubError when nobody has that name."""
    with _users(folder) as users:
        if users.pop(name, None) is None:
            raise HubError(f"There is no user {name!r}: {', '.join(sorted(users)) or 'there is none at all'}.")


def names(folder: Path) -> list[str]:
    """Who is let in."""
    return sorted(_read(folder / FILE))


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split(" ", 1) for line in lines if " " in line)


@contextlib.contextmanager
def _users(folder: Path) -> Iterator[dict[str, str]]:
    """The users, to be changed in the block; what they are at its end replaces the file. One at a time."""
    path, beside = folder / FILE, folder / f".{FILE}.new"
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SettingsError(
            f"GATEWAY_DIR {folder} cannot be opened ({error.strerror}): the users of the gateway are there."
        ) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        users = _read(path)
        yield users
        if not users:  # Caddy takes no empty file
            path.unlink(missing_ok=True)
            return
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(f"{name} {hashed}\n" for name, hashed in sorted(users.items()))
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # Caddy is another user; the volume has no others
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError as error:
        raise HubError(
            f"{path} cannot be written ({error.strerror}): `make up` gives its folder to the hub's user."
        ) from None
    finally:
        os.close(directory)
