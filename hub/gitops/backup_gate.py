"""Before a database image changes: is there a verified backup that is young enough?"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterable
from typing import Any

from .command import run
from .config import Config
from .errors import CommandFailed, Refused

_TIME_KEYS = ("finished_at", "completed_at", "verified_at", "created_at", "started_at", "time", "name", "id")
_STAMP = re.compile(
    r"(?P<y>\d{4})-?(?P<mo>\d\d)-?(?P<d>\d\d)[T _](?P<h>\d\d)[:-]?(?P<mi>\d\d)[:-]?(?P<s>\d\d)(?:[.,]\d+)?"
    r"(?P<zone>Z|[+-]\d\d:?\d\d)?"
)


def check(config: Config, services: Iterable[str], now: float | None = None) -> str:
    """The name of a verified backup young enough to replace `services`. Raises Refused if there is none.

    The configured command must exit 0 and print a JSON list of backups (or an object with the list under
    `backups`), each with `verified: true` (or `status: verified`) and a UTC time under one of the usual
    keys.
    """
    who = ", ".join(sorted(services))
    if not config.backup_command:
        raise Refused("backup", f"the image of {who} changes and [database] backup_command is empty; set it")
    try:
        done = run(list(config.backup_command), timeout=config.backup_timeout, kind="backup")
        raw = json.loads(done.text)
    except (CommandFailed, ValueError) as error:
        raise Refused("backup", f"the image of {who} changes, but the backups cannot be listed: {error}") from error
    if isinstance(raw, dict):
        raw = raw.get("backups")
    if not isinstance(raw, list):
        raise Refused("backup", f"the image of {who} changes, but the list of backups is no JSON list")
    newest, name = 0.0, ""
    for item in raw:
        if isinstance(item, dict) and _verified(item):
            when = _when(item)
            if when > newest:
                newest, name = when, str(item.get("name") or item.get("id") or "a backup")
    age = (time.time() if now is None else now) - newest
    hours = config.backup_max_age / 3600
    if not newest:
        raise Refused("backup", f"the image of {who} changes and there is no verified backup; run: make backup")
    if age > config.backup_max_age:
        raise Refused(
            "backup",
            f"the image of {who} changes and the newest verified backup {name} is {age / 3600:.1f} h old, "
            f"more than {hours:g} h; run: make backup",
        )
    return name


def _verified(item: dict[str, Any]) -> bool:
    return item.get("verified") is True or str(item.get("status", "")).lower() == "verified"


def _when(item: dict[str, Any]) -> float:
    """Seconds since the epoch, or 0 if the item names no time. A time without an offset is UTC."""
    for key in _TIME_KEYS:
        value = item.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        match = _STAMP.search(value) if isinstance(value, str) else None
        if match:
            parts = tuple(int(match.group(k)) for k in ("y", "mo", "d", "h", "mi", "s"))
            zone, offset = match.group("zone"), 0
            if zone and zone != "Z":
                digits = zone[1:].replace(":", "")
                offset = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)
            return float(calendar.timegm((*parts, 0, 0, 0)) - offset)
    return 0.0
