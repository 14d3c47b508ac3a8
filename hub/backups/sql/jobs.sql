-- Jobs of users; those below 1000 belong to TimescaleDB itself.
SELECT job_id,
       format('%I.%I', proc_schema, proc_name),
       CASE WHEN hypertable_name IS NOT NULL THEN format('%I.%I', hypertable_schema, hypertable_name) END,
       owner::text,
       scheduled,
       schedule_interval::text,
       coalesce(config::text, ''),
       coalesce(fixed_schedule, false)
FROM timescaledb_information.jobs
WHERE job_id >= 1000
ORDER BY job_id
