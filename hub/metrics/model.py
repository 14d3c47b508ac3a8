"""A sample of one kind of metric, as it travels from the host through the spool to the database."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from typing import Any

from hub.errors import SettingsError

_INTERVAL = re.compile(r"^(?P<count>\d{1,5})(?P<unit>s|m|h|)$")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class Sample:
    """A row of `system_metrics`."""

    time: dt.datetime
    host: str
    os: str
    metric_type: str
    payload: dict[str, Any]

    def to_json(self) -> str:
        """The sample as one line of JSON that PostgreSQL's jsonb can hold."""
        fields = [self.time.isoformat(), self.host, self.os, self.metric_type, self.payload]
        # A mount's name can be any bytes, which Python holds as lone surrogates and jsonb cannot hold.
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode("utf-8")

    @classmethod
    def from_json(cls, text: str) -> Sample:
        time, host, system, metric_type, payload = json.loads(text)
        return cls(dt.datetime.fromisoformat(time), host, system, metric_type, payload)


def parse_interval(text: str) -> int:
    """Seconds of an interval such as 60s, 5m or 90. Raises SettingsError."""
    found = _INTERVAL.match(text.strip())
    seconds = int(found["count"]) * _SECONDS[found["unit"]] if found else 0
    if not 1 <= seconds <= 3600:
        raise SettingsError(f"--interval must be 1s to 1h, such as 60s or 5m, not {text!r}")
    return seconds


def aligned(now: float, interval: float) -> float:
    """The last multiple of `interval` at or before `now`, both in seconds since the epoch."""
    return now - now % interval
