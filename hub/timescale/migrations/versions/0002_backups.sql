-- Every backup, verification, drill, upload, prune and restore, for Grafana and for `hub backup list`.
CREATE TABLE backup_runs (
    id              bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text             NOT NULL CHECK (kind IN ('backup', 'verify', 'drill', 'upload', 'prune', 'restore')),
    backup          text,
    state           text             NOT NULL CHECK (state IN ('running', 'done', 'failed', 'lost')),
    started_at      timestamptz      NOT NULL,
    finished_at     timestamptz,
    seconds         double precision,
    bytes           bigint,
    bytes_live      bigint,
    rows            bigint,
    message         text,
    manifest_sha256 text
);
CREATE INDEX backup_runs_kind ON backup_runs (kind, started_at DESC);
COMMENT ON TABLE backup_runs IS 'What was done with backups, one row a run; state lost: its process ended without a word.';
COMMENT ON COLUMN backup_runs.bytes IS 'Size of the backup; for prune what was freed.';
COMMENT ON COLUMN backup_runs.bytes_live IS 'Size of what was backed up, on the server and in volumes.';
COMMENT ON COLUMN backup_runs.manifest_sha256 IS 'Digest of manifest.json as it was written, so that a forged one is found.';

-- What is failing and has been told of: a failure is told once, and once more when it is over.
CREATE TABLE notify_state (
    topic   text        PRIMARY KEY,
    failing boolean     NOT NULL,
    problem text        NOT NULL DEFAULT '',
    since   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE notify_state IS 'Per topic, whether it is failing and has been told of (NOTIFY_URLS).';
