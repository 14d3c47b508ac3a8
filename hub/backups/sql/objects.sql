-- One line for each object of users: its kind and name, and all that defines it. Rights are compared as they act:
-- a dump leaves out those that equal the default. A sequence's value is no part of a snapshot and is left out.
WITH member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), place AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname !~ '^(pg_|_timescaledb_|timescaledb_)' AND nspname <> 'information_schema'
), relation AS (
    SELECT c.*, p.nspname, format('%I.%I', p.nspname, c.relname) AS named
    FROM pg_class c JOIN place p ON p.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
)
SELECT 'relation ' || r.named,
       concat_ws('|', r.relkind, pg_get_userbyid(r.relowner), r.relrowsecurity, r.relispartition,
                 ARRAY(SELECT g::text FROM unnest(coalesce(r.relacl, acldefault(
                     CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner))) g ORDER BY 1),
                 pg_get_expr(r.relpartbound, r.oid), obj_description(r.oid, 'pg_class'))
FROM relation r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
UNION ALL
SELECT 'column ' || r.named || '.' || quote_ident(a.attname),
       concat_ws('|', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
                 pg_get_expr(d.adbin, d.adrelid), nullif(a.attacl::text, '{}'), col_description(r.oid, a.attnum))
FROM relation r
JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT 'constraint ' || r.named || '.' || quote_ident(k.conname), pg_get_constraintdef(k.oid)
FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
UNION ALL
SELECT 'index ' || i.named, pg_get_indexdef(i.oid)
FROM relation i WHERE i.relkind IN ('i', 'I')
UNION ALL
SELECT 'view ' || r.named, pg_get_viewdef(r.oid)
FROM relation r WHERE r.relkind IN ('v', 'm')
UNION ALL
SELECT 'trigger ' || r.named || '.' || quote_ident(t.tgname), pg_get_triggerdef(t.oid) || t.tgenabled::text
FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
UNION ALL
SELECT 'function ' || format('%I.%I(%s)', p.nspname, f.proname, pg_get_function_identity_arguments(f.oid)),
       concat_ws('|', f.prokind, pg_get_function_result(f.oid), f.prosrc, f.provolatile,
                 ARRAY(SELECT g::text FROM unnest(coalesce(f.proacl, acldefault('f', f.proowner))) g ORDER BY 1))
FROM pg_proc f JOIN place p ON p.oid = f.pronamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = f.oid)
UNION ALL
SELECT 'policy ' || format('%I.%I.%I', schemaname, tablename, policyname), concat_ws('|', cmd, qual, with_check, roles::text)
FROM pg_policies WHERE schemaname IN (SELECT nspname FROM place)
UNION ALL
SELECT 'sequence ' || format('%I.%I', schemaname, sequencename), concat_ws('|', data_type, increment_by)
FROM pg_sequences WHERE schemaname IN (SELECT nspname FROM place)
UNION ALL
SELECT 'schema ' || quote_ident(n.nspname), concat_ws('|', pg_get_userbyid(n.nspowner),
                 ARRAY(SELECT g::text FROM unnest(coalesce(n.nspacl, acldefault('n', n.nspowner))) g ORDER BY 1))
FROM pg_namespace n JOIN place p ON p.oid = n.oid
UNION ALL
SELECT 'extension ' || quote_ident(extname), extversion FROM pg_extension
ORDER BY 1
