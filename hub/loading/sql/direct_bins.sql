-- How many rows a direct COPY has written, by bins of time.
SELECT date_bin(%(bin)s, event_timestamp, TIMESTAMPTZ '2000-01-03 00:00:00+00') AS start, count(*)
FROM $table
WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s
GROUP BY 1
