-- What is known of each stream beside its days.
CREATE TABLE stream_state (
    stream           text        PRIMARY KEY,
    undated          bigint      NOT NULL DEFAULT 0,
    undated_read     bigint      NOT NULL DEFAULT 0,
    undated_digest   bytea,
    undated_changed  boolean     NOT NULL DEFAULT false,
    undated_asked_at timestamptz,
    ledger_at        timestamptz,
    recent_sweep_at  timestamptz,
    full_sweep_at    timestamptz
);
COMMENT ON TABLE stream_state IS 'What is known of each stream beside its days.';
COMMENT ON COLUMN stream_state.undated IS 'Documents that belong to no day, as MongoDB counts them.';
COMMENT ON COLUMN stream_state.undated_read IS 'Such documents that the newest load read.';
COMMENT ON COLUMN stream_state.undated_digest IS 'Digest of the undated documents that the newest load read; it does not depend on their order.';
COMMENT ON COLUMN stream_state.undated_changed IS 'Whether a sweep has found other undated documents than were read; the next load takes it back.';
COMMENT ON COLUMN stream_state.undated_asked_at IS 'When a run for the undated documents was last asked for.';
COMMENT ON COLUMN stream_state.ledger_at IS 'When MongoDB last counted its documents by day.';
COMMENT ON COLUMN stream_state.recent_sweep_at IS 'When the documents of the last days were last compared by digest.';
COMMENT ON COLUMN stream_state.full_sweep_at IS 'When all documents were last compared by digest.';

-- What MongoDB holds of each day. A day is asked for while it holds more than was read, or other than was read.
CREATE TABLE reading_ledger (
    day        date        PRIMARY KEY,
    documents  bigint      NOT NULL,
    least      bigint      NOT NULL,
    changed    boolean     NOT NULL DEFAULT false,
    since      timestamptz,
    counted_at timestamptz NOT NULL DEFAULT now(),
    asked_at   timestamptz
);
COMMENT ON TABLE reading_ledger IS 'Per UTC day, how many documents MongoDB holds, beside what was read (reading_days).';
COMMENT ON COLUMN reading_ledger.documents IS 'Documents of the day, as MongoDB counted them last.';
COMMENT ON COLUMN reading_ledger.least IS 'The least that was counted since the day was last loaded: what MongoDB forgot (TTL) must not hide what is new.';
COMMENT ON COLUMN reading_ledger.changed IS 'Whether a sweep has found other documents than were read; the next load of the day takes it back.';
COMMENT ON COLUMN reading_ledger.since IS 'Since when documents have been missing.';
COMMENT ON COLUMN reading_ledger.counted_at IS 'When the count last changed.';
COMMENT ON COLUMN reading_ledger.asked_at IS 'When a run for the day was last asked for.';

-- Every count of a ledger, for dashboards: what was missing, and for how long.
CREATE TABLE ledger_runs (
    stream       text        NOT NULL,
    counted_at   timestamptz NOT NULL DEFAULT now(),
    documents    bigint      NOT NULL,
    undated      bigint      NOT NULL,
    missing      bigint      NOT NULL,
    missing_days bigint      NOT NULL,
    changed_days bigint      NOT NULL,
    seconds      double precision NOT NULL,
    PRIMARY KEY (stream, counted_at)
);
COMMENT ON TABLE ledger_runs IS 'Every count of the ledgers: documents in MongoDB, and what of them was missing here.';

ALTER TABLE reading_days
    ADD COLUMN digest bytea,
    ADD COLUMN present text,
    ADD COLUMN whole boolean NOT NULL DEFAULT false;
UPDATE reading_days SET whole = load_at >= (day + 1)::timestamp AT TIME ZONE 'UTC';
COMMENT ON COLUMN reading_days.digest IS 'Digest of the documents that the newest load of the day read; it does not depend on their order.';
COMMENT ON COLUMN reading_days.present IS 'Rows and dead letters of the day as its newest load left them: how many, written when.';
COMMENT ON COLUMN reading_days.whole IS 'Whether the newest load was after the end of the day.';

ALTER TABLE rollup_state ADD COLUMN dropped_before timestamptz;
COMMENT ON COLUMN rollup_state.dropped_before IS 'Raw rows before this time may have been dropped by retention: no refresh takes their buckets along.';
DO $$
DECLARE
    oldest timestamptz;
    raw timestamptz;
BEGIN
    IF to_regclass('public.reading_hourly') IS NOT NULL THEN
        SELECT min(bucket) FROM reading_hourly INTO oldest;
        SELECT coalesce(min(event_timestamp), now()) FROM reading_analytics INTO raw;
        UPDATE rollup_state SET dropped_before = raw WHERE rollup = 'reading_hourly' AND oldest < date_trunc('hour', raw, 'UTC');
    END IF;
END
$$;

-- Digests by day take its place.
DROP TABLE reading_windows;
