-- The books of each day of the window, and its rows and dead letters as its load left them and as they are: how
-- many, written when.
SELECT
    days.day, days.read, days.loaded, days.rejected, days.digest, days.present,
    format('%%s %%s %%s %%s', coalesce(held.rows, 0), coalesce(held.stamp, 0), coalesce(letters.rows, 0), coalesce(letters.stamp, 0))
FROM $days AS days
LEFT JOIN (
    SELECT (event_timestamp AT TIME ZONE 'UTC')::date AS day, count(*) AS rows, sum(extract(epoch FROM ingested_at)) AS stamp
    FROM $table WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s GROUP BY 1
) AS held USING (day)
LEFT JOIN (
    SELECT event_day AS day, count(*) AS rows, sum(extract(epoch FROM rejected_at)) AS stamp
    FROM $rejects WHERE event_day >= %(first_day)s AND event_day < %(end_day)s GROUP BY 1
) AS letters USING (day)
WHERE days.day >= %(first_day)s AND days.day < %(end_day)s
ORDER BY days.day
