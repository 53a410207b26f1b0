-- Revenue by minute and country; only paid orders make revenue.
SELECT time_bucket(INTERVAL '1 minute', ts) AS minute, country,
       count(*) AS order_count,
       sum(amount) FILTER (WHERE status = 'paid') AS revenue,
       count(*) FILTER (WHERE status = 'paid') AS paid_orders,
       max(amount) AS largest,
       avg(items) AS mean_items,
       revenue / paid_orders AS revenue_per_order
FROM orders GROUP BY ALL
