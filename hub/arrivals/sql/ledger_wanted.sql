-- Days of which something is missing or changed, and that were not asked for since, or a while ago. Any load reads
-- the undated documents: that of today is asked for.
SELECT day FROM $ledger
WHERE (documents > least OR changed) AND (asked_at IS NULL OR asked_at < %(before)s)
UNION
SELECT %(today)s::date FROM stream_state
WHERE stream = %(stream)s AND (undated > undated_read OR undated_changed)
    AND (undated_asked_at IS NULL OR undated_asked_at < %(before)s)
