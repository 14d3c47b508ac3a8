-- Every source that was there before the week.
SELECT
    source,
    (min(bucket) AT TIME ZONE 'UTC')::date AS first_day,
    (max(bucket) AT TIME ZONE 'UTC')::date AS last_day
FROM reading_daily
WHERE bucket < %(monday)s::date::timestamptz
GROUP BY source
ORDER BY source
