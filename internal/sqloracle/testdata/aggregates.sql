SELECT count(*) FROM customers

SELECT count(*) FROM customers WHERE customer_id = 7

SELECT count(*), count(name), count(DISTINCT name), count(DISTINCT tier) FROM customers

SELECT sum(qty), avg(qty), min(qty), max(qty) FROM orders

SELECT sum(price), avg(price), min(price), max(price) FROM orders

SELECT sum(score), avg(score), min(score), max(score) FROM customers

SELECT sum(balance), avg(balance) FROM customers WHERE customer_id IN (1, 2, 3)

SELECT sum(cents), avg(cents) FROM accounts

SELECT min(name), max(name) FROM customers

SELECT min(label), max(label) FROM readings

SELECT min(born), max(born), min(seen), max(seen) FROM customers

SELECT min(tier), max(tier) FROM customers

SELECT bool_and(active), bool_or(active), every(active IS NOT NULL) FROM customers

SELECT bit_and(qty), bit_or(qty) FROM orders

SELECT stddev(qty), variance(qty), stddev_pop(price), var_samp(price) FROM orders

SELECT stddev(score), var_pop(score) FROM customers

SELECT corr(score, customer_id), regr_slope(score, customer_id) FROM customers

SELECT array_agg(customer_id ORDER BY customer_id) FROM customers

SELECT array_agg(name ORDER BY name, customer_id) FROM customers

SELECT array_agg(name ORDER BY customer_id DESC) FROM customers

SELECT string_agg(name, ',' ORDER BY name) FROM customers

SELECT string_agg(name, ',' ORDER BY customer_id) FROM customers

SELECT string_agg(DISTINCT name, ',' ORDER BY name) FROM customers

SELECT json_agg(customer_id ORDER BY customer_id), jsonb_agg(tier ORDER BY customer_id) FROM customers

SELECT jsonb_object_agg(customer_id, name ORDER BY customer_id) FROM customers

SELECT sum(DISTINCT qty), avg(DISTINCT qty) FROM orders

SELECT count(*) FILTER (WHERE paid), count(*) FILTER (WHERE NOT paid), sum(qty) FILTER (WHERE tier = 'gold') FROM orders

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY score) FROM customers

SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY qty) FROM orders

SELECT mode() WITHIN GROUP (ORDER BY tier) FROM orders

SELECT sum(qty * price) AS total FROM orders

SELECT sum(qty) + 1, -min(qty), max(qty) - min(qty) AS spread FROM orders

SELECT round(avg(price), 2) FROM orders

SELECT coalesce(sum(qty), 0) FROM orders WHERE customer_id > 1000

SELECT sum(qty), count(*), max(item), array_agg(id) FROM orders WHERE false

SELECT count(*) > 10 AS many FROM customers

SELECT sum(weight), avg(amount) FROM order_lines WHERE customer_id = 8

SELECT count(*) FROM customers HAVING count(*) > 5

SELECT count(*) FROM customers HAVING count(*) > 500

SELECT 1 FROM customers HAVING true

SELECT count(*), sum(n) FROM notes

SELECT count(*) FROM readings WHERE device < 10

SELECT avg(value), count(*) FROM readings WHERE device BETWEEN 5 AND 25

SELECT max(at) FROM readings WHERE ok

SELECT count(*) FROM stock

SELECT count((tier, active)) FROM customers

SELECT count(DISTINCT (tier, active)) FROM customers

SELECT max(upper(name)), min(lower(name)) FROM customers

SELECT string_agg(item, ',' ORDER BY customer_id, id) FILTER (WHERE paid) FROM orders

SELECT array_agg(DISTINCT item ORDER BY item) FILTER (WHERE qty > 2) FROM orders

SELECT generate_series(1, 3), count(*) FROM customers

SELECT count(*) FROM customers TABLESAMPLE system (100)

SELECT count(*) FROM customers TABLESAMPLE bernoulli (100) REPEATABLE (3)

SELECT max(customer_id) FROM customers WHERE score > 0 OR true

SELECT avg(placed - '2024-01-01'::timestamptz) FROM orders

SELECT sum(amount), sum(weight) FROM order_lines WHERE amount IS NULL

SELECT count(DISTINCT (tier, qty)) FROM orders

SELECT count(DISTINCT tier) FILTER (WHERE paid), sum(DISTINCT qty) FROM orders

SELECT min(tags), max(born) FROM customers

SELECT bool_and(paid), bool_or(paid) FROM orders WHERE false

SELECT max(label), min(label) FROM readings

SELECT CASE WHEN count(*) > 3 THEN max(name COLLATE "C") ELSE 'few' END FROM customers

SELECT upper(max(item COLLATE "C")) || count(*)::text FROM orders

SELECT count(*) FROM orders WHERE tableoid = 'orders'::regclass

-- refused: numbers of tables
SELECT count(DISTINCT tableoid) FROM orders

SELECT count(o) FROM orders o

SELECT sum(qty)::text || '!' FROM orders

SELECT sum('NaN'::float8), max('-0'::float8), min(-0.0::float8) FROM orders

SELECT count(*) FROM customers LIMIT 1 OFFSET 1

SELECT count(*) FROM customers LIMIT 0

SELECT count(*), 'now'::text FROM customers

SELECT array_agg(x ORDER BY x) FROM customers, generate_series(1, 3) x

SELECT count(DISTINCT x + customer_id), sum(x) FROM customers, generate_series(1, 3) AS x

SELECT count(DISTINCT x), sum(x) FROM orders, unnest(ARRAY[1, 2, qty]) AS x

SELECT string_agg(x, ',' ORDER BY x, customer_id) FROM customers, string_to_table(name, 'a') x

SELECT avg(qty), avg(price), avg(weight), avg(at - '2024-05-01 00:00:00+00') FROM orders JOIN order_lines USING (customer_id), (SELECT now() AS at WHERE false) n

SELECT avg(at - '2024-05-01 00:00:00+00'), avg(value) FILTER (WHERE ok), avg(n::smallint) FROM readings

SELECT avg(qty) FROM orders WHERE false

SELECT avg(qty) FROM orders HAVING avg(qty) > 1000

SELECT tier, avg(qty) FROM orders GROUP BY tier HAVING avg(price) > 20 OR tier IS NULL
