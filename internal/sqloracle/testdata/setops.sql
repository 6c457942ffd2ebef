SELECT id FROM orders WHERE customer_id = 9 UNION SELECT order_id FROM order_lines WHERE customer_id = 9

-- refused: keys of several shards
SELECT id FROM orders WHERE customer_id = 1 UNION ALL SELECT id FROM orders WHERE customer_id = 2

SELECT item FROM orders UNION SELECT sku FROM order_lines

SELECT item FROM orders UNION ALL SELECT sku FROM order_lines

SELECT customer_id FROM customers EXCEPT SELECT customer_id FROM orders

SELECT customer_id FROM customers INTERSECT SELECT customer_id FROM orders

SELECT customer_id FROM customers INTERSECT ALL SELECT customer_id FROM orders

SELECT tier FROM customers EXCEPT ALL SELECT tier FROM orders

SELECT customer_id, name FROM customers UNION ALL SELECT customer_id, item FROM orders ORDER BY 1, 2

SELECT customer_id, name FROM customers UNION ALL SELECT customer_id, item FROM orders ORDER BY 1, 2 LIMIT 10

-- refused: set operation
(SELECT customer_id FROM customers ORDER BY 1 LIMIT 3) UNION ALL (SELECT customer_id FROM customers ORDER BY 1 DESC LIMIT 3)

(SELECT id FROM orders WHERE customer_id = 9 ORDER BY 1 LIMIT 1) UNION ALL (SELECT id FROM orders WHERE customer_id = 9 ORDER BY 1 DESC LIMIT 1)

SELECT 1 AS a UNION SELECT 2 ORDER BY a

SELECT body FROM notes UNION ALL SELECT v FROM settings

SELECT device FROM readings WHERE device < 3 UNION SELECT device FROM readings WHERE device > 27

VALUES (1, 'a'), (2, 'b')

-- refused: set operation
SELECT name FROM accounts UNION SELECT region FROM stock

SELECT item FROM orders EXCEPT SELECT sku FROM order_lines ORDER BY 1

SELECT item FROM orders EXCEPT ALL SELECT item FROM orders WHERE paid ORDER BY 1

SELECT tier FROM orders INTERSECT SELECT tier FROM customers ORDER BY 1

SELECT tier FROM orders INTERSECT ALL SELECT tier FROM customers ORDER BY 1

SELECT customer_id FROM orders EXCEPT SELECT customer_id FROM order_lines ORDER BY 1

SELECT customer_id FROM orders INTERSECT ALL SELECT customer_id FROM order_lines ORDER BY 1

-- refused: not joined by the key
SELECT item FROM orders UNION SELECT 'x' ORDER BY 1

-- refused: not joined by the key
SELECT item FROM orders UNION ALL SELECT 'x' ORDER BY 1

-- refused: not joined by the key
SELECT 'x' UNION ALL SELECT item FROM orders ORDER BY 1

-- refused: set operation
SELECT count(*) FROM orders UNION ALL SELECT count(*) FROM customers ORDER BY 1

-- refused: set operation
(SELECT item FROM orders ORDER BY item LIMIT 3) UNION ALL (SELECT sku FROM order_lines ORDER BY sku LIMIT 2) ORDER BY 1

-- refused: not joined by the key
WITH RECURSIVE t AS (SELECT customer_id, 1 AS n FROM customers UNION ALL SELECT customer_id, n + 1 FROM t WHERE n < 2) SELECT count(*), sum(n) FROM t

-- refused: not joined by the key
WITH RECURSIVE t AS (SELECT customer_id AS id FROM customers WHERE customer_id = 1 UNION SELECT c.customer_id FROM t JOIN customers c ON c.customer_id = t.id + 1) SELECT count(*) FROM t

-- refused: not joined by the key
WITH RECURSIVE t AS (SELECT customer_id, id FROM orders WHERE id = 1 UNION SELECT o.customer_id, o.id FROM t JOIN orders o ON o.customer_id = t.customer_id AND o.id = t.id + 1) SELECT count(*), max(id) FROM t

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT o.customer_id FROM orders o UNION SELECT 1) ORDER BY 1

SELECT count(*) FROM (SELECT tier FROM orders UNION SELECT tier FROM customers) x

SELECT count(*) FROM (SELECT customer_id FROM orders EXCEPT SELECT customer_id FROM customers WHERE tier IS NULL) x
