"""Servers and data of the benchmarks."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import bson
import psycopg
from bson.objectid import ObjectId

from hub.embedded.postgres import EmbeddedPostgres
from hub.settings import Settings, load_settings
from hub.timescale.schema import upgrade

FIRST = dt.date(2025, 3, 1)


@contextlib.contextmanager
def server() -> Iterator[dict[str, Any]]:
    """Settings of the server that TEST_DATABASE_URL names, or of an embedded one as users have it."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        parts = urlsplit(url)
        yield {
            "db_host": parts.hostname,
            "db_port": parts.port or 5432,
            "db_user": unquote(parts.username or "postgres"),
            "db_password": unquote(parts.password or ""),
        }
        return
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder))
        postgres.start()
        try:
            environment = postgres.environment()
            yield {name.lower(): environment[name] for name in ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD")}
        finally:
            postgres.stop()


@contextlib.contextmanager
def database(**given: Any) -> Iterator[Settings]:
    """Settings for a new, upgraded database; it goes at the end."""
    with server() as place, tempfile.TemporaryDirectory() as folder:
        name = f"bench_{os.getpid()}"
        admin = {
            "host": place["db_host"], "port": place["db_port"], "user": place["db_user"],
            "password": place["db_password"], "dbname": "postgres", "autocommit": True,
        }  # fmt: skip
        with psycopg.connect(**admin) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            defaults = {"mongo_uri": "mongodb://127.0.0.1:1", "reading_time_field": "timestamp", "_env_file": None}
            data = {"hub_data_dir": folder, "backup_dir": f"{folder}/backups"}
            settings = load_settings(**(defaults | data | place | {"db_name": name} | given))
            upgrade(settings)
            yield settings
        finally:
            with psycopg.connect(**admin) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def documents(count: int, days: int, first: dt.date = FIRST) -> list[bytes]:
    """Encoded reading events of about 280 bytes, evenly over the days, in the order of time."""
    start = dt.datetime.combine(first, dt.time(), dt.UTC)
    step = dt.timedelta(days=days) / count
    return [
        bson.encode(
            {
                "_id": ObjectId(),
                "timestamp": start + step * number,
                "source": f"source-{number % 20}",
                "event_type": "page_read",
                "payload": {
                    "value": number * 1.25, "title": f"The book number {number}", "page": number % 700,
                    "device": "kobo", "tags": ["a", "b"],
                },
                "meta": {"host": "h1", "schema": 3, "app": "koreader-2026.03"},
                "status": "done",
            }
        )
        for number in range(count)
    ]  # fmt: skip
