-- The old rows of documents whose time has changed; only a new row can have an old one elsewhere. They are
-- looked for before they are deleted: a DELETE by a join would first decompress every chunk of the columnstore.
SELECT old.mongo_id, old.event_timestamp
FROM $table AS old
JOIN delta ON delta.mongo_id = old.mongo_id
WHERE delta.is_new AND old.event_timestamp <> delta.event_timestamp
