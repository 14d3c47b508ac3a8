"""The long tests of backups: `python -m tests.soak_backups`. 200 kills, 1,000 flipped bits, ten minutes."""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from hub.backups.run import Wanted
from hub.backups.store import Store
from hub.embedded.postgres import EmbeddedPostgres
from hub.settings import Settings, load_settings
from hub.timescale.schema import upgrade
from tests.faults.test_backup_damage import flips, trusted
from tests.faults.test_backup_interruptions import TAKE, kill_after
from tests.support.backups import fill, nothing_partial, verified

_KEEP = {"backup_keep_last": 3, "backup_keep_daily": 0, "backup_keep_weekly": 0, "backup_keep_monthly": 0,
         "backup_keep_yearly": 0}  # fmt: skip


def main() -> None:
    """Kill, flip, count; raises AssertionError at the first thing that is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        server = EmbeddedPostgres(Path(place) / "server", settings={"fsync": "off"})
        server.start()
        try:
            given = {name.lower(): value for name, value in server.environment().items()}
            settings = load_settings(
                _env_file=None, mongo_uri="mongodb://127.0.0.1:1", backup_dir=Path(place) / "backups",
                hub_data_dir=Path(place) / "hub", **given,
            ).model_copy(update=_KEEP)  # fmt: skip
            upgrade(settings)
            fill(settings, 2000)
            settings.hub_data_dir.mkdir()
            (settings.hub_data_dir / "data").write_bytes(random.randbytes(3_000_000))
            kill(settings, asked.kills)
            flip(settings, asked.flips)
        finally:
            server.stop()


def kill(settings: Settings, number: int) -> None:
    """kill -9 at random moments; after each, whatever has a backup's name reads back whole."""
    verified(settings)
    for done in range(1, number + 1):
        kill_after(settings, TAKE, random.uniform(0, 1.5))
        nothing_partial(settings)
        if done % 20 == 0:
            print(f"{done} kills, {len(Store(settings.backup_dir).names())} backups, all whole", flush=True)
    verified(settings)  # the lock is free, and the next one succeeds


def flip(settings: Settings, number: int) -> None:
    """Flipped bits, one at a time; every one is found."""
    backup = verified(settings, Wanted(True, (settings.hub_data_dir,)))
    for done, turn in enumerate(flips(settings, backup.name, number), start=1):
        turn()
        assert not trusted(settings, backup.name), f"flip {done} was not found"
        turn()
        if done % 100 == 0:
            print(f"{done} flips, all found", flush=True)
    assert trusted(settings, backup.name)


if __name__ == "__main__":
    main()
