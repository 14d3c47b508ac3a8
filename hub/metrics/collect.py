"""Sample the host on the minute and send the samples on; the database may be away for days."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable

import psycopg

from hub.errors import HubError
from hub.metrics.model import Sample, aligned
from hub.metrics.sample import Sampler
from hub.metrics.spool import Spool
from hub.metrics.store import store
from hub.settings import Settings
from hub.timescale.connection import Connection, connect

log = logging.getLogger(__name__)

_BATCH = 500
# Of an ended process, the last samples wait in the spool: no need to keep a shutdown waiting.
_GOODBYE_SECONDS = 5.0


class Collector:
    """Samples go to the spool first, then from there to the database, oldest first.

    So nothing is lost if this process, the database or the machine ends at any moment. Sampling and
    sending are two threads: a database that hangs does not stop the clock.
    """

    def __init__(self, settings: Settings, sampler: Sampler, spool: Spool) -> None:
        self.settings = settings
        self.sampler = sampler
        self.spool = spool
        self._away: str | None = None

    def tick(self, at: float) -> list[Sample]:
        """Take the samples for the time `at` (seconds since the epoch) into the spool."""
        samples = self.sampler.sample(dt.datetime.fromtimestamp(at, dt.UTC))
        self.spool.append(samples)
        return samples

    def send(self) -> int:
        """Send all that waits in the spool; return how many samples went. Raises HubError."""
        if not self.spool.take(1):
            return 0
        sent = 0
        with connect(self.settings, autocommit=True) as connection:
            connection.execute("SET statement_timeout = '30s'")
            while batch := self.spool.take(_BATCH):
                try:
                    store(connection, [sample for _, sample in batch])
                    self.spool.remove([number for number, _ in batch])
                except (psycopg.DataError, psycopg.IntegrityError):
                    self._one_by_one(connection, batch)
                sent += len(batch)
        return sent

    def _one_by_one(self, connection: Connection, batch: list[tuple[int, Sample]]) -> None:
        """Find the sample that the database will never take."""
        for number, sample in batch:
            try:
                store(connection, [sample])
                self.spool.remove([number])
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                log.error("the %s sample of %s was set aside: %s", sample.metric_type, sample.time, error)
                self.spool.refuse([number])

    def try_to_send(self) -> bool:
        """Send, and log when the database goes away and when it is back. Returns whether all went."""
        try:
            sent = self.send()
        except HubError as error:
            if self._away != str(error):
                log.warning("samples wait in %s: %s", self.spool.path, error)
            self._away = str(error)
            return False
        if self._away is not None and sent:
            log.info("the database is back; %s samples were sent", sent)
            self._away = None
        return True

    def run(self, interval: float, stop: threading.Event, *, clock: Callable[[], float] = time.time) -> None:
        """Sample at every multiple of `interval` seconds until `stop` is set, then send what waits.

        A time that passed while the machine slept is skipped: there is nothing to say about it.
        """
        sampled = threading.Event()
        sampled.set()  # what waits from last time goes at once
        sender = threading.Thread(target=self._keep_sending, args=(interval, sampled, stop), daemon=True)
        sender.start()
        log.info("sampling %s every %s s", self.sampler.hostname, interval)
        last = aligned(clock(), interval)
        while not stop.wait(max(0.0, last + interval - clock())):
            now = aligned(clock(), interval)
            if now > last:
                self.tick(now)
                sampled.set()
            # A clock that was set back must not silence the collector until it has caught up.
            last = now
        sampled.set()
        sender.join(_GOODBYE_SECONDS)

    def _keep_sending(self, interval: float, sampled: threading.Event, stop: threading.Event) -> None:
        while True:
            sampled.wait(interval)
            sampled.clear()
            ending = stop.is_set()
            try:
                self.try_to_send()
            except Exception:
                log.exception("sending failed; the samples wait in the spool")
            if ending:
                return
