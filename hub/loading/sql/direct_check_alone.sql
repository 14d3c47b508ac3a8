-- The same where the table holds nothing but the window: no join needed.
SELECT 1 FROM $table GROUP BY mongo_id HAVING count(*) > 1 LIMIT 1
