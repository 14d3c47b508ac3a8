"""Put a volume back: unpacked beside, then renamed into place; what was there is kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import shutil
from pathlib import Path

from hub.backups.dump import Progress, Report
from hub.backups.model import Backup
from hub.backups.sealed import sync_folder
from hub.backups.store import explained, stamp
from hub.backups.volumes import unpack
from hub.errors import HubError, RefusedError


@dataclasses.dataclass(frozen=True)
class VolumeBack:
    """A volume that was put back, and where the earlier content is; None where there was none."""

    name: str
    place: Path
    entries: int
    kept: Path | None


def put_back(backup: Backup, folder: Path, name: str, place: Path, report: Report) -> VolumeBack:
    """Unpack volume `name` to `place`. Raises RefusedError for a mount point that is not empty.

    A mount point cannot be renamed, so an empty one is filled directly.
    """
    (volume,) = (volume for volume in backup.manifest.volumes if volume.name == name)
    place = place.absolute()
    report(Progress(f"putting back {name}"))
    with explained(place):
        if place.exists() and not any(place.iterdir()):
            return VolumeBack(name, place, _checked(folder / volume.file, place, volume.entries), None)
        if os.path.ismount(place):
            raise RefusedError(
                f"{place} is a mount point with files in it: empty it, or restore {name} to another folder"
            )
        beside = place.with_name(f".{place.name}.restoring")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True, mode=0o700)
        entries = _checked(folder / volume.file, beside, volume.entries)
        kept = None
        if place.exists():
            kept = place.with_name(f"{place.name}.before-{stamp(dt.datetime.now(dt.UTC))}")
            os.rename(place, kept)
        os.rename(beside, place)
        sync_folder(place.parent)
    return VolumeBack(name, place, entries, kept)


def _checked(archive: Path, target: Path, want: int) -> int:
    entries = unpack(archive, target)
    if entries != want:
        raise HubError(f"{archive.name} gave {entries:,} entries in place of {want:,}: use another backup")
    return entries
