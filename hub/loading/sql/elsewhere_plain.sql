-- The rows outside of the window that documents of it have had: one index finds each by its id.
SELECT old.mongo_id, old.event_timestamp
FROM (SELECT mongo_id FROM $new) AS new
JOIN $table AS old ON old.mongo_id = new.mongo_id
WHERE old.event_timestamp < %(start)s OR old.event_timestamp >= %(end)s
