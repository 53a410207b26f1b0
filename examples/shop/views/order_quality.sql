-- How orders go: buyers, response times, and what they ended as.
SELECT time_bucket(INTERVAL '1 hour', ts) AS hour, status,
       count(*) AS order_count,
       approx_count_distinct(user_id) AS buyers,
       approx_quantile(latency_ms, 0.95) AS p95_latency_ms,
       min(latency_ms) AS fastest_ms,
       last(country) AS last_country
FROM orders GROUP BY ALL
