-- Nothing: the unique index of system_metrics begins with the time.
SELECT 1;
