-- The same for a window in which nothing had changed: only whether its days are whole by now, and what was asked for.
WITH done AS (
    UPDATE $ledger AS ledger SET least = days.read, changed = false, since = NULL, asked_at = NULL
    FROM $days AS days
    WHERE days.day = ledger.day AND ledger.day >= %(first_day)s AND ledger.day < %(end_day)s
        AND (ledger.least <> days.read OR ledger.changed)
)
UPDATE $days SET whole = true
WHERE day >= %(first_day)s AND day < %(end_day)s AND NOT whole AND (now() AT TIME ZONE 'UTC')::date > day
