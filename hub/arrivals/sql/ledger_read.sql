-- Every day that MongoDB or the hub knows of.
SELECT
    coalesce(ledger.day, books.day) AS day,
    coalesce(ledger.documents, 0),
    coalesce(books.read, 0),
    coalesce(books.loaded, 0),
    coalesce(books.rejected, 0),
    coalesce(ledger.least, 0),
    coalesce(ledger.changed, false),
    ledger.since,
    ledger.asked_at
FROM $ledger AS ledger
FULL JOIN $days AS books ON books.day = ledger.day
ORDER BY 1
