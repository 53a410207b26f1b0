-- No bucket: one row per article and warehouse, over all time.
SELECT sku, warehouse,
       sum(quantity) AS net_quantity,
       count(*) AS movements,
       first(level) AS first_level,
       last(level) AS current_level,
       max(ts) AS last_moved
FROM inventory GROUP BY ALL
