-- Rows of `staged` that are new, or differ from the row of the same document and time.
CREATE TEMP TABLE delta ON COMMIT DROP AS
SELECT staged.*, present.mongo_id IS NULL AS is_new
FROM staged
LEFT JOIN $table AS present
  ON  present.mongo_id = staged.mongo_id
  AND present.event_timestamp = staged.event_timestamp
  AND present.event_timestamp >= %(start)s
  AND present.event_timestamp <  %(end)s
WHERE present.mongo_id IS NULL
   OR ($present)
      IS DISTINCT FROM ($staged)
