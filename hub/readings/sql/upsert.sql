INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, value, payload, meta)
SELECT mongo_id, event_timestamp, source, event_type, value, payload, meta FROM delta
ON CONFLICT (mongo_id, event_timestamp) DO UPDATE
SET source = excluded.source, event_type = excluded.event_type, value = excluded.value,
    payload = excluded.payload, meta = excluded.meta, ingested_at = excluded.ingested_at
