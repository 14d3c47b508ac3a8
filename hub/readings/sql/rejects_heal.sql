-- A document that has become a row is no dead letter any more.
DELETE FROM reading_rejects
WHERE EXISTS (
    SELECT FROM reading_analytics AS loaded
    WHERE loaded.mongo_id = reading_rejects.mongo_id
      AND loaded.event_timestamp >= %(start)s AND loaded.event_timestamp < %(end)s
)
AND NOT EXISTS (SELECT FROM staged_rejects WHERE staged_rejects.mongo_id = reading_rejects.mongo_id)
