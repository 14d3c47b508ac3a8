"""Does a run's process still live? It holds a lock in Dagster's database, which is gone with it, however it died.

An advisory lock belongs to a session: kill -9, a lost container and a power cut end it, and whoever asks needs to see
neither the process nor its machine. A restart of the database ends it too, so its holder takes it again
(pipelines/alive.py), and whoever asks gives it time to do so.
"""

from __future__ import annotations

# Shared: a session that the server has not given up yet shall not keep out the one that follows it.
HOLD = "SELECT pg_advisory_lock_shared(hashtextextended(%(run)s, 0))"

# pg_locks shows the two halves of the key, unsigned.
IS_HELD = """
    EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (classid::bigint << 32) | objid::bigint = hashtextextended({run}, 0)
    )
"""
HELD = f"SELECT {IS_HELD.format(run='%(run)s')}"
