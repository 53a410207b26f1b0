SELECT time_bucket(INTERVAL '1 hour', departed) AS hour, origin,
       count(*) AS departures,
       sum(delay) AS total_delay,
       avg(delay) AS mean_delay,
       max(delay) AS max_delay
FROM flights GROUP BY ALL
