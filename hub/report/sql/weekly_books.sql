-- Days that have been loaded, whether or not they had a reading, whether they were over by then, and their dead letters.
SELECT day, whole, rejected
FROM reading_days
WHERE day >= %(start)s AND day < %(end)s
ORDER BY day
