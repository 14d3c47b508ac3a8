-- The questions that people, Grafana and the API ask. Days, hours and weekdays are UTC.

CREATE VIEW reading_last_24_hours AS
SELECT bucket AS hour, source, event_type, events, value_sum
FROM reading_hourly
WHERE bucket >= date_trunc('hour', now()) - INTERVAL '24 hours';
COMMENT ON VIEW reading_last_24_hours IS 'Readings of the last 24 hours and the running one, by hour, source and event type.';
COMMENT ON COLUMN reading_last_24_hours.hour IS 'Start of the hour.';
COMMENT ON COLUMN reading_last_24_hours.events IS 'Number of readings.';
COMMENT ON COLUMN reading_last_24_hours.value_sum IS 'Sum of the values; NULL where no reading has one.';

CREATE VIEW reading_last_30_days AS
SELECT bucket AS day, source, event_type, events, value_sum, first_at, last_at
FROM reading_daily
WHERE bucket >= date_trunc('day', now(), 'UTC') - INTERVAL '30 days';
COMMENT ON VIEW reading_last_30_days IS 'Readings of the last 30 days and today, by day, source and event type.';
COMMENT ON COLUMN reading_last_30_days.day IS 'Start of the UTC day.';
COMMENT ON COLUMN reading_last_30_days.events IS 'Number of readings.';
COMMENT ON COLUMN reading_last_30_days.value_sum IS 'Sum of the values; NULL where no reading has one.';
COMMENT ON COLUMN reading_last_30_days.first_at IS 'Time of the first reading of the day.';
COMMENT ON COLUMN reading_last_30_days.last_at IS 'Time of the last reading of the day.';

CREATE VIEW reading_year_by_source AS
SELECT date_trunc('month', bucket, 'UTC') AS month, source, sum(events)::bigint AS events, sum(value_sum) AS value_sum
FROM reading_daily
WHERE bucket >= date_trunc('month', now(), 'UTC') - INTERVAL '12 months'
GROUP BY 1, 2;
COMMENT ON VIEW reading_year_by_source IS 'Readings of the last twelve months and the running one, by month and source.';
COMMENT ON COLUMN reading_year_by_source.month IS 'Start of the month.';
COMMENT ON COLUMN reading_year_by_source.events IS 'Number of readings.';
COMMENT ON COLUMN reading_year_by_source.value_sum IS 'Sum of the values; NULL where no reading has one.';

CREATE VIEW reading_top_sources AS
SELECT
    rank() OVER (ORDER BY sum(events) DESC) AS rank,
    source,
    sum(events)::bigint AS events,
    sum(value_sum) AS value_sum,
    (sum(events) / sum(sum(events)) OVER ())::double precision AS share,
    count(DISTINCT bucket) AS days,
    max(last_at) AS last_at
FROM reading_daily
WHERE bucket >= date_trunc('day', now(), 'UTC') - INTERVAL '30 days'
GROUP BY source;
COMMENT ON VIEW reading_top_sources IS 'Sources by number of readings in the last 30 days.';
COMMENT ON COLUMN reading_top_sources.rank IS '1 for the source with the most readings.';
COMMENT ON COLUMN reading_top_sources.events IS 'Number of readings.';
COMMENT ON COLUMN reading_top_sources.value_sum IS 'Sum of the values; NULL where no reading has one.';
COMMENT ON COLUMN reading_top_sources.share IS 'Share of all readings, 0 to 1.';
COMMENT ON COLUMN reading_top_sources.days IS 'Days with a reading from the source.';
COMMENT ON COLUMN reading_top_sources.last_at IS 'Time of its newest reading.';

CREATE VIEW reading_streaks AS
SELECT
    min(day) AS first_day,
    max(day) AS last_day,
    count(*) AS days,
    sum(events)::bigint AS events,
    max(day) >= (now() AT TIME ZONE 'UTC')::date - 1 AS is_current
FROM (
    SELECT day, events, day - (row_number() OVER (ORDER BY day))::int AS island
    FROM (
        SELECT (bucket AT TIME ZONE 'UTC')::date AS day, sum(events) AS events FROM reading_daily GROUP BY bucket
    ) AS days
) AS islands
GROUP BY island;
COMMENT ON VIEW reading_streaks IS 'Runs of consecutive days with at least one reading.';
COMMENT ON COLUMN reading_streaks.first_day IS 'First day of the streak.';
COMMENT ON COLUMN reading_streaks.last_day IS 'Last day of the streak.';
COMMENT ON COLUMN reading_streaks.days IS 'Length in days.';
COMMENT ON COLUMN reading_streaks.events IS 'Number of readings.';
COMMENT ON COLUMN reading_streaks.is_current IS 'Whether it lasts: its last day is today or yesterday.';

