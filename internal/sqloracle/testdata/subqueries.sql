SELECT name FROM customers c WHERE customer_id = 9 AND EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.customer_id AND o.paid)

SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.customer_id AND o.paid)

SELECT name FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.customer_id)

SELECT customer_id FROM customers WHERE customer_id IN (SELECT customer_id FROM orders WHERE qty > 5)

SELECT customer_id FROM customers WHERE customer_id NOT IN (SELECT customer_id FROM orders)

SELECT customer_id FROM customers WHERE customer_id = 9 AND customer_id IN (SELECT customer_id FROM orders WHERE customer_id = 9)

SELECT name, (SELECT count(*) FROM orders o WHERE o.customer_id = c.customer_id) AS n FROM customers c WHERE customer_id = 9

SELECT customer_id, (SELECT count(*) FROM orders o WHERE o.customer_id = c.customer_id) AS n FROM customers c

SELECT customer_id, (SELECT max(price) FROM orders o WHERE o.customer_id = c.customer_id) AS m FROM customers c ORDER BY customer_id

SELECT * FROM (SELECT customer_id, name FROM customers WHERE customer_id = 9) x

SELECT * FROM (SELECT customer_id, name FROM customers) x WHERE customer_id = 9

SELECT * FROM (SELECT customer_id, name FROM customers) x WHERE x.name LIKE 'b%'

SELECT count(*) FROM (SELECT DISTINCT tier FROM customers) x

SELECT count(*) FROM (SELECT customer_id FROM customers LIMIT 5) x

SELECT max(n) FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id) x

SELECT tier, max(n) FROM (SELECT tier, customer_id, count(*) AS n FROM orders GROUP BY tier, customer_id) x GROUP BY tier

-- refused: not joined by the key
SELECT name FROM customers WHERE balance > (SELECT avg(balance) FROM customers)

SELECT name FROM customers WHERE customer_id = 9 AND balance > (SELECT avg(balance) FROM customers WHERE customer_id = 9)

-- refused: not joined by the key
SELECT name FROM customers WHERE score > ALL (SELECT score FROM customers WHERE tier = 'gold' AND score IS NOT NULL)

-- refused: not joined by the key
SELECT name FROM customers WHERE customer_id = (SELECT max(customer_id) FROM orders)

SELECT name FROM customers WHERE tier IN (SELECT tier FROM orders WHERE customer_id = 9) AND customer_id = 9

SELECT ARRAY(SELECT id FROM orders WHERE customer_id = 9 ORDER BY id) AS ids

SELECT ARRAY(SELECT customer_id FROM customers ORDER BY 1) AS ids

SELECT (SELECT name FROM customers WHERE customer_id = 9) AS a, (SELECT name FROM customers WHERE customer_id = 9) AS b

-- refused: keys of several shards
SELECT (SELECT name FROM customers WHERE customer_id = 1) AS a, (SELECT name FROM customers WHERE customer_id = 2) AS b

SELECT EXISTS (SELECT 1 FROM orders WHERE customer_id = 9)

SELECT EXISTS (SELECT 1 FROM orders WHERE qty = 8)

-- refused: not joined by the key
SELECT x FROM (VALUES (7), (8), (999)) v (x) WHERE NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = v.x) ORDER BY 1

-- refused: not joined by the key
SELECT x FROM (VALUES (7), (8), (999)) v (x) WHERE x NOT IN (SELECT customer_id FROM customers) ORDER BY 1

-- refused: not joined by the key
SELECT x, (SELECT count(*) FROM customers) FROM (VALUES (1), (2)) v (x)

SELECT c.customer_id, x.item FROM customers c, LATERAL (SELECT item FROM orders o WHERE o.customer_id = c.customer_id ORDER BY id LIMIT 1) x ORDER BY 1, 2

SELECT c.customer_id, x.n FROM customers c CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id = c.customer_id) x ORDER BY 1

-- refused: not joined by the key
SELECT c.customer_id, x.n FROM customers c LEFT JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id <= c.customer_id) x ON true ORDER BY 1

SELECT (SELECT count(*) FROM orders) AS n

SELECT (SELECT max(id) FROM orders WHERE customer_id = 7), 5

SELECT customer_id, (SELECT count(*) FROM orders o WHERE o.customer_id = c.customer_id) FROM customers c ORDER BY 1

SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT o.customer_id FROM orders o WHERE o.qty > 3) ORDER BY 1

SELECT c.customer_id FROM customers c WHERE c.customer_id NOT IN (SELECT o.customer_id FROM orders o WHERE o.qty > 3) ORDER BY 1

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id > ALL (SELECT o.customer_id FROM orders o WHERE o.qty > 7) ORDER BY 1

SELECT c.customer_id FROM customers c WHERE c.customer_id = ANY (SELECT o.customer_id FROM orders o) ORDER BY 1

SELECT c.customer_id FROM customers c WHERE (c.customer_id, 1) IN (SELECT o.customer_id, o.id FROM orders o) ORDER BY 1

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT max(o.customer_id) FROM orders o) ORDER BY 1

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT o.customer_id FROM orders o ORDER BY o.qty LIMIT 5) ORDER BY 1

SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT o.customer_id FROM orders o GROUP BY o.customer_id HAVING count(*) > 2) ORDER BY 1

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT o.customer_id + 0 FROM orders o) ORDER BY 1

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT DISTINCT ON (o.tier) o.customer_id FROM orders o ORDER BY o.tier, o.customer_id) ORDER BY 1

SELECT customer_id FROM (SELECT id AS customer_id FROM orders) x WHERE customer_id = 2

SELECT customer_id, count(*) FROM (SELECT id AS customer_id FROM orders) x GROUP BY customer_id ORDER BY 1

SELECT customer_id, n FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id) x WHERE customer_id IN (7, 9, 13) ORDER BY 1

SELECT sum(n) FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id ORDER BY 2 DESC LIMIT 3) x

SELECT max(n) FROM (SELECT tier, count(*) AS n FROM orders GROUP BY tier) x

SELECT count(*) FROM (SELECT DISTINCT tier FROM orders) x

SELECT count(*) FROM (SELECT * FROM customers LIMIT 7) x

SELECT count(*) FROM (SELECT * FROM orders FETCH FIRST 7 ROWS ONLY) x WHERE true

SELECT json_agg(c ORDER BY customer_id) FROM (SELECT customer_id, tier FROM customers) c

SELECT v FROM (SELECT CASE WHEN id = 1 THEN 'NaN'::float8 WHEN id = 2 THEN '-Infinity' ELSE -0.0 END AS v, customer_id FROM orders) x ORDER BY v DESC, customer_id LIMIT 12

SELECT v FROM (SELECT CASE WHEN id = 1 THEN 'NaN'::numeric WHEN id = 2 THEN '-Infinity' ELSE 0.10 END AS v, customer_id FROM orders) x ORDER BY v DESC, customer_id LIMIT 12

SELECT DISTINCT v FROM (SELECT CASE WHEN id = 1 THEN 1.0 ELSE 1.00 END AS v FROM orders) x

SELECT EXISTS (SELECT FROM customers WHERE tier = 'gold')

SELECT 1 AS one WHERE NOT EXISTS (SELECT FROM orders WHERE qty > 1000)

SELECT count(*) FROM (SELECT FROM customers LIMIT 5) s

SELECT count(*) FROM (SELECT FROM customers WHERE false LIMIT 5) s

SELECT count(*) FROM (SELECT FROM orders WHERE qty > 2 OFFSET 1) s

SELECT count(*) FROM (SELECT FROM customers ORDER BY name LIMIT 3) s

SELECT FROM customers ORDER BY name LIMIT 3
