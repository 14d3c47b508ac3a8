-- What rows are counted of: every table of users, hypertables as a whole (their chunks are children of them) and the
-- tables below continuous aggregates; neither partitions, nor chunks, nor what an extension brought.
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm')
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
  AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND (n.nspname !~ '^(_timescaledb_|timescaledb_)' OR c.oid = ANY (%(materialized)s::text[]::regclass[]))
  AND NOT EXISTS (
      SELECT FROM pg_depend d
      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
ORDER BY 1
