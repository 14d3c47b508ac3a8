-- What MongoDB counted, where it differs from what is written. A day that it no longer has counts 0. A load that has
-- read a day since the count began knows better than the count what was there.
INSERT INTO $ledger AS old (day, documents, least, since)
SELECT day, documents, least(documents, read), CASE WHEN documents > read THEN %(began)s END
FROM (
    SELECT
        coalesce(counted.day, kept.day) AS day,
        coalesce(counted.documents, 0) AS documents,
        coalesce(books.read, 0) AS read
    FROM unnest(%(days)s::date[], %(counts)s::bigint[]) AS counted (day, documents)
    FULL JOIN (SELECT day FROM $ledger WHERE day >= %(first)s) AS kept ON kept.day = counted.day
    LEFT JOIN $days AS books ON books.day = coalesce(counted.day, kept.day)
) AS days
ON CONFLICT (day) DO UPDATE SET
    documents = excluded.documents,
    least = CASE
        WHEN EXISTS (SELECT FROM $days AS books WHERE books.day = old.day AND books.load_at >= %(began)s) THEN old.least
        ELSE least(old.least, excluded.documents)
    END,
    since = CASE WHEN excluded.documents <= old.least THEN NULL ELSE coalesce(old.since, %(began)s) END,
    counted_at = %(began)s
WHERE old.documents <> excluded.documents OR old.least > excluded.documents
    OR (old.since IS NULL) <> (excluded.documents <= old.least)
