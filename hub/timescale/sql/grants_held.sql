-- Who may do what with the hub's relations, as granted: one line for each relation (and column), role and privilege.
-- The role is '' for PUBLIC. Owners are left out: what they may do is not granted.
SELECT c.relname, '' AS column, coalesce(pg_get_userbyid(nullif(a.grantee, 0))::text, ''), a.privilege_type
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%(relations)s) AND a.grantee <> c.relowner
UNION ALL
SELECT c.relname, t.attname, coalesce(pg_get_userbyid(nullif(a.grantee, 0))::text, ''), a.privilege_type
FROM pg_class c
JOIN pg_attribute t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped, aclexplode(t.attacl) a
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%(relations)s) AND a.grantee <> c.relowner
