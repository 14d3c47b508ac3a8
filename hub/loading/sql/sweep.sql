-- Mark the days whose documents are others than those that their newest load read; return them, NULL for the
-- undated. A day that was loaded after the sweep began is left to the next one.
WITH swept AS (
    SELECT coalesce(found.day, days.day) AS day, coalesce(found.documents, 0) AS documents,
        coalesce(found.digest, %(nothing)s) AS digest, days.digest AS known, days.load_at
    FROM unnest(%(days)s::date[], %(counts)s::bigint[], %(digests)s::bytea[]) AS found (day, documents, digest)
    FULL JOIN (SELECT day, digest, load_at FROM $days WHERE day >= %(start)s AND day < %(end)s) AS days ON days.day = found.day
), different AS (
    SELECT day, documents FROM swept
    WHERE digest IS DISTINCT FROM known AND (known IS NOT NULL OR documents > 0)
        AND (load_at IS NULL OR load_at < %(began)s)
), marked AS (
    INSERT INTO $ledger AS old (day, documents, least, changed)
    SELECT day, documents, documents, true FROM different
    ON CONFLICT (day) DO UPDATE SET changed = true WHERE NOT old.changed
), state AS (
    INSERT INTO stream_state AS old (stream, recent_sweep_at, full_sweep_at, undated_changed)
    VALUES (%(stream)s, %(now)s, CASE WHEN %(full)s THEN %(now)s END, true)
    ON CONFLICT (stream) DO UPDATE SET
        recent_sweep_at = excluded.recent_sweep_at,
        full_sweep_at = coalesce(excluded.full_sweep_at, old.full_sweep_at),
        undated_changed = old.undated_digest IS DISTINCT FROM %(undated)s
    RETURNING undated_changed
)
SELECT day FROM different
UNION ALL
SELECT NULL FROM state WHERE undated_changed
