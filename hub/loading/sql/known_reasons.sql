-- Dead letters of the window's days, and those of no day, by reason.
SELECT reason, count(*) FROM $rejects
WHERE event_day IS NULL OR (event_day >= %(first_day)s AND event_day < %(end_day)s)
    OR event_day < %(first)s OR event_day > (now() AT TIME ZONE 'UTC')::date
GROUP BY reason