CREATE VIEW reading_weekday_hours AS
SELECT
    extract(isodow FROM bucket AT TIME ZONE 'UTC')::int AS weekday,
    extract(hour FROM bucket AT TIME ZONE 'UTC')::int AS hour,
    sum(events)::bigint AS events,
    sum(value_sum) AS value_sum
FROM (
    -- By bucket first: what a bucket's hour is, is asked 2,184 times and not once for each row.
    SELECT bucket, sum(events) AS events, sum(value_sum) AS value_sum
    FROM reading_hourly
    WHERE bucket >= date_trunc('day', now(), 'UTC') - INTERVAL '91 days'
    GROUP BY bucket
) AS hours
GROUP BY 1, 2;
COMMENT ON VIEW reading_weekday_hours IS 'When reading is done: the last 13 weeks by weekday and hour.';
COMMENT ON COLUMN reading_weekday_hours.weekday IS '1 for Monday to 7 for Sunday.';
COMMENT ON COLUMN reading_weekday_hours.hour IS '0 to 23.';
COMMENT ON COLUMN reading_weekday_hours.events IS 'Number of readings.';
COMMENT ON COLUMN reading_weekday_hours.value_sum IS 'Sum of the values; NULL where no reading has one.';

-- For dashboards: the rollup that fits the asked time range, so that a chart of a year reads days and not hours.

CREATE FUNCTION reading_between(since timestamptz, until timestamptz) RETURNS SETOF reading_hourly
LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT * FROM reading_hourly
    WHERE until - since <= INTERVAL '15 days' AND bucket >= since AND bucket < until
    UNION ALL
    SELECT * FROM reading_daily
    WHERE until - since > INTERVAL '15 days' AND bucket >= since AND bucket < until
$$;
COMMENT ON FUNCTION reading_between IS 'Buckets that begin in the range: hours up to 15 days, days beyond.';

CREATE FUNCTION system_metrics_between(since timestamptz, until timestamptz) RETURNS SETOF system_metrics_5m
LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT * FROM system_metrics_5m
    WHERE until - since <= INTERVAL '3 days' AND bucket >= since AND bucket < until
    UNION ALL
    SELECT * FROM system_metrics_hourly
    WHERE until - since > INTERVAL '3 days' AND bucket >= since AND bucket < until
$$;
COMMENT ON FUNCTION system_metrics_between IS 'Buckets that begin in the range: five minutes up to 3 days, hours beyond.';

-- How the hub is doing: what dashboards, alerts and people with read-only access ask.

CREATE VIEW reading_freshness AS
SELECT
    (SELECT max(last_at) FROM reading_daily) AS newest_reading,
    (SELECT max(load_at) FROM reading_days WHERE loaded > 0 AND day >= (load_at AT TIME ZONE 'UTC')::date - 2)
        AS newest_load;
COMMENT ON VIEW reading_freshness IS 'How fresh the readings are; one row.';
COMMENT ON COLUMN reading_freshness.newest_reading IS 'Time of the newest reading; NULL where there is none.';
COMMENT ON COLUMN reading_freshness.newest_load IS
    'When readings were last loaded for a day that was recent then (two days back at most): a backfill of old days does not count.';

CREATE VIEW reading_reject_share AS
SELECT read, rejected, rejected::double precision / nullif(read, 0) AS share
FROM (
    SELECT coalesce(days.read, 0) + undated.count AS read, coalesce(days.rejected, 0) + undated.count AS rejected
    FROM (
        SELECT sum(read)::bigint AS read, sum(rejected)::bigint AS rejected
        FROM reading_days WHERE load_at >= now() - INTERVAL '7 days'
    ) AS days
    CROSS JOIN (
        SELECT count(*) AS count
        FROM reading_rejects
        WHERE rejected_at >= now() - INTERVAL '7 days'
            AND NOT EXISTS (SELECT FROM reading_days WHERE day = event_day AND load_at >= now() - INTERVAL '7 days')
    ) AS undated
) AS documents;
COMMENT ON VIEW reading_reject_share IS 'Dead letters among what was loaded in the last 7 days; one row.';
COMMENT ON COLUMN reading_reject_share.read IS 'Documents of the days loaded, and dead letters of no such day.';
COMMENT ON COLUMN reading_reject_share.rejected IS 'Dead letters among them.';
COMMENT ON COLUMN reading_reject_share.share IS '0 to 1; NULL where nothing was loaded.';

-- A continuous aggregate's watermark stands in TimescaleDB's catalog, that of a table in its newest bucket. The
-- catalog is named in a string, since it does not exist on plain PostgreSQL.
CREATE FUNCTION rollup_watermark(rollup text, bucket interval) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    watermark timestamptz;
BEGIN
    IF to_regclass('_timescaledb_catalog.continuous_agg') IS NOT NULL THEN
        EXECUTE 'SELECT _timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(mat_hypertable_id))'
            ' FROM _timescaledb_catalog.continuous_agg WHERE user_view_name = $1 AND user_view_schema = $2'
            INTO watermark USING rollup, current_schema;
        IF watermark IS NOT NULL THEN
            -- One that was never refreshed has the least of all times, which is not -infinity: 4714 BC.
            RETURN CASE WHEN watermark >= '0001-01-02' THEN watermark END;
        END IF;
    END IF;
    EXECUTE format('SELECT max(bucket) FROM %I', rollup) INTO watermark;
    RETURN watermark + bucket;
