"""Before a database image changes: is there a verified backup that is young enough?"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from .command import run
from .config import Config
from .errors import CommandFailed, Refused

_TIMES = ("started_at", "created_at", "finished_at", "completed_at", "verified_at", "time")
_NAMES = ("name", "id")  # may hold a time
_AHEAD = 300.0  # seconds that the clock which dated a backup may be ahead of ours
_STAMP = re.compile(
    r"(?P<y>\d{4})-?(?P<mo>\d\d)-?(?P<d>\d\d)[T _](?P<h>\d\d)[:-]?(?P<mi>\d\d)[:-]?(?P<s>\d\d)(?:[.,]\d+)?"
    r"(?P<zone>[Zz]|(?P<sign>[+-])(?P<zh>\d\d):?(?P<zm>\d\d))?",
    re.ASCII,
)


def check(config: Config, services: Iterable[str], now: float | None = None) -> str:
    """The name of a verified backup young enough to replace `services`. Raises Refused if there is none.

    The configured command must exit 0 and print a JSON list of backups (or an object with the list under
    `backups`), each with `verified: true` (or `status: verified`) and a UTC time under one of the usual
    keys. Of several times the oldest counts: a backup that was verified again is as old as its data. One that has a
    time in the future, or one that no calendar has, does not count at all.
    """
    moment = time.time() if now is None else now
    who = ", ".join(sorted(services))
    if not config.backup_command:
        raise Refused("backup", f"the image of {who} changes and [database] backup_command is empty; set it")
    try:
        done = run(list(config.backup_command), timeout=config.backup_timeout, kind="backup")
        raw = done.json()
    except (CommandFailed, ValueError) as error:
        raise Refused("backup", f"the image of {who} changes, but the backups cannot be listed: {error}") from error
    if isinstance(raw, dict):
        raw = raw.get("backups")
    if not isinstance(raw, list):
        raise Refused("backup", f"the image of {who} changes, but the list of backups is no JSON list")
    newest, name, strange = 0.0, "", ""
    for item in raw:
        if not (isinstance(item, dict) and _verified(item)):
            continue
        called = str(item.get("name") or item.get("id") or "a backup")
        when = _when(item, moment + _AHEAD)
        if when is None:
            strange = f"; {called} is dated {_dated(item)}, which cannot be: set the clock right and make another"
        elif when > newest:
            newest, name = when, called
    age = moment - newest
    hours = config.backup_max_age / 3600
    if not newest:
        raise Refused(
            "backup", f"the image of {who} changes and there is no verified backup; run: make backup{strange}"
        )
    if age > config.backup_max_age:
        raise Refused(
            "backup",
            f"the image of {who} changes and the newest verified backup {name} is {age / 3600:.1f} h old, "
            f"more than {hours:g} h; run: make backup{strange}",
        )
    return name


def _verified(item: dict[str, Any]) -> bool:
    return item.get("verified") is True or str(item.get("status", "")).lower() == "verified"


def _when(item: dict[str, Any], latest: float) -> float | None:
    """The oldest time that a backup gives, in seconds since the epoch; 0 if it gives none.

    None if one of them is no time, or after `latest`.
    """
    texts = [match.group() for key in _NAMES if (match := _STAMP.search(str(item.get(key))))]
    found = [_seconds(value) for value in (*map(item.get, _TIMES), *texts) if value is not None]
    times = [seconds for seconds in found if seconds is not None and seconds <= latest]
    return min(times, default=0.0) if len(times) == len(found) else None


def _dated(item: dict[str, Any]) -> str:
    return ", ".join(f"{item[key]} ({key})" for key in (*_TIMES, *_NAMES) if item.get(key) is not None)


def _seconds(value: object) -> float | None:
    """Seconds since the epoch, or None for what is no time. A time without an offset is UTC."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 < value < 1e11 else None
    match = _STAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match.group(k)) for k in ("y", "mo", "d", "h", "mi", "s"))
    offset = timedelta(hours=int(match.group("zh") or 0), minutes=int(match.group("zm") or 0))
    try:
        zone = timezone(-offset if match.group("sign") == "-" else offset)
        return datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp()
    except (ValueError, OverflowError):
        return None
