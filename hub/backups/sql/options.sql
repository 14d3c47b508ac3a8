SELECT pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datlocprovider::text, d.datcollate, d.datctype,
       to_jsonb(d) ->> CASE WHEN to_jsonb(d) ? 'datlocale' THEN 'datlocale' ELSE 'daticulocale' END,
       pg_database_size(d.oid),
       ARRAY(
           SELECT ARRAY[CASE WHEN s.setrole = 0 THEN '' ELSE pg_get_userbyid(s.setrole) END, c.setting]
           FROM pg_db_role_setting s, unnest(s.setconfig) AS c(setting)
           WHERE s.setdatabase = d.oid AND c.setting NOT LIKE 'timescaledb.restoring=%'
       ),
       ARRAY(
           SELECT ARRAY[CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type]
           FROM aclexplode(d.datacl) AS a
       ),
       (SELECT jsonb_object_agg(extname, extversion) FROM pg_extension)
FROM pg_database d
WHERE d.datname = current_database()
