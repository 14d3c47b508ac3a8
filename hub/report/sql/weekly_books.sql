-- Days that have been loaded, whether or not they had a reading, and their dead letters.
SELECT day, rejected
FROM reading_days
WHERE day >= %(start)s AND day < %(end)s
ORDER BY day
