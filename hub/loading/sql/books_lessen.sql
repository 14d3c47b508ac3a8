-- After rows of a day went elsewhere. Those that its newest load did not read any more were in no book: what is loaded is
-- at most what is there.
UPDATE $days SET read = read - loaded + present.rows, loaded = present.rows
FROM (SELECT count(*) AS rows FROM $table WHERE event_timestamp >= %(first)s AND event_timestamp < %(last)s) AS present
WHERE day = %(day)s AND loaded > present.rows
