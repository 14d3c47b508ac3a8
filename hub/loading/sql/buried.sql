-- Rows of the window whose documents have gone bad since.
SELECT mongo_id, event_timestamp FROM $table
WHERE mongo_id IN (SELECT mongo_id FROM buried) AND event_timestamp >= %(start)s AND event_timestamp < %(end)s
