-- The old rows, within the window, of documents whose time has changed; only a new row can have one.
SELECT old.mongo_id, old.event_timestamp
FROM $table AS old
JOIN delta ON delta.mongo_id = old.mongo_id
WHERE delta.is_new AND old.event_timestamp <> delta.event_timestamp
  AND old.event_timestamp >= %(start)s AND old.event_timestamp < %(end)s
