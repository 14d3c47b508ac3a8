"""A run's sign of life: a lock in Dagster's database for as long as its process lives (hub/instance/alive.py)."""

from __future__ import annotations

import select
import threading

from dagster_postgres.utils import create_pg_engine
from sqlalchemy import Connection, Engine, NullPool
from sqlalchemy.exc import DBAPIError

from hub.instance.alive import HOLD

_SECOND = 1.0
# Where another machine has the database, a server that hears nothing of a run for 30 seconds gives its session up.
_KEEPALIVES = ("tcp_keepalives_idle = 15", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")


class SignOfLife:
    """Holds the lock of one run, over restarts of the database too, until `end` or until this process is gone."""

    def __init__(self, postgres_url: str, run_id: str) -> None:
        self._engine = _engine(postgres_url, run_id)
        self._run_id = run_id
        self._over, self._held = threading.Event(), threading.Event()
        threading.Thread(target=self._hold, name=f"sign of life of {run_id}", daemon=True).start()
        self._held.wait(10 * _SECOND)  # better than a run that ends because of its sign of life

    def end(self) -> None:
        """Let go within a second."""
        self._over.set()

    def _hold(self) -> None:
        while not self._over.is_set():
            try:
                with self._engine.connect() as connection:
                    for setting in _KEEPALIVES:
                        connection.exec_driver_sql(f"SET {setting}")
                    connection.exec_driver_sql(HOLD, {"run": self._run_id})
                    self._held.set()
                    self._until_lost(connection)
            except DBAPIError:
                self._over.wait(_SECOND)

    def _until_lost(self, connection: Connection) -> None:
        """Return when it is over; raise when the session is lost. A session that ends can be read from at once."""
        socket = connection.connection.fileno()  # type: ignore[attr-defined]  # of psycopg2
        while not self._over.is_set():
            if select.select([socket], [], [], _SECOND)[0]:
                connection.exec_driver_sql("SELECT 1")


def _engine(postgres_url: str, run_id: str) -> Engine:
    arguments = {"application_name": f"run {run_id}", "keepalives_idle": 15, "connect_timeout": 10}
    return create_pg_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=arguments)
