"""How long a whole backup takes beside the bare `pg_dump -Fd -j2` of the same database and one read of its files."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hub.backups import tools
from hub.backups.digests import digest
from hub.backups.run import Wanted, take
from hub.backups.verify import verify
from hub.embedded.postgres import EmbeddedPostgres
from hub.settings import Settings, load_settings
from hub.timescale.schema import upgrade
from tests.support.backups import count, fill

ROWS = 400_000
ROUNDS = 5
LIMIT = 1.15


def run() -> Iterator[dict[str, object]]:
    """One line for the backup, one for its verification. Interleaved rounds, medians; seconds and MiB."""
    with tempfile.TemporaryDirectory() as place:
        server = EmbeddedPostgres(Path(place) / "server", settings={"max_wal_size": "4GB"})
        server.start()
        try:
            given = {name.lower(): value for name, value in server.environment().items()}
            settings = load_settings(
                _env_file=None, mongo_uri="mongodb://127.0.0.1:1", backup_dir=Path(place) / "backups", **given
            ).model_copy(update={"dagster_db_name": given["db_name"]})
            upgrade(settings)
            fill(settings, ROWS, wide=160)
            yield from _measure(settings, Path(place))
        finally:
            server.stop()


def _measure(settings: Settings, place: Path) -> Iterator[dict[str, object]]:
    bare: list[float] = []
    whole: list[float] = []
    checked: list[float] = []
    size = 0
    for number in range(ROUNDS):
        # By turns, so that a machine that is busy for a while is busy for both.
        for which in ("bare", "whole") if number % 2 else ("whole", "bare"):
            if which == "bare":
                bare.append(_bare(settings, place / "bare"))
            else:
                began = time.perf_counter()
                backup = take(settings, Wanted())
                whole.append(time.perf_counter() - began)
                size = backup.manifest.bytes
                checked.append(verify(settings, backup.name).seconds)
    ratio = statistics.median(whole) / statistics.median(bare)
    yield {
        "what": "backup", "rows": count(settings), "mib": round(size / 2**20, 1),
        "bare_seconds": round(statistics.median(bare), 3), "whole_seconds": round(statistics.median(whole), 3),
        "ratio": round(ratio, 3), "limit": LIMIT, "ok": ratio <= LIMIT,
    }  # fmt: skip
    yield {"what": "backup verify", "mib": round(size / 2**20, 1), "seconds": round(statistics.median(checked), 3)}


def _bare(settings: Settings, target: Path) -> float:
    pg_dump = tools.find("pg_dump", at_least=18, because="the server is version 18")
    shutil.rmtree(target, ignore_errors=True)
    compress = ["--compress=zstd"] if tools.codec(pg_dump) == "zstd" else []
    began = time.perf_counter()
    subprocess.run(
        [pg_dump.path, "-Fd", "-j2", *compress, f"--file={target}", f"--dbname={settings.db_name}"],
        check=True, env=tools.environment(settings),
    )  # fmt: skip
    for path in target.iterdir():
        digest(path)
    return time.perf_counter() - began
