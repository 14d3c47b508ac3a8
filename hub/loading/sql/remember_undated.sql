-- The documents of no day, which every load reads.
INSERT INTO stream_state AS old (stream, undated_read, undated_digest) VALUES (%(stream)s, %(undated)s, %(digest)s)
ON CONFLICT (stream) DO UPDATE SET
    undated_read = excluded.undated_read, undated_digest = excluded.undated_digest,
    undated_changed = false, undated_asked_at = NULL
WHERE old.undated_changed
    OR (old.undated_read, old.undated_digest) IS DISTINCT FROM (excluded.undated_read, excluded.undated_digest)
