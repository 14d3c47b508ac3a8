-- Did the direct COPY store a document twice, or one that has a row on another day? Then the load starts
-- over and merges. An empty answer is the rule.
SELECT 1
FROM $table
WHERE mongo_id IN (
    SELECT mongo_id FROM $table WHERE event_timestamp >= %(start)s AND event_timestamp < %(end)s
)
GROUP BY mongo_id
HAVING count(*) > 1
LIMIT 1
