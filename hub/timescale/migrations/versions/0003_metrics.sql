-- Host metrics, one row for each host, time and kind. The unique index begins with the time: dashboards ask
-- for a window of all kinds, and a replayed sample is found by all three.
CREATE TABLE system_metrics (
    time        timestamptz NOT NULL,
    host        text        NOT NULL,
    os          text        NOT NULL,
    metric_type text        NOT NULL,
    payload     jsonb       NOT NULL,
    CONSTRAINT system_metrics_sample UNIQUE (time, host, metric_type)
);
COMMENT ON TABLE system_metrics IS 'Host metrics, one row for each host, time and kind, as `hub metrics collect` samples them.';
COMMENT ON COLUMN system_metrics.time IS 'The minute (or other interval) that the sample stands for, not the instant it was taken.';
COMMENT ON COLUMN system_metrics.metric_type IS 'cpu, memory, disk, network or uptime.';
COMMENT ON COLUMN system_metrics.payload IS 'Bytes, bytes a second, percent and degrees Celsius; see docs/metrics.md.';

-- Tokens of the proxy API. The secret has 256 random bits, so that one round of SHA-256 protects it.
CREATE TABLE api_tokens (
    id         text        PRIMARY KEY,
    name       text        NOT NULL,
    scopes     text[]      NOT NULL CHECK (scopes <@ ARRAY['read', 'sync'] AND cardinality(scopes) > 0),
    secret     bytea       NOT NULL CHECK (length(secret) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE api_tokens IS 'Bearer tokens of the proxy API.';
COMMENT ON COLUMN api_tokens.id IS 'The public part of the token; logs and `hub proxy token list` name it.';
COMMENT ON COLUMN api_tokens.secret IS 'SHA-256 of the secret part, which is stored nowhere.';

-- Requests with an Idempotency-Key and the run that each of them started.
CREATE TABLE api_idempotency (
    token_id   text        NOT NULL REFERENCES api_tokens ON DELETE CASCADE,
    key        text        NOT NULL,
    request    bytea       NOT NULL,
    run_id     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (token_id, key)
);
COMMENT ON TABLE api_idempotency IS 'Sync requests with an Idempotency-Key, and the run that each of them started.';
COMMENT ON COLUMN api_idempotency.request IS 'SHA-256 of the request, so that a key is not used for another one.';
