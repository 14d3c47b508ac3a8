-- What the newest loads of the days came to, beside what MongoDB counts, and the values of these days and of those before.
SELECT
    coalesce(sum(days.read), 0)::bigint,
    coalesce(sum(days.loaded), 0)::bigint,
    coalesce(sum(days.rejected), 0)::bigint,
    (SELECT count(*) FROM $rejects WHERE event_day IS NULL AND rejected_at >= %(since)s),
    (SELECT coalesce(sum(documents), 0)::bigint FROM $ledger WHERE day >= %(first_day)s AND day < %(end_day)s),
    (SELECT count(*) FROM $table
     WHERE event_timestamp >= %(first)s AND event_timestamp < %(last)s AND num_nonnulls($measures) > 0),
    (SELECT count(*) FROM $table
     WHERE event_timestamp >= %(before)s AND event_timestamp < %(first)s AND num_nonnulls($measures) > 0)
FROM $days AS days
WHERE days.day >= %(first_day)s AND days.day < %(end_day)s
