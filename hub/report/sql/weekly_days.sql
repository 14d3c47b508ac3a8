-- Readings of each day and source of the half-open range of UTC days.
SELECT
    (bucket AT TIME ZONE 'UTC')::date AS day,
    source,
    sum(events)::bigint AS events,
    sum(value_count)::bigint AS value_count,
    coalesce(sum(value_sum), 0) AS value_sum
FROM reading_daily
WHERE bucket >= %(start)s::date::timestamptz AND bucket < %(end)s::date::timestamptz
GROUP BY 1, 2
ORDER BY 1, 2
