-- Chunks that are not wholly within the window. Times beyond what Python knows are nobody's who loads.
SELECT range_start, range_end
FROM timescaledb_information.chunks
WHERE hypertable_schema = 'public' AND hypertable_name = %(table)s AND range_end < '9999-01-01 00:00:00+00'
  AND (range_start < %(start)s OR range_end > %(end)s)
ORDER BY range_start
