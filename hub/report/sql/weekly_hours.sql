-- Readings of each hour of the week.
SELECT
    (bucket AT TIME ZONE 'UTC')::date AS day,
    extract(hour FROM bucket AT TIME ZONE 'UTC')::int AS hour,
    sum(events)::bigint AS events
FROM reading_hourly
WHERE bucket >= %(monday)s::date::timestamptz AND bucket < %(end)s::date::timestamptz
GROUP BY 1, 2
ORDER BY 1, 2
