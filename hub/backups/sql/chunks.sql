-- Every chunk, compressed ones too: tables of their own that background jobs truncate and drop. Asked of
-- PostgreSQL's catalog, because TimescaleDB's own tables change from version to version.
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  AND (
      (n.nspname = '_timescaledb_internal' AND NOT c.relhassubclass AND c.relname !~ '^_(materialized|compressed)_hypertable_')
      OR EXISTS (
          SELECT FROM pg_inherits i
          JOIN pg_class p ON p.oid = i.inhparent
          JOIN pg_namespace s ON s.oid = p.relnamespace
          JOIN timescaledb_information.hypertables h ON h.hypertable_schema = s.nspname AND h.hypertable_name = p.relname
          WHERE i.inhrelid = c.oid
      )
  )
ORDER BY c.oid
