-- A view is one SELECT over one dataset. Weir keeps its answer up to date, exact to the last event.
SELECT time_bucket(INTERVAL '1 minute', ts) AS minute, site, -- bucket and dimensions
       count(*) AS visits_total,                             -- measures
       sum(paid) AS revenue,
       approx_count_distinct(user_id) AS visitors,
       approx_quantile(seconds, 0.95) AS p95_seconds,
       revenue / visits_total AS revenue_per_visit
FROM visits
GROUP BY ALL
