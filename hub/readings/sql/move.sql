-- The old rows of documents whose time has changed go; only a new row can have an old one elsewhere.
WITH moved AS (
    DELETE FROM reading_analytics AS old
    USING delta
    WHERE delta.is_new
      AND old.mongo_id = delta.mongo_id
      AND old.event_timestamp <> delta.event_timestamp
    RETURNING old.event_timestamp
)
INSERT INTO touched (event_timestamp) SELECT event_timestamp FROM moved
