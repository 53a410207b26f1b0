SELECT time_bucket(INTERVAL '1 hour', ts) AS hour, campaign,
       count(*) FILTER (WHERE action = 'shown') AS shown,
       count(*) FILTER (WHERE action = 'redeemed') AS redeemed,
       sum(discount) FILTER (WHERE action = 'redeemed') AS discount_total,
       bool_or(first_time) AS reached_new_customers,
       redeemed / shown AS redemption_rate
FROM promotions
WHERE campaign IS NOT NULL
GROUP BY ALL
