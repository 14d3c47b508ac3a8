"""What every command needs: servers to talk to, settings, and an environment for child processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console

import hub
from hub.embedded.session import configured, servers
from hub.settings import Settings, load_settings

console = Console(highlight=False)


@dataclasses.dataclass(frozen=True)
class Session:
    """The settings in force, and which of them point at embedded servers."""

    settings: Settings
    embedded: frozenset[str]

    @property
    def sample_source(self) -> bool:
        """Whether the MongoDB server is ours to fill with samples."""
        return "MONGO_URI" in self.embedded

    @property
    def own_source(self) -> bool:
        """Whether it is that, or the one that belongs to the stack."""
        from hub.mongo import is_at  # here: the collector of host metrics shall not hold a driver of MongoDB

        return self.sample_source or is_at(self.settings.mongo_uri.get_secret_value(), self.settings.mongo_own)


PROJECT = Path(hub.__file__).resolve().parent.parent
# Dagster's commands put the .env of their folder on top of the environment, which would point embedded servers'
# children at the stack's passwords. In this folder of the project there is none.
DAGSTER_FOLDER = PROJECT / "pipelines"


@contextlib.contextmanager
def session() -> Iterator[Session]:
    """Servers for as long as the block lasts (embedded ones where none are configured), and the settings.

    Inside, `os.environ` is what a child process needs, Dagster's included. SIGTERM, and a terminal that is closed,
    end the block like Ctrl-C.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, interrupt)
    # A shell starts background jobs with SIGINT ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        given_settings()  # what is wrong is told before any server starts
        with servers() as embedded:
            os.environ.update(embedded)
            settings = load_settings()
            os.environ.update(settings.environment())
            os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            os.environ["VIRTUAL_ENV"] = sys.prefix  # dg compares it with the project's environment
            _dagster_home(settings)
            yield Session(settings, frozenset(embedded))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def given_settings() -> Settings:
    """The settings as the user gave them, checked; nothing is started.

    Placeholders stand for what embedded servers would add. Raises SettingsError.
    """
    given = configured()
    pending: dict[str, str] = {} if "MONGO_URI" in given else {"mongo_uri": "mongodb://embedded"}
    if "DB_HOST" not in given:
        pending |= {"db_host": "embedded", "db_password": "embedded"}
    return load_settings(**pending)


def _dagster_home(settings: Settings) -> None:
    """Dagster wants a folder of its own with dagster.yaml in it; ours is below the data folder."""
    if os.environ.get("DAGSTER_HOME"):
        return
    home = settings.hub_data_dir.absolute() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    configuration = PROJECT / "dagster.yaml"
    if configuration.exists():
        shutil.copyfile(configuration, home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
