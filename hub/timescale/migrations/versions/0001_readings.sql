-- Reading events, one row a document. `(mongo_id, event_timestamp)` finds a moved document by its id, and
-- holds the time column, which a hypertable's unique index must.
CREATE TABLE reading_analytics (
    mongo_id        text             NOT NULL,
    event_timestamp timestamptz      NOT NULL,
    source          text             NOT NULL,
    event_type      text             NOT NULL,
    value           double precision,
    payload         jsonb,
    meta            jsonb,
    ingested_at     timestamptz      NOT NULL DEFAULT now(),
    CONSTRAINT reading_analytics_document UNIQUE (mongo_id, event_timestamp)
);
COMMENT ON TABLE reading_analytics IS 'Reading events from MongoDB, one row a document; kept when the document leaves MongoDB.';
COMMENT ON COLUMN reading_analytics.mongo_id IS 'The document''s _id: hexadecimal of an ObjectId, a string or an integer as it is, extended JSON of anything else.';
COMMENT ON COLUMN reading_analytics.value IS 'The number at READING_VALUE_PATH, NULL where the document has none.';
COMMENT ON COLUMN reading_analytics.meta IS 'The document''s meta, and whatever top-level fields have no column of their own.';

-- Dead letters: what could not become a row, with its raw BSON, so that nothing is ever lost.
CREATE TABLE reading_rejects (
    mongo_id    text        PRIMARY KEY,
    reason      text        NOT NULL,
    detail      text        NOT NULL,
    event_day   date,
    raw         bytea       NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reading_rejects IS 'Dead letters: documents that could not become a row, with the reason and the raw BSON.';
COMMENT ON COLUMN reading_rejects.event_day IS 'UTC day of the document''s time; NULL where it has no usable time.';

-- What the newest load of each day read and made of it.
CREATE TABLE reading_days (
    day      date        PRIMARY KEY,
    read     bigint      NOT NULL,
    loaded   bigint      NOT NULL,
    rejected bigint      NOT NULL,
    load_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reading_days IS 'Per UTC day, what its newest load that found a change read, loaded and rejected.';

-- Buckets whose rollup is out of date. Rows are only ever added and removed, never updated: a refresh
-- removes the rows that it saw, and those of a load that commits meanwhile stay for the next one.
CREATE TABLE rollup_dirty (
    id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rollup text        NOT NULL,
    bucket timestamptz NOT NULL
);

-- What each rollup was built from, so that a changed declaration is noticed.
CREATE TABLE rollup_state (
    rollup       text        PRIMARY KEY,
    signature    text        NOT NULL,
    refreshed_at timestamptz
);

-- Per loaded range of days, a digest of the documents that its newest load read and what it came to. A load
-- that reads the same documents, and finds the rows as it left them, has nothing to do.
CREATE TABLE reading_windows (
    first_day date        NOT NULL,
    end_day   date        NOT NULL,
    mapping   text        NOT NULL,
    digest    bytea       NOT NULL,
    present   text        NOT NULL,
    report    jsonb       NOT NULL,
    load_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (first_day, end_day)
);
