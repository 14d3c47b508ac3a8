-- Rows of documents that have gone bad since: the dead letter has what the document says now.
SELECT mongo_id, event_timestamp FROM $table WHERE mongo_id = ANY(%(ids)s)
