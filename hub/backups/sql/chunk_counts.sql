SELECT format('%I.%I', hypertable_schema, hypertable_name), count(*), count(*) FILTER (WHERE is_compressed)
FROM timescaledb_information.chunks
GROUP BY 1
ORDER BY 1
