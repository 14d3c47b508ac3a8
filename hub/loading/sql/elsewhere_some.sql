-- The same of a chunk that may have some of the ids. The columnstore looks for the elements of an array in filters of its own.
SELECT mongo_id, event_timestamp
FROM $table
WHERE event_timestamp >= %(first)s AND event_timestamp < %(last)s AND mongo_id = ANY (%(ids)s)
  AND (event_timestamp < %(start)s OR event_timestamp >= %(end)s)
