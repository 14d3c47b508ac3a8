-- The same of chunks without notes, all ids together.
SELECT old.mongo_id, old.event_timestamp
FROM $table AS old
JOIN (SELECT mongo_id FROM $new) AS new ON new.mongo_id = old.mongo_id
WHERE old.event_timestamp >= %(first)s AND old.event_timestamp < %(last)s
  AND (old.event_timestamp < %(start)s OR old.event_timestamp >= %(end)s)
