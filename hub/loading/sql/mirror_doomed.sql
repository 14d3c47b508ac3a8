-- Per day, the rows that mirroring would delete, and all rows.
SELECT (present.event_timestamp AT TIME ZONE 'UTC')::date AS day,
       count(*) FILTER (WHERE staged.mongo_id IS NULL) AS doomed,
       count(*) AS rows
FROM $table AS present
LEFT JOIN staged ON staged.mongo_id = present.mongo_id
WHERE present.event_timestamp >= %(start)s AND present.event_timestamp < %(end)s
GROUP BY 1
