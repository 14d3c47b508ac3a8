"""Small JSON files that notice any damage to themselves, and writes that are complete or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from hub.errors import HubError

T = TypeVar("T")
_SEAL = re.compile(rb'(?P<body>\{.*,\n "seal": ")(?P<seal>[0-9a-f]{64})"\n\}\n', re.DOTALL)


class DamagedError(HubError):
    """A file of a backup is not what was written."""


def seal(value: object) -> bytes:
    """`value` (a dataclass) as JSON whose last key is a SHA-256 of everything before it."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=1).removesuffix(b"\n}") + b',\n "seal": "'
    return body + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def unseal(data: bytes, kind: type[T], what: str) -> T:
    """The value that `seal` wrote. Raises DamagedError if one bit differs or the fields are not `kind`'s."""
    match = _SEAL.fullmatch(data)
    if match is None or hashlib.sha256(match["body"]).hexdigest().encode() != match["seal"]:
        raise DamagedError(f"{what} has been changed since it was written (its seal does not fit)")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{what} is sealed but not understood ({error}): was it written by a newer hub?") from None


def write(path: Path, data: bytes) -> None:
    """Put a file into place whole or not at all, durable when this returns."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder, all files and all folders below it durable."""
    for place, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(place))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
