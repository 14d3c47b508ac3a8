-- Returned are those that are new or have changed: their ids, and whether they belong to no day of the window.
INSERT INTO $rejects (mongo_id, reason, detail, event_day, raw)
SELECT DISTINCT ON (mongo_id) mongo_id, reason, detail, event_day, raw
FROM staged_rejects ORDER BY mongo_id, ctid DESC
ON CONFLICT (mongo_id) DO UPDATE
SET reason = excluded.reason, detail = excluded.detail, event_day = excluded.event_day,
    raw = excluded.raw, rejected_at = excluded.rejected_at
WHERE ($rejects.reason, $rejects.raw) IS DISTINCT FROM (excluded.reason, excluded.raw)
RETURNING mongo_id, event_day IS NULL OR event_day < (%(start)s AT TIME ZONE 'UTC')::date OR event_day >= (%(end)s AT TIME ZONE 'UTC')::date
