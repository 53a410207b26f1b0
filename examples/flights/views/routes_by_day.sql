SELECT time_bucket(INTERVAL '1 day', departed) AS day, origin, destination,
       count(*) AS departures,
       sum(delay) AS total_delay,
       avg(delay) AS mean_delay,
       max(delay) AS max_delay
FROM flights GROUP BY ALL
