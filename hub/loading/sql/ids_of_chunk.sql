-- What the notes of a chunk are made of, by the length of its ids.
SELECT least(octet_length(mongo_id), 64) AS length, min(mongo_id COLLATE "C"), max(mongo_id COLLATE "C"),
       string_agg(int8send(hashtextextended(mongo_id, 0)), '')
FROM $table
WHERE event_timestamp >= %(first)s AND event_timestamp < %(last)s
GROUP BY 1
