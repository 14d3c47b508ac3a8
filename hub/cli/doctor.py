"""`hub doctor` on a terminal."""

from __future__ import annotations

def run_doctor(as_json: bool) -> int:
    return 0
