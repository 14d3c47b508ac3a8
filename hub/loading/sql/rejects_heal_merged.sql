-- A document that this load has made a row is no dead letter any more. A row of an earlier load is no reason:
-- the document may have gone bad since, and then its dead letter is all that is left of what it said last.
DELETE FROM $rejects
WHERE EXISTS (SELECT FROM staged WHERE staged.mongo_id = $rejects.mongo_id)
