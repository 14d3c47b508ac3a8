DELETE FROM $ids
WHERE chunk_end > %(start)s AND chunk_start < %(end)s
  AND EXISTS (SELECT FROM (SELECT event_timestamp FROM $new) AS new
              WHERE new.event_timestamp >= chunk_start AND new.event_timestamp < chunk_end)
