"""Write samples to `system_metrics` and mark the rollup buckets that they change, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hub.metrics.model import Sample
from hub.metrics.rollups import SYSTEM_METRICS_5M
from hub.rollups.refresh import mark_dirty
from hub.timescale.connection import Connection

_INSERT = """
INSERT INTO system_metrics (time, host, os, metric_type, payload)
SELECT * FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::jsonb[])
ON CONFLICT DO NOTHING
RETURNING time
"""


def store(connection: Connection, samples: Sequence[Sample]) -> int:
    """Insert the samples that the table does not hold yet, within a transaction; return how many were new."""
    with connection.transaction():
        columns = [
            [sample.time for sample in samples],
            [sample.host for sample in samples],
            [sample.os for sample in samples],
            [sample.metric_type for sample in samples],
            [json.dumps(sample.payload, ensure_ascii=False) for sample in samples],
        ]
        new = connection.execute(_INSERT, columns).fetchall()
        if new:
            mark_dirty(connection, SYSTEM_METRICS_5M, {SYSTEM_METRICS_5M.floor(time) for (time,) in new})
    return len(new)
