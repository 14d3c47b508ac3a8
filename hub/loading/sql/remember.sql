-- Per day of the window: the digest of what was read, and rows and dead letters as they are now (known_days.sql). Where
-- every row is this transaction's, they need not be looked at.
WITH read AS (
    SELECT day, digest, (now() AT TIME ZONE 'UTC')::date > day AS whole
    FROM unnest(%(days)s::date[], %(digests)s::bytea[]) AS read (day, digest)
), held AS (
    SELECT (event_timestamp AT TIME ZONE 'UTC')::date AS day, count(*) AS rows, sum(extract(epoch FROM ingested_at)) AS stamp
    FROM $table WHERE NOT %(new)s AND event_timestamp >= %(start)s AND event_timestamp < %(end)s GROUP BY 1
), letters AS (
    SELECT event_day AS day, count(*) AS rows, sum(extract(epoch FROM rejected_at)) AS stamp
    FROM $rejects WHERE event_day >= %(first_day)s AND event_day < %(end_day)s GROUP BY 1
), fresh AS (
    SELECT
        read.day, read.digest, read.whole,
        format('%%s %%s %%s %%s',
            CASE WHEN %(new)s THEN days.loaded ELSE coalesce(held.rows, 0) END,
            CASE WHEN NOT %(new)s THEN coalesce(held.stamp, 0) WHEN days.loaded > 0 THEN days.loaded * extract(epoch FROM now()) ELSE 0 END,
            coalesce(letters.rows, 0), coalesce(letters.stamp, 0)) AS present
    FROM read
    JOIN $days AS days USING (day)
    LEFT JOIN held USING (day)
    LEFT JOIN letters USING (day)
), done AS (
    UPDATE $ledger AS ledger SET least = days.read, changed = false, since = NULL, asked_at = NULL
    FROM $days AS days
    WHERE days.day = ledger.day AND ledger.day >= %(first_day)s AND ledger.day < %(end_day)s
        AND (ledger.least <> days.read OR ledger.changed)
)
UPDATE $days AS days SET digest = fresh.digest, whole = fresh.whole, present = fresh.present
FROM fresh
WHERE fresh.day = days.day
    AND (days.digest, days.whole, days.present) IS DISTINCT FROM (fresh.digest, fresh.whole, fresh.present)
