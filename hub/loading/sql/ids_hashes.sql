SELECT coalesce(string_agg(int8send(hashtextextended(mongo_id, 0)), ''), '')
FROM (SELECT mongo_id FROM $new) AS new
WHERE least(octet_length(mongo_id), 64) = %(length)s
  AND left(mongo_id, %(size)s) COLLATE "C" BETWEEN %(low)s AND %(high)s
