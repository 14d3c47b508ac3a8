INSERT INTO $table ($columns)
SELECT $columns FROM delta
ON CONFLICT (mongo_id, event_timestamp) DO UPDATE
SET ($values, ingested_at) = ROW ($excluded, excluded.ingested_at)
