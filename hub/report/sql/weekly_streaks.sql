-- Runs of consecutive days with a reading, up to the end of the week (the view reading_streaks, as of then).
SELECT min(day) AS first_day, max(day) AS last_day, count(*) AS days
FROM (
    SELECT day, day - (row_number() OVER (ORDER BY day))::int AS island
    FROM (
        SELECT DISTINCT (bucket AT TIME ZONE 'UTC')::date AS day
        FROM reading_daily
        WHERE bucket < %(end)s::date::timestamptz
    ) AS days
) AS islands
GROUP BY island
ORDER BY first_day
