"""Is this service well? `python -m hub.healthcheck TARGET`, for containers; cheap enough to run every ten seconds.

TARGET is one of
  http://HOST:PORT/PATH         answers with a status below 400
  tcp://HOST:PORT               accepts a connection
  unix:///PATH                  accepts a connection
  file:///GLOB?seconds=N        a matching file was written in the last N seconds
  dagster-daemon:?seconds=N     Dagster's daemon left a heartbeat in DAGSTER_DB_NAME in the last N seconds
"""

from __future__ import annotations

import glob
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import parse_qs, unquote, urlsplit

from hub import secret_files

_SECONDS = 5.0


def problem(target: str) -> str | None:
    """What is wrong with the target, None if it is well. Raises ValueError if it is not of a known form."""
    parts = urlsplit(target)
    if parts.scheme == "http" and parts.hostname:
        return _http(target)
    if parts.scheme == "tcp" and parts.hostname and parts.port:
        return _tcp(parts.hostname, parts.port)
    if parts.scheme == "unix" and parts.path:
        return _unix(unquote(parts.path))
    if parts.scheme == "file" and parts.path and (seconds := parse_qs(parts.query).get("seconds")):
        return _fresh(unquote(parts.path), float(seconds[0]))
    if parts.scheme == "dagster-daemon" and (seconds := parse_qs(parts.query).get("seconds")):
        return _heartbeat(float(seconds[0]))
    raise ValueError(f"{target!r} is not a TARGET: {__doc__}")


def _http(url: str) -> str | None:
    # No proxy of the environment may come between.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS):
            return None
    except (OSError, urllib.error.URLError) as error:
        return f"{url}: {error}"


def _tcp(host: str, port: int) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=_SECONDS):
            return None
    except OSError as error:
        return f"{host}:{port}: {error}"


def _unix(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_SECONDS)
        try:
            client.connect(path)
        except OSError as error:
            return f"{path}: {error}"
    return None


def _fresh(pattern: str, seconds: float) -> str | None:
    times = [os.stat(path).st_mtime for path in glob.glob(pattern)]
    if not times:
        return f"{pattern}: no such file"
    age = time.time() - max(times)
    return None if age <= seconds else f"{pattern}: last written {age:.0f} s ago, {seconds:.0f} s are allowed"


def _heartbeat(seconds: float) -> str | None:
    """Dagster's own `liveness-check` asks the same, but loads all of Dagster first: 3 s of CPU each time.

    The newest heartbeat will do: the daemon ends itself when one of its threads is stuck or dead.
    """
    import psycopg  # only here, so that the other targets need nothing but the standard library

    environment = {**secret_files.read(os.environ.get("HUB_SECRETS_DIR")), **os.environ}
    try:
        with psycopg.connect(
            host=environment["DB_HOST"], port=environment.get("DB_PORT", "5432"),
            dbname=environment["DAGSTER_DB_NAME"], user=environment["DAGSTER_DB_USER"],
            password=environment["DAGSTER_DB_PASSWORD"], connect_timeout=int(_SECONDS),
        ) as connection:  # fmt: skip
            row = connection.execute(
                "SELECT extract(epoch FROM (now() AT TIME ZONE 'UTC') - max(timestamp)) FROM daemon_heartbeats"
            ).fetchone()
    except KeyError as missing:
        return f"{missing.args[0]} is not set"
    except psycopg.Error as error:
        return f"the daemon's heartbeat cannot be read: {error}"
    age = row[0] if row else None
    if age is None:
        return "the daemon has left no heartbeat yet"
    return None if age <= seconds else f"the daemon's last heartbeat is {age:.0f} s old, {seconds:.0f} s are allowed"


def main(arguments: list[str]) -> int:
    """Exit code 0 if well, 1 if not, 2 for a wrong TARGET; says why on standard error."""
    try:
        found = problem(arguments[0]) if len(arguments) == 1 else "name one TARGET"
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if found:
        print(found, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
