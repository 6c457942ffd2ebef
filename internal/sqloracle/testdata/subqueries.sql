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
