-- Weekly chunks: one host makes 50,000 rows a week, and the unique index serves every question about time.
SELECT create_hypertable('system_metrics', by_range('time', INTERVAL '7 days'), create_default_indexes => false);
