"""The stack's secrets as files, one for each: what containers find in /run/secrets.

`.env` is where people write them; compose.yaml says under `x-secrets` which there are, and Compose puts the values in, so that
quotes, defaults and a missing one are its business:

    docker compose … config --format json | python -m hub.secret_files FOLDER

`make up` does this in a container, the GitOps agent calls `wanted`, `changed` and `write`. Only the standard library, for Python
3.9 and newer: the agent carries this file. The folder is for its owner only; the files are for everybody, since a service
reads its own as whatever user it is, and sees no others.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOUNTED = "/run/secrets"
STAMP = ".stamp"
"""The file beside them that changes when one of them does; services carry its content as a label."""
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def read(folder: str | None = None) -> dict[str, str]:
    """The secrets of a folder (/run/secrets) by name, without white space around them; empty ones do not count."""
    found: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for path in Path(folder or MOUNTED).iterdir():
            if _NAME.fullmatch(path.name) and path.is_file() and (text := path.read_text(encoding="utf-8").strip()):
                found[path.name] = text
    return found


class SecretFilesError(Exception):
    """The folder cannot hold them, or the model does not say what they are; the text says what to do."""


def wanted(model: dict[str, Any]) -> dict[str, str]:
    """The secrets by name in what `docker compose config --format json` printed. Raises SecretFilesError.

    One that is not set is there with an empty value: its file has to exist for Compose.
    """
    values = model.get("x-secrets", {})
    if not isinstance(values, dict) or not all(isinstance(value, (str, type(None))) for value in values.values()):
        raise SecretFilesError("x-secrets of the Compose file must hold a text for each name: correct it there.")
    if refused := [name for name in values if not _NAME.fullmatch(name)]:
        raise SecretFilesError(f"x-secrets holds {refused[0]!r}: a name has capital letters, digits and '_' only.")
    # Compose writes a dollar sign twice, for its output to be a Compose file again.
    return {name: (value or "").replace("$$", "$") for name, value in values.items()}


def changed(folder: Path, values: dict[str, str]) -> list[str]:
    """The names of those that `write` would write or remove. Writes nothing; a folder that is not there has none."""
    if not os.path.lexists(folder):
        return sorted(values)
    with _opened(folder) as directory:
        return sorted(_changed(directory, values))


def write(folder: Path, values: dict[str, str]) -> list[str]:
    """Make the folder hold these secrets and no others; returns the names of those that changed.

    Each file is replaced whole, so that a running container keeps what it has. Raises SecretFilesError, OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(folder) as directory:
        if os.stat(directory).st_mode & 0o077:
            os.fchmod(directory, 0o700)
        names = _changed(directory, values)
        for name in names - values.keys():  # first: a half-written one of a killed run is among them
            os.unlink(name, dir_fd=directory)
        for name in names & values.keys():
            _replace(directory, name, values[name])
        if names or _read(directory, STAMP) is None:
            _replace(directory, STAMP, secrets.token_hex(6))
        os.fsync(directory)
    return sorted(names)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder itself: a symlink in its place could lead whoever writes, perhaps root, elsewhere."""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:
        raise SecretFilesError(f"{folder} is no folder, or a symlink: move it away.") from None
    try:
        yield directory
    finally:
        os.close(directory)


def _changed(directory: int, values: dict[str, str]) -> set[str]:
    stray = {name for name in os.listdir(directory) if name not in values and _NAME.fullmatch(name.partition(".")[0])}
    return stray | {name for name, value in values.items() if _read(directory, name) != value}


def _read(directory: int, name: str) -> str | None:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return None
    with open(handle, encoding="utf-8", errors="replace") as file:
        return file.read()


def _replace(directory: int, name: str, value: str) -> None:
    beside = f"{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=directory)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400, dir_fd=directory)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(value)
        file.flush()
        os.fchmod(handle, 0o444)
        owner = os.stat(directory)
        if owner.st_uid != os.geteuid():  # root, for the owner of the folder
            os.fchown(handle, owner.st_uid, owner.st_gid)
        os.fsync(handle)
    os.rename(beside, name, src_dir_fd=directory, dst_dir_fd=directory)


def main(arguments: list[str]) -> int:
    """Write the secrets of the model on standard input to the folder that the only argument names."""
    if len(arguments) != 1:
        print("usage: docker compose … config --format json | python -m hub.secret_files FOLDER", file=sys.stderr)
        return 2
    try:
        names = write(Path(arguments[0]), wanted(json.load(sys.stdin)))
    except ValueError:
        print("Standard input is no JSON: give it what `docker compose config --format json` prints.", file=sys.stderr)
        return 2
    except (SecretFilesError, OSError) as error:
        print(f"The secrets cannot be written: {error}", file=sys.stderr)
        return 1
    print(f"Secrets written: {', '.join(names)}" if names else "The secrets are those of .env.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
