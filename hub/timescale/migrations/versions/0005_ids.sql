-- Notes about the ids of each chunk that is over; see hub/loading/elsewhere.py. They follow from the rows and are made
-- anew where they are missing: no write-ahead log, no backup, and nothing left after a crash.
CREATE UNLOGGED TABLE reading_ids (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk_start timestamptz NOT NULL,
    chunk_end   timestamptz NOT NULL,
    version     bigint      NOT NULL,
    length      integer     NOT NULL,
    least       text        NOT NULL COLLATE "C",
    greatest    text        NOT NULL COLLATE "C",
    filter      bytea       NOT NULL
);
ALTER TABLE reading_ids ALTER COLUMN filter SET STORAGE EXTERNAL;
CREATE INDEX reading_ids_chunk ON reading_ids (chunk_start);
COMMENT ON TABLE reading_ids IS 'Per chunk and length of ids, which ids its rows may have. Made when a load first needs it.';
COMMENT ON COLUMN reading_ids.version IS 'What reading_ids_version was then. Any other value since: somebody else has written rows.';
COMMENT ON COLUMN reading_ids.length IS 'Bytes of the ids; 0 of a chunk without rows.';
COMMENT ON COLUMN reading_ids.filter IS 'Bloom filter of hashtextextended(mongo_id, 0).';

-- A sequence, for it is seen by every transaction at once, whatever its snapshot.
CREATE SEQUENCE reading_ids_version OWNED BY reading_ids.version;
SELECT nextval('reading_ids_version');

-- Before a statement of somebody who keeps no notes: what they say is no longer all. The lock tells a load of writers
-- whose rows it cannot see yet. 0x494453 is hub/loading/elsewhere.py's.
CREATE FUNCTION distrust_ids() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF current_setting('reading_hub.keeps_ids', true) IS DISTINCT FROM 'on' THEN
        PERFORM pg_advisory_xact_lock_shared(4801619);
        PERFORM nextval(format('public.%I', TG_ARGV[0])::regclass);
    END IF;
    RETURN NULL;
END
$$;
