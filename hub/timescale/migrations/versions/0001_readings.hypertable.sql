-- Daily chunks. No index on the time alone: it costs a quarter of the load, and chunk exclusion does its work.
SELECT create_hypertable('reading_analytics', by_range('event_timestamp', INTERVAL '1 day'), create_default_indexes => false);