END
$$;
COMMENT ON FUNCTION rollup_watermark IS 'End of the newest bucket that is materialized; NULL where none is.';

-- Every column of every branch has its name: without one PostgreSQL words the view differently after a restore,
-- and the comparison with the manifest sees a difference.
CREATE VIEW rollup_progress AS
SELECT
    progress.rollup,
    progress.watermark,
    CASE WHEN progress.watermark IS NOT NULL
        THEN coalesce(extract(epoch FROM progress.newest - progress.watermark), 0)::double precision END AS lag_seconds,
    (SELECT count(DISTINCT dirty.bucket) FROM rollup_dirty AS dirty WHERE dirty.rollup = progress.rollup) AS waiting,
    state.refreshed_at
FROM (
    SELECT
        'reading_hourly' AS rollup,
        watermark,
        (SELECT max(event_timestamp) FROM reading_analytics WHERE event_timestamp >= watermark) AS newest
    FROM rollup_watermark('reading_hourly', '1 hour') AS watermark
    UNION ALL
    SELECT 'reading_daily' AS rollup, watermark, (SELECT max(bucket) FROM reading_hourly WHERE bucket >= watermark) AS newest
    FROM rollup_watermark('reading_daily', '1 day') AS watermark
    UNION ALL
    SELECT 'system_metrics_5m' AS rollup, watermark, (SELECT max(time) FROM system_metrics WHERE time >= watermark) AS newest
    FROM rollup_watermark('system_metrics_5m', '5 minutes') AS watermark
    UNION ALL
    SELECT 'system_metrics_hourly' AS rollup, watermark, (SELECT max(bucket) FROM system_metrics_5m WHERE bucket >= watermark) AS newest
    FROM rollup_watermark('system_metrics_hourly', '1 hour') AS watermark
) AS progress
LEFT JOIN rollup_state AS state USING (rollup);
COMMENT ON VIEW rollup_progress IS 'How far each rollup is, as `hub rollups status` has it.';
COMMENT ON COLUMN rollup_progress.watermark IS 'Everything before it is materialized; NULL in an empty rollup.';
COMMENT ON COLUMN rollup_progress.lag_seconds IS 'How far the source is ahead of the watermark.';
COMMENT ON COLUMN rollup_progress.waiting IS 'Buckets that wait for a refresh.';
COMMENT ON COLUMN rollup_progress.refreshed_at IS 'When buckets were last recomputed.';

CREATE VIEW backup_verified AS
SELECT backup, left(backup, 15)::timestamp AT TIME ZONE 'UTC' AS taken_at, finished_at AS verified_at, bytes
FROM (
    SELECT DISTINCT ON (backup) backup, state, finished_at, bytes
    FROM backup_runs WHERE kind = 'verify' AND finished_at IS NOT NULL AND backup IS NOT NULL
    ORDER BY backup, id DESC
) AS newest
WHERE state = 'done';
COMMENT ON VIEW backup_verified IS 'Backups whose newest verification found every byte as it was written.';
COMMENT ON COLUMN backup_verified.backup IS 'Its name; retention may have removed it since.';
COMMENT ON COLUMN backup_verified.taken_at IS 'When it was taken: its name.';
COMMENT ON COLUMN backup_verified.verified_at IS 'When it was last read back.';
COMMENT ON COLUMN backup_verified.bytes IS 'Its size.';

CREATE VIEW system_disks AS
SELECT
    newest.host,
    mount.key AS mount,
    newest.time,
    (mount.value->>'total')::double precision AS total,
    (mount.value->>'used')::double precision AS used,
    (mount.value->>'percent')::double precision AS percent
FROM (
    SELECT DISTINCT ON (host) host, time, payload
    FROM system_metrics WHERE metric_type = 'disk' AND time >= now() - INTERVAL '1 hour'
    ORDER BY host, time DESC
) AS newest
CROSS JOIN LATERAL jsonb_each(newest.payload->'mounts') AS mount;
COMMENT ON VIEW system_disks IS 'The newest state of each mount of the hosts that sent a sample within the hour.';
COMMENT ON COLUMN system_disks.mount IS 'Where the file system is mounted.';
COMMENT ON COLUMN system_disks.time IS 'Time of the sample.';
COMMENT ON COLUMN system_disks.total IS 'Bytes.';
COMMENT ON COLUMN system_disks.used IS 'Bytes.';
COMMENT ON COLUMN system_disks.percent IS 'Of what ordinary users can have, as df has it.';
