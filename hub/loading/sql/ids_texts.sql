SELECT hashtextextended(mongo_id, 0), array_agg(DISTINCT mongo_id)
FROM (SELECT mongo_id FROM $new) AS new
WHERE hashtextextended(mongo_id, 0) = ANY (%(hashes)s)
GROUP BY 1
