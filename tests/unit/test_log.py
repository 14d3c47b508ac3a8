"""hub/log.py: every line is one JSON object without secrets, and a terminal gets readable ones."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.log import LINE_BYTES, JsonLines, TextLines, level_name

ROOT = Path(__file__).resolve().parents[2]


def record(message: str, *arguments: object, level: int = logging.INFO, error: BaseException | None = None,
           **fields: Any) -> logging.LogRecord:  # fmt: skip
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("hub.x", level, "", 1, message, arguments, exc_info)
    made.__dict__["fields"] = fields
    return made


def line(*arguments: Any, **given: Any) -> dict[str, Any]:
    text = JsonLines().format(record(*arguments, **given))
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def raised(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_a_line_has_time_level_logger_message_and_the_fields() -> None:
    made = record("%s rows", 3, run_id="r-1", status=503, ms=1.5, path=None)
    made.created = 1_767_225_600.25
    assert json.loads(JsonLines().format(made)) == {
        "ts": "2026-01-01T00:00:00.250+00:00", "level": "info", "logger": "hub.x", "msg": "3 rows",
        "run_id": "r-1", "status": 503, "ms": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "name"),
    [(5, "debug"), (10, "debug"), (20, "info"), (25, "info"), (30, "warning"), (40, "error"), (50, "critical")],
)
def test_every_level_has_one_of_five_names(number: int, name: str) -> None:
    assert level_name(number) == name


def test_a_traceback_is_one_field() -> None:
    found = line("it broke", level=logging.ERROR, error=raised("of course"))
    assert found["msg"] == "it broke"
    assert found["exc"].startswith("Traceback (most recent call last):\n")
    assert found["exc"].endswith("\nValueError: of course")


def test_no_secret_in_message_field_traceback_or_text() -> None:
    made = record(
        "password=hunter2 for %s", "mongodb://me:hunter2@db/x", error=raised("postgresql://me:hunter2@db/hub"),
        address="https://me:hunter2@example.net", nested={"password": "hunter2"},
    )  # fmt: skip
    for formatter in (JsonLines(), TextLines()):
        text = formatter.format(made)
        assert "hunter2" not in text
        assert "example.net" in text


def test_a_long_line_is_cut_where_it_is_longest_and_stays_json() -> None:
    short = line("fine", error=raised("é" * 40_000 + " the end"), run_id="r-1")
    assert short["msg"] == "fine"
    assert short["run_id"] == "r-1"
    assert short["exc"].startswith("[cut] ")
    assert short["exc"].endswith(" the end")
    text = JsonLines().format(record("beginning " + "\x01" * 40_000, field="y" * 30_000))
    assert len(text.encode()) <= LINE_BYTES
    found = json.loads(text)
    assert found["msg"].startswith("beginning ")
    assert found["msg"].endswith(" [cut]")
    assert found["field"].endswith("y [cut]")


def test_what_no_encoding_has_does_not_break_a_line() -> None:
    text = JsonLines().format(record("half a pair: \ud800"))
    assert json.loads(text.encode().decode())["msg"] == "half a pair: \ud800"


def test_text_is_for_people() -> None:
    made = record("%s rows", 3, level=logging.WARNING, status=503)
    assert TextLines().format(made)[8:] == " WARNING  hub.x: 3 rows status=503"


# --- A process --------------------------------------------------------------------------------------------------

PROGRAM = """
import logging, sys, threading, warnings
from hub.log import configure
configure(sys.stdout)
logging.getLogger("hub.a").debug("quiet")
logging.getLogger("hub.a").info("hello")
warnings.warn("old ways")
own = logging.getLogger("own"); own.addHandler(logging.NullHandler()); own.error("not lost")
spoken = logging.getLogger("spoken"); spoken.addHandler(logging.StreamHandler(sys.stderr)); spoken.error("said already")
thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
raise RuntimeError("the end")
"""


def run(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_all_that_a_process_says_are_lines_of_json(tmp_path: Path) -> None:
    done = run(tmp_path)
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert [(one["level"], one["logger"], one["msg"].splitlines()[0]) for one in lines] == [
        ("info", "hub.a", "hello"),
        ("warning", "py.warnings", "<string>:7: UserWarning: old ways"),
        ("error", "own", "not lost"),
        ("critical", "hub", "ZeroDivisionError: division by zero"),
        ("critical", "hub", "RuntimeError: the end"),
    ]
    assert all("Traceback" in one["exc"] for one in lines[-2:])
    assert done.returncode == 1
    assert done.stderr == "said already\n"


def test_the_level_is_a_setting(tmp_path: Path) -> None:
    quiet, loud = run(tmp_path, HUB_LOG_LEVEL="error"), run(tmp_path, HUB_LOG_LEVEL="debug")
    assert [json.loads(text)["logger"] for text in quiet.stdout.splitlines()] == ["own", "hub", "hub"]
    assert json.loads(loud.stdout.splitlines()[0])["msg"] == "quiet"


@pytest.mark.parametrize("name", ["HUB_LOG_FORMAT", "HUB_LOG_LEVEL"])
def test_a_malformed_setting_is_named(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, **{name: "loud"})
    assert f"SettingsError: {name} must be " in done.stderr


@pytest.mark.parametrize(("chosen", "readable"), [("auto", True), ("text", True), ("json", False)])
def test_a_terminal_gets_readable_lines_unless_told_otherwise(tmp_path: Path, chosen: str, readable: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HUB_LOG_FORMAT": chosen}
    program = "import logging, sys; from hub.log import configure; configure(sys.stdout); logging.info('hello')"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=theirs, check=True)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert text.startswith("{") is not readable
    assert "hello" in text
