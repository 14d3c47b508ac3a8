"""Copies elsewhere, through fsspec: uploads that resume, are read back, and are rotated by the same rules."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from hub.backups.age import decrypt, encrypt
from hub.backups.digests import digest
from hub.backups.dump import Progress, Report
from hub.backups.model import Backup, FileEntry, State
from hub.backups.retention import Candidate, Plan, Rules, plan
from hub.backups.sealed import DamagedError, seal, unseal, write
from hub.backups.store import DRILL, MANIFEST, NAME, PIN, VERIFIED, Store, explained
from hub.backups.verify import examine
from hub.errors import HubError, RefusedError, SettingsError, UnavailableError, redact
from hub.settings import Settings

INDEX, STATE = "index.json", "upload.json"
_READ = 4 * 2**20
_SUFFIX = ".age"
_SCRATCH = ".upload-"


@dataclasses.dataclass(frozen=True)
class RemoteIndex:
    """The last file of a copy to be written: what there is, as uploaded. Without it there is no copy."""

    name: str
    sequence: int
    created_at: dt.datetime
    uploaded_at: dt.datetime
    encrypted: bool
    pinned: bool
    files: tuple[FileEntry, ...]


@dataclasses.dataclass(frozen=True)
class UploadState:
    """Kept inside the local backup while an upload goes on: what is there already."""

    target: str
    manifest_sha256: str
    files: tuple[FileEntry, ...]


@dataclasses.dataclass(frozen=True)
class UploadReport:
    """What an upload did. `sent` of `files` files had to be sent; all were read back."""

    name: str
    files: int
    sent: int
    bytes: int
    seconds: float
    removed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """A folder on some file system."""

    fs: Any
    root: str
    digest: str

    def path(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))


def target_of(settings: Settings) -> Target:
    """The place that BACKUP_URL names. Raises SettingsError when it is not set or not understood."""
    if settings.backup_url is None:
        raise SettingsError("BACKUP_URL is not set: set it to s3://bucket/folder, file:///mnt/nas/hub or the like")
    url = settings.backup_url.get_secret_value()
    try:
        with _reached(ImportError, ValueError):
            options = {"use_listings_cache": False, **_credentials(settings, url)}
            fs, root = fsspec.core.url_to_fs(url, **options) if "://" in url else (None, "")
    except ImportError as error:
        raise SettingsError(
            f"BACKUP_URL needs a package that is not installed: {error}. `pip install reading-hub[s3]` for S3."
        ) from None
    except ValueError as error:
        raise SettingsError(f"BACKUP_URL is not understood: {redact(str(error))}") from None
    if fs is None:
        raise SettingsError("BACKUP_URL must begin with a scheme such as s3:// or file://")
    return Target(fs, root, hashlib.sha256(f"{url} {settings.backup_age_recipient}".encode()).hexdigest())


def _credentials(settings: Settings, url: str) -> dict[str, str]:
    """For S3 those of the settings: boto3 looks in the environment, where the stack has no secrets."""
    key, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    if not url.startswith(("s3://", "s3a://")) or key is None or secret is None:
        return {}
    return {"key": key.get_secret_value(), "secret": secret.get_secret_value()}


@contextlib.contextmanager
def _reached(*passed: type[Exception]) -> Iterator[None]:
    """Turn what a file system far away may raise, all but `passed`, into one error that is worth another try."""
    try:
        yield
    except HubError:
        raise
    except PermissionError as error:
        raise HubError(
            f"BACKUP_URL refused access ({redact(str(error))}): check the credentials and their rights"
        ) from error
    except Exception as error:  # each back end has its own errors, OSError is not the base of all
        if isinstance(error, passed):
            raise
        text = f"{type(error).__name__}: {redact(str(error))[:300]}"
        raise UnavailableError(f"BACKUP_URL cannot be used ({text}). What was sent is kept; try again.") from error


def upload(settings: Settings, name: str = "latest", *, report: Report = lambda progress: None) -> UploadReport:
    """Copy a verified backup to BACKUP_URL, read the copy back, then apply retention there.

    Broken off, it goes on with the file that was missing. Raises RefusedError for a backup that is not
    verified, UnavailableError when the other side fails.
    """
    began, store, target = time.monotonic(), Store(settings.backup_dir), target_of(settings)
    backup = store.find(name)
    if backup.state is not State.VERIFIED:
        raise RefusedError(
            f"backup {backup.name} is {backup.state}: only verified ones leave. Run `hub backup verify {backup.name}`."
        )
    with store.lock("an upload", kind=".upload"), store.reading(backup.name) as folder, _reached():
        for left in store.folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        known = _known(folder, backup, target)
        names = [*(entry.path for entry in backup.manifest.files), MANIFEST, VERIFIED]
        names += [DRILL] if (folder / DRILL).exists() else []
        done: list[FileEntry] = []
        sent = 0
        for path in names:
            report(Progress(f"uploading {path}", sum(entry.bytes for entry in done)))
            remote = path + (_SUFFIX if settings.backup_age_recipient else "")
            entry = known.get(remote)
            stable = path not in (VERIFIED, DRILL)
            if not (entry and stable and _size(target, backup.name, remote) == entry.bytes):
                entry = _send(settings, target, folder / path, backup.name, remote)
                sent += 1
            done.append(entry)
            with explained(folder):
                write(folder / STATE, seal(UploadState(target.digest, backup.manifest_sha256, tuple(done))))
        _read_back(target, backup.name, done, report)
        index = RemoteIndex(
            backup.name, backup.manifest.sequence, backup.manifest.created_at, dt.datetime.now(dt.UTC),
            settings.backup_age_recipient is not None, backup.pinned, tuple(done),
        )  # fmt: skip
        target.fs.pipe_file(target.path(backup.name, INDEX), seal(index))
        removed = prune_remote(settings, target)
    seconds = round(time.monotonic() - began, 3)
    return UploadReport(backup.name, len(done), sent, sum(entry.bytes for entry in done), seconds, removed)


def _known(folder: Path, backup: Backup, target: Target) -> dict[str, FileEntry]:
    try:
        state = unseal((folder / STATE).read_bytes(), UploadState, STATE)
    except (OSError, DamagedError):
        return {}
    if (state.target, state.manifest_sha256) != (target.digest, backup.manifest_sha256):
        return {}
    return {entry.path: entry for entry in state.files}


def _size(target: Target, name: str, path: str) -> int | None:
    try:
        return int(target.fs.info(target.path(name, path))["size"])
    except FileNotFoundError:
        return None


def _send(settings: Settings, target: Target, source: Path, name: str, remote: str) -> FileEntry:
    place = target.path(name, remote)
    target.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.backup_dir, prefix=_SCRATCH) as scratch:
        if settings.backup_age_recipient:
            sealed = Path(scratch) / "sealed"
            encrypt(source, sealed, settings.backup_age_recipient)
            source = sealed
        size, sha256 = digest(source)
        target.fs.put_file(str(source), place)
    return FileEntry(remote, size, sha256)


def _read_back(target: Target, name: str, files: list[FileEntry], report: Report) -> None:
    def look(entry: FileEntry) -> str:
        sha256 = hashlib.sha256()
        with target.fs.open(target.path(name, entry.path), "rb", cache_type="readahead", block_size=_READ) as file:
            while data := file.read(_READ):
                sha256.update(data)
        return "" if sha256.hexdigest() == entry.sha256 else entry.path

    report(Progress("reading the copy back"))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        wrong = [path for path in pool.map(look, files) if path]
    if wrong:
        for path in wrong:
            target.fs.rm_file(target.path(name, path))
        raise UnavailableError(
            f"the copy of {name} differs in {', '.join(wrong[:5])}; those were removed. Upload again."
        )


def remote_indexes(settings: Settings, target: Target | None = None) -> list[RemoteIndex]:
    """The complete copies at BACKUP_URL, by sequence. Raises SettingsError, UnavailableError."""
    target = target or target_of(settings)
    found = []
    with _reached():
        try:
            entries = target.fs.ls(target.root, detail=False)
        except FileNotFoundError:
            return []
        for entry in entries:
            name = str(entry).rstrip("/").rpartition("/")[2]
            if NAME.fullmatch(name):
                with contextlib.suppress(FileNotFoundError, DamagedError):
                    found.append(
                        unseal(target.fs.cat_file(target.path(name, INDEX)), RemoteIndex, f"{INDEX} of {name}")
                    )
    return sorted(found, key=lambda index: (index.sequence, index.name))


def plan_remote(settings: Settings, indexes: list[RemoteIndex]) -> Plan:
    """What retention keeps and removes there. A copy counts as pinned if it, or the local backup, is."""
    local, _ = Store(settings.backup_dir).backups()
    pins = {backup.name: backup.pinned for backup in local}
    candidates = [
        Candidate(index.name, index.sequence, index.created_at, State.VERIFIED, pins.get(index.name, index.pinned))
        for index in indexes
    ]
    return plan(candidates, Rules.of(settings))


def prune_remote(settings: Settings, target: Target) -> tuple[str, ...]:
    """Remove copies that retention does not keep: their index first, so that none is half there."""
    decided = plan_remote(settings, remote_indexes(settings, target))
    for name in decided.remove:
        target.fs.rm_file(target.path(name, INDEX))
        target.fs.rm(target.path(name), recursive=True)
    return decided.remove


def fetch(settings: Settings, name: str = "latest", *, report: Report = lambda progress: None) -> Backup:
    """Bring a copy from BACKUP_URL into BACKUP_DIR, decrypted and verified. Raises HubError."""
    target, store = target_of(settings), Store(settings.backup_dir)
    indexes = {index.name: index for index in remote_indexes(settings, target)}
    if not indexes:
        raise HubError("there is no complete copy of a backup at BACKUP_URL")
    index = indexes.get(name) if name != "latest" else list(indexes.values())[-1]
    if index is None:
        raise HubError(f"there is no complete copy of {name} at BACKUP_URL; there is {', '.join(indexes)}")
    if index.name in store.names():
        raise RefusedError(f"backup {index.name} is here already: {store.path(index.name)}")
    with store.lock("fetching"), explained(store.folder), store.partial(index.created_at) as (_, folder):
        with _reached():
            for entry in index.files:
                report(Progress(f"fetching {entry.path}"))
                _receive(settings, target, index, entry, folder)
        final = store.path(index.name)
        store.adopt(folder, index.name)
        with store.reading(index.name):
            result = examine(store.read(index.name), final)
        store.record(index.name, result)
    if not result.ok:
        raise HubError(
            f"the fetched copy of {index.name} is damaged: {'; '.join(result.problems[:5])}. Fetch another one."
        )
    return store.read(index.name)


def _receive(settings: Settings, target: Target, index: RemoteIndex, entry: FileEntry, folder: Path) -> None:
    relative = Path(entry.path.removesuffix(_SUFFIX) if index.encrypted else entry.path)
    if relative.is_absolute() or ".." in relative.parts or relative.name == PIN:
        raise HubError(f"the copy of {index.name} names a file outside of it: {entry.path}")
    place = folder / relative
    place.parent.mkdir(parents=True, exist_ok=True)
    received = place.with_name(place.name + ".received")
    with target.fs.open(target.path(index.name, entry.path), "rb") as far, received.open("wb") as near:
        shutil.copyfileobj(far, near, _READ)
    if digest(received) != (entry.bytes, entry.sha256):
        raise HubError(f"{entry.path} of the copy {index.name} has been changed there; fetch another one")
    if index.encrypted:
        decrypt(received, place, settings)
        received.unlink()
    else:
        received.rename(place)
