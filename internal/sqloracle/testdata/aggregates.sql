-- refused: no key
SELECT count(*) FROM customers

SELECT count(*) FROM customers WHERE customer_id = 7

-- refused: no key
SELECT count(*), count(name), count(DISTINCT name), count(DISTINCT tier) FROM customers

-- refused: no key
SELECT sum(qty), avg(qty), min(qty), max(qty) FROM orders

-- refused: no key
SELECT sum(price), avg(price), min(price), max(price) FROM orders

-- refused: no key
SELECT sum(score), avg(score), min(score), max(score) FROM customers

-- refused: several keys
SELECT sum(balance), avg(balance) FROM customers WHERE customer_id IN (1, 2, 3)

-- refused: no key
SELECT sum(cents), avg(cents) FROM accounts

-- refused: no key
SELECT min(name), max(name) FROM customers

-- refused: no key
SELECT min(label), max(label) FROM readings

-- refused: no key
SELECT min(born), max(born), min(seen), max(seen) FROM customers

-- refused: no key
SELECT min(tier), max(tier) FROM customers

-- refused: no key
SELECT bool_and(active), bool_or(active), every(active IS NOT NULL) FROM customers

-- refused: no key
SELECT bit_and(qty), bit_or(qty) FROM orders

-- refused: no key
SELECT stddev(qty), variance(qty), stddev_pop(price), var_samp(price) FROM orders

-- refused: no key
SELECT stddev(score), var_pop(score) FROM customers

-- refused: no key
SELECT corr(score, customer_id), regr_slope(score, customer_id) FROM customers

-- refused: no key
SELECT array_agg(customer_id ORDER BY customer_id) FROM customers

-- refused: no key
SELECT array_agg(name ORDER BY name, customer_id) FROM customers

-- refused: no key
SELECT array_agg(name ORDER BY customer_id DESC) FROM customers

-- refused: no key
SELECT string_agg(name, ',' ORDER BY name) FROM customers

-- refused: no key
SELECT string_agg(name, ',' ORDER BY customer_id) FROM customers

-- refused: no key
SELECT string_agg(DISTINCT name, ',' ORDER BY name) FROM customers

-- refused: no key
SELECT json_agg(customer_id ORDER BY customer_id), jsonb_agg(tier ORDER BY customer_id) FROM customers

-- refused: no key
SELECT jsonb_object_agg(customer_id, name ORDER BY customer_id) FROM customers

-- refused: no key
SELECT sum(DISTINCT qty), avg(DISTINCT qty) FROM orders

-- refused: no key
SELECT count(*) FILTER (WHERE paid), count(*) FILTER (WHERE NOT paid), sum(qty) FILTER (WHERE tier = 'gold') FROM orders

-- refused: no key
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY score) FROM customers

-- refused: no key
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY qty) FROM orders

-- refused: no key
SELECT mode() WITHIN GROUP (ORDER BY tier) FROM orders

-- refused: no key
SELECT sum(qty * price) AS total FROM orders

-- refused: no key
SELECT sum(qty) + 1, -min(qty), max(qty) - min(qty) AS spread FROM orders

-- refused: no key
SELECT round(avg(price), 2) FROM orders

-- refused: no key
SELECT coalesce(sum(qty), 0) FROM orders WHERE customer_id > 1000

-- refused: no key
SELECT sum(qty), count(*), max(item), array_agg(id) FROM orders WHERE false

-- refused: no key
SELECT count(*) > 10 AS many FROM customers

SELECT sum(weight), avg(amount) FROM order_lines WHERE customer_id = 8

-- refused: no key
SELECT count(*) FROM customers HAVING count(*) > 5

-- refused: no key
SELECT count(*) FROM customers HAVING count(*) > 500

-- refused: no key
SELECT 1 FROM customers HAVING true

SELECT count(*), sum(n) FROM notes

-- refused: no key
SELECT count(*) FROM readings WHERE device < 10

-- refused: several keys
SELECT avg(value), count(*) FROM readings WHERE device BETWEEN 5 AND 25

-- refused: no key
SELECT max(at) FROM readings WHERE ok

-- refused: no key
SELECT count(*) FROM stock

-- refused: no key
SELECT count((tier, active)) FROM customers

-- refused: no key
SELECT count(DISTINCT (tier, active)) FROM customers

-- refused: no key
SELECT max(upper(name)), min(lower(name)) FROM customers
