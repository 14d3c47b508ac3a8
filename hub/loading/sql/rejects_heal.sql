-- A document that has become a row is no dead letter any more. The array makes PostgreSQL look for the few
-- dead letters in the index; without it, it may hash every row of the window.
DELETE FROM $rejects
WHERE mongo_id IN (
    SELECT loaded.mongo_id FROM $table AS loaded
    WHERE loaded.mongo_id = ANY (ARRAY(SELECT mongo_id FROM $rejects))
      AND loaded.event_timestamp >= %(start)s AND loaded.event_timestamp < %(end)s
)
