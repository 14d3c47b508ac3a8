-- Totals, by source and by event type, of the buckets that begin in the window. No rows at all: zeros and nulls.
WITH cells AS (
    SELECT source, event_type,
        sum(events)::bigint AS events, sum(value_count)::bigint AS value_count, sum(value_sum) AS value_sum,
        min(value_min) AS value_min, max(value_max) AS value_max, min(first_at) AS first_at, max(last_at) AS last_at
    FROM {rollup}
    WHERE (%(start)s::timestamptz IS NULL OR bucket >= %(start)s)
      AND (%(end)s::timestamptz IS NULL OR bucket < %(end)s)
    GROUP BY source, event_type
),
groups AS (
    SELECT source, event_type, grouping(source) AS no_source, grouping(event_type) AS no_type,
        sum(events)::bigint AS events, sum(value_count)::bigint AS value_count, sum(value_sum) AS value_sum,
        min(value_min) AS value_min, max(value_max) AS value_max, min(first_at) AS first_at, max(last_at) AS last_at
    FROM cells
    GROUP BY GROUPING SETS ((), (source), (event_type))
),
told AS (
    SELECT source, event_type, no_source, no_type, jsonb_build_object(
        'events', coalesce(events, 0), 'value_count', coalesce(value_count, 0), 'value_sum', value_sum,
        'value_min', value_min, 'value_max', value_max, 'value_avg', value_sum / nullif(value_count, 0),
        'first_at', first_at, 'last_at', last_at
    ) AS totals
    FROM groups
)
SELECT jsonb_build_object(
    'totals', (SELECT totals FROM told WHERE no_source = 1 AND no_type = 1),
    'by_source', (SELECT coalesce(jsonb_object_agg(source, totals), '{{}}') FROM told WHERE no_source = 0),
    'by_event_type', (SELECT coalesce(jsonb_object_agg(event_type, totals), '{{}}') FROM told WHERE no_type = 0)
)
