SELECT time_bucket(INTERVAL '1 minute', ts) AS minute, page, device,
       count(*) AS views,
       approx_count_distinct(user_id) AS visitors,
       avg(load_ms) AS mean_load_ms,
       stddev_samp(load_ms) AS load_ms_stddev,
       max(load_ms) AS slowest_load_ms
FROM page_views GROUP BY ALL
