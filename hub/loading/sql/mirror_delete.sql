WITH gone AS (
    DELETE FROM $table AS present
    WHERE present.event_timestamp >= %(start)s AND present.event_timestamp < %(end)s
      AND NOT EXISTS (SELECT FROM staged WHERE staged.mongo_id = present.mongo_id)
    RETURNING present.event_timestamp
)
INSERT INTO touched (event_timestamp) SELECT event_timestamp FROM gone
