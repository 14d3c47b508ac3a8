-- Rows of each hour that a direct COPY has written.
SELECT date_bin(INTERVAL '1 hour', event_timestamp, TIMESTAMPTZ '2000-01-03 00:00:00+00') AS hour, count(*)
FROM reading_analytics
WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s
GROUP BY 1
