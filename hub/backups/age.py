"""Encryption of copies before they leave, with age (the package pyrage, which is optional)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hub.errors import HubError, SettingsError
from hub.settings import Settings


def encrypt(source: Path, target: Path, recipient: str) -> None:
    """Encrypt a file with age. Raises SettingsError for a recipient that is none."""
    pyrage = _pyrage()
    try:
        to = pyrage.x25519.Recipient.from_str(recipient)
    except Exception as error:  # pyrage has no common base class
        raise SettingsError("BACKUP_AGE_RECIPIENT is no age recipient (age1…): `age-keygen` makes one") from error
    with source.open("rb") as plain, target.open("wb") as sealed:
        pyrage.encrypt_io(plain, sealed, [to])


def decrypt(source: Path, target: Path, settings: Settings) -> None:
    """Decrypt a file with the identity in BACKUP_AGE_IDENTITY. Raises SettingsError, HubError."""
    pyrage = _pyrage()
    if settings.backup_age_identity is None:
        raise SettingsError("the copy is encrypted: set BACKUP_AGE_IDENTITY to the file with the age identity")
    try:
        lines = settings.backup_age_identity.read_text().splitlines()
        identities = [pyrage.x25519.Identity.from_str(line) for line in lines if line.startswith("AGE-SECRET-KEY-")]
        with source.open("rb") as sealed, target.open("wb") as plain:
            pyrage.decrypt_io(sealed, plain, identities)
    except Exception as error:  # pyrage has no common base class
        raise HubError(
            f"BACKUP_AGE_IDENTITY {settings.backup_age_identity} does not open the copy:"
            " it needs the identity of its recipient"
        ) from error


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise SettingsError("encryption needs the package pyrage: `pip install reading-hub[age]`") from None
    return pyrage
