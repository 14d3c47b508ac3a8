-- How the ids begin: enough to see which chunks may have some of them.
SELECT least(octet_length(mongo_id), 64) AS length, array_agg(DISTINCT left(mongo_id, %(size)s) COLLATE "C")
FROM (SELECT mongo_id FROM $new) AS new
GROUP BY 1
