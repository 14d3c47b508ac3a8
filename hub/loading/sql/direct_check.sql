-- Did the direct COPY store a document twice? Then the load starts over and merges.
SELECT 1
FROM $table
WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s
GROUP BY mongo_id
HAVING count(*) > 1
LIMIT 1
