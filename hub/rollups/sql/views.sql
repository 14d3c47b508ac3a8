-- The questions that people ask, for Grafana and the API. Days, hours and weekdays are UTC.

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
FROM reading_hourly
WHERE bucket >= date_trunc('day', now(), 'UTC') - INTERVAL '91 days'
GROUP BY 1, 2;
COMMENT ON VIEW reading_weekday_hours IS 'When reading is done: the last 13 weeks by weekday and hour.';
COMMENT ON COLUMN reading_weekday_hours.weekday IS '1 for Monday to 7 for Sunday.';
COMMENT ON COLUMN reading_weekday_hours.hour IS '0 to 23.';
COMMENT ON COLUMN reading_weekday_hours.events IS 'Number of readings.';
COMMENT ON COLUMN reading_weekday_hours.value_sum IS 'Sum of the values; NULL where no reading has one.';
