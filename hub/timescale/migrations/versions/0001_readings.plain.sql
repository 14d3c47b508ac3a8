-- Readings come in the order of time, so that a block range index finds a day at next to no cost for the load.
CREATE INDEX reading_analytics_time ON reading_analytics
    USING brin (event_timestamp timestamptz_minmax_multi_ops) WITH (pages_per_range = 16, autosummarize = on);
