"""Tell a person: a failure once, its end once, through every URL of NOTIFY_URLS (apprise)."""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg

from hub.backups.sealed import write
from hub.errors import HubError, SettingsError, UnavailableError, redact
from hub.settings import Settings
from hub.timescale.connection import Connection, connect

# apprise logs parts of URLs, and those hold tokens.
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
logging.getLogger("apprise").propagate = False


class Told(enum.StrEnum):
    """What `tell` did."""

    NOTHING = "nothing new"
    FAILURE = "failure told"
    RECOVERY = "recovery told"
    NOBODY = "nobody was told: NOTIFY_URLS is not set"


def tell(settings: Settings, topic: str, problem: str | None, *, title: str | None = None) -> Told:
    """Say that `topic` fails with `problem`, or, with None, that it is well.

    A failure is told once until it is over; its end is told once. What was told is remembered in the
    table `notify_state`, and in a file while there is no database to ask. Raises UnavailableError when it could not
    be told; then it is told next time, as it is where NOTIFY_URLS is set later on.
    """
    if not _urls(settings):
        return Told.NOBODY
    failing = problem is not None
    with _remembered(settings, topic, failing, redact(problem or "")) as (was_failing, earlier):
        if failing == was_failing:
            return Told.NOTHING
        if failing:
            send(settings, title or f"Reading Hub: {topic} failed", redact(problem or ""))
            return Told.FAILURE
        send(settings, title or f"Reading Hub: {topic} works again", f"It is over: {earlier}")
        return Told.RECOVERY


def send(settings: Settings, title: str, body: str) -> int:
    """Send to every URL, and return how many there are. Raises SettingsError, UnavailableError."""
    urls = _urls(settings)
    if not urls:
        return 0
    import apprise
    from apprise.manager_plugins import NotificationManager

    known = set(NotificationManager().schemas())  # type: ignore[no-untyped-call]

    refused, failed = [], []
    for number, url in enumerate(urls, start=1):
        # One at a time, so that the one that failed can be named without its URL, which holds secrets.
        one = apprise.Apprise()
        scheme = url.partition("://")[0].lower()
        named = f"number {number} ({scheme if scheme in known else 'of no scheme that apprise knows'})"
        if not one.add(url):
            refused.append(named)
        elif not one.notify(title=title, body=body):
            failed.append(named)
    if refused:
        raise SettingsError(f"NOTIFY_URLS: {', '.join(refused)} is no URL that apprise understands: correct it")
    if failed:
        raise UnavailableError(
            f"NOTIFY_URLS: {', '.join(failed)} did not take the message: check the address and the network"
        )
    return len(urls)


def _urls(settings: Settings) -> list[str]:
    given = settings.notify_urls.get_secret_value() if settings.notify_urls else ""
    return [url for url in re.split(r"[\s,]+", given) if url]


@contextlib.contextmanager
def _remembered(settings: Settings, topic: str, failing: bool, problem: str) -> Iterator[tuple[bool, str]]:
    """What was last told of `topic`; what is told now is kept only if the block ends well.

    The row is locked meanwhile, so that two processes that find the same failure tell it once.
    """
    beside = settings.hub_data_dir / "notify.json"
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(connect(settings))
            row = _lock_row(connection, topic)
        except HubError:
            connection = None
            row = (False, "")
        pending = _read(beside)
        was_failing = row[0] or topic in pending
        yield was_failing, row[1] or pending.get(topic, "")
        if connection is not None:
            if failing != row[0]:
                connection.execute(
                    "UPDATE notify_state SET failing = %s, problem = %s, since = now() WHERE topic = %s",
                    (failing, problem, topic),
                )
            changed = pending.pop(topic, None) is not None
        elif failing:
            changed = topic not in pending
            pending[topic] = problem
        else:
            changed = pending.pop(topic, None) is not None
        if changed:
            beside.parent.mkdir(parents=True, exist_ok=True)
            write(beside, json.dumps(pending).encode())


def _lock_row(connection: Connection, topic: str) -> tuple[bool, str]:
    try:
        connection.execute(
            "INSERT INTO notify_state (topic, failing) VALUES (%s, false) ON CONFLICT DO NOTHING",
            (topic,),
        )
        row = connection.execute(
            "SELECT failing, problem FROM notify_state WHERE topic = %s FOR UPDATE", (topic,)
        ).fetchone()
    except psycopg.Error as error:
        connection.close()
        raise HubError(f"notify_state cannot be used ({error})") from error
    assert row is not None
    return bool(row[0]), str(row[1])


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(topic): str(problem) for topic, problem in found.items()} if isinstance(found, dict) else {}
