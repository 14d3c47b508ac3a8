-- A scan can return a document twice when it changes meanwhile: the later copy counts.
DELETE FROM staged
USING (SELECT mongo_id, max(ctid) AS newest FROM staged GROUP BY mongo_id HAVING count(*) > 1) AS repeated
WHERE staged.mongo_id = repeated.mongo_id AND staged.ctid <> repeated.newest
RETURNING (staged.event_timestamp AT TIME ZONE 'UTC')::date
