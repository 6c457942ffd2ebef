SELECT id FROM orders WHERE customer_id = 9 UNION SELECT order_id FROM order_lines WHERE customer_id = 9

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

SELECT item FROM orders UNION SELECT 'x' ORDER BY 1

SELECT item FROM orders UNION ALL SELECT 'x' ORDER BY 1

SELECT 'x' UNION ALL SELECT item FROM orders ORDER BY 1

-- refused: set operation
SELECT count(*) FROM orders UNION ALL SELECT count(*) FROM customers ORDER BY 1

-- refused: set operation
(SELECT item FROM orders ORDER BY item LIMIT 3) UNION ALL (SELECT sku FROM order_lines ORDER BY sku LIMIT 2) ORDER BY 1

WITH RECURSIVE t AS (SELECT customer_id, 1 AS n FROM customers UNION ALL SELECT customer_id, n + 1 FROM t WHERE n < 2) SELECT count(*), sum(n) FROM t

-- refused: not joined by the key
WITH RECURSIVE t AS (SELECT customer_id AS id FROM customers WHERE customer_id = 1 UNION SELECT c.customer_id FROM t JOIN customers c ON c.customer_id = t.id + 1) SELECT count(*) FROM t

-- refused: not joined by the key
WITH RECURSIVE t AS (SELECT customer_id, id FROM orders WHERE id = 1 UNION SELECT o.customer_id, o.id FROM t JOIN orders o ON o.customer_id = t.customer_id AND o.id = t.id + 1) SELECT count(*), max(id) FROM t

-- refused: not joined by the key
SELECT c.customer_id FROM customers c WHERE c.customer_id IN (SELECT o.customer_id FROM orders o UNION SELECT 1) ORDER BY 1

SELECT count(*) FROM (SELECT tier FROM orders UNION SELECT tier FROM customers) x

SELECT count(*) FROM (SELECT customer_id FROM orders EXCEPT SELECT customer_id FROM customers WHERE tier IS NULL) x

SELECT customer_id, name FROM customers WHERE customer_id = 7 UNION ALL SELECT customer_id, name FROM customers WHERE customer_id = 8

SELECT customer_id, name FROM customers WHERE customer_id = 7 UNION ALL SELECT customer_id, name FROM customers WHERE customer_id = 8 UNION ALL SELECT customer_id, item FROM orders WHERE customer_id = 9 ORDER BY 1, 2

SELECT tier FROM customers WHERE customer_id = 7 UNION SELECT tier FROM customers WHERE customer_id = 8

SELECT tier FROM customers WHERE customer_id = 7 UNION ALL SELECT tier FROM customers WHERE customer_id = 7

SELECT item FROM orders WHERE customer_id = 8 EXCEPT SELECT item FROM orders WHERE customer_id = 9

SELECT item FROM orders WHERE customer_id = 8 INTERSECT SELECT item FROM orders WHERE customer_id = 9

SELECT customer_id FROM orders WHERE customer_id = 8 EXCEPT SELECT customer_id FROM orders WHERE customer_id = 9

-- $1 bigint 7
-- $2 bigint 8
SELECT customer_id, name FROM customers WHERE customer_id = $1 UNION ALL SELECT customer_id, name FROM customers WHERE customer_id = $2 ORDER BY 1

-- $1 bigint 7
-- $2 bigint 7
SELECT customer_id, name FROM customers WHERE customer_id = $1 UNION ALL SELECT customer_id, name FROM customers WHERE customer_id = $2 ORDER BY 1

-- refused: keys of several shards
SELECT count(*) FROM orders WHERE customer_id = 8 UNION ALL SELECT count(*) FROM orders WHERE customer_id = 9

SELECT zoom, name, n FROM tiles WHERE (zoom, name) = (1, 'a') UNION ALL SELECT zoom, name, n FROM tiles WHERE (zoom, name) = (2, 'B')

-- refused: keys of several shards
(SELECT item FROM orders WHERE customer_id = 8 ORDER BY id LIMIT 1) UNION ALL (SELECT item FROM orders WHERE customer_id = 9 ORDER BY id LIMIT 1)

-- refused: tables of two keyspaces
SELECT name FROM customers WHERE customer_id = 7 UNION ALL SELECT name FROM accounts WHERE name = 'ann'

SELECT item FROM orders UNION ALL SELECT 'x' UNION ALL SELECT NULL ORDER BY 1

SELECT customer_id FROM customers UNION SELECT 1 ORDER BY 1

SELECT customer_id FROM customers UNION ALL VALUES (500), (501)

SELECT customer_id FROM customers EXCEPT SELECT 7 ORDER BY 1

SELECT 7 INTERSECT SELECT customer_id FROM customers

SELECT 'total', count(*) FROM orders UNION ALL SELECT 'none', 0

SELECT qty FROM orders UNION ALL SELECT 1.5 ORDER BY 1 LIMIT 7

(SELECT item FROM orders ORDER BY item, customer_id, id LIMIT 3) UNION ALL SELECT 'x'

SELECT count(*), max(item) FROM (SELECT item FROM orders UNION ALL SELECT 'zzz') s

WITH w AS (SELECT qty AS q FROM orders UNION ALL SELECT 100) SELECT sum(q) FROM w

SELECT item FROM orders UNION ALL SELECT sku FROM order_lines UNION ALL SELECT 'x' ORDER BY 1

-- $1 text x
SELECT item FROM orders UNION ALL SELECT $1 ORDER BY 1

WITH orders AS (SELECT customer_id FROM customers) SELECT customer_id FROM orders UNION ALL SELECT 1 ORDER BY 1

WITH orders AS (SELECT customer_id, name FROM customers) SELECT count(*), max(s.name) FROM (SELECT customer_id, name FROM orders LIMIT 100) s

SELECT item FROM orders UNION ALL SELECT g::text FROM generate_series(1, 3) g ORDER BY 1

SELECT item FROM orders UNION SELECT item FROM items

SELECT item FROM orders WHERE customer_id IN (7, 8) UNION ALL SELECT item FROM items ORDER BY 1

SELECT item FROM orders WHERE customer_id = 7 UNION SELECT item FROM items ORDER BY 1

SELECT item FROM orders WHERE customer_id = 7 UNION ALL SELECT item FROM orders WHERE customer_id = 8 UNION ALL SELECT item FROM items ORDER BY 1

-- $1 bigint 7
-- $2 bigint 9
SELECT item FROM orders WHERE customer_id = $1 UNION SELECT item FROM items WHERE grams > 30 UNION SELECT item FROM orders WHERE customer_id = $2 ORDER BY 1

-- $1 text pen
SELECT item FROM items WHERE item <> $1 UNION ALL SELECT item FROM orders WHERE item = $1

SELECT item FROM items EXCEPT SELECT item FROM orders ORDER BY 1

SELECT item FROM orders EXCEPT SELECT item FROM items

SELECT item FROM orders EXCEPT ALL SELECT item FROM items WHERE grams > 30

SELECT item FROM items INTERSECT SELECT item FROM orders ORDER BY 1 DESC LIMIT 2

SELECT item, grams FROM items UNION ALL SELECT item, count(*) FROM orders GROUP BY item ORDER BY 1, 2

SELECT 'all' AS what, count(*) FROM orders UNION ALL SELECT i.kind, sum(i.grams) FROM items i GROUP BY i.kind ORDER BY 1, 2

SELECT name FROM customers WHERE customer_id = 7 UNION SELECT 'nobody' UNION SELECT name FROM customers WHERE customer_id = 8 ORDER BY 1

SELECT 0 AS n UNION ALL SELECT customer_id FROM customers WHERE customer_id < 4 UNION ALL SELECT 100 UNION ALL SELECT id FROM orders WHERE customer_id = 4 ORDER BY 1

SELECT NULL UNION ALL SELECT name FROM customers WHERE customer_id = 3 UNION ALL SELECT 'x' UNION ALL SELECT name FROM customers WHERE customer_id = 4 ORDER BY 1

-- refused: not joined by the key
SELECT tier FROM tiers UNION SELECT tier FROM customers UNION ALL SELECT tier FROM orders ORDER BY 1

SELECT tier FROM customers WHERE score > 0 UNION ALL SELECT tier FROM tiers UNION ALL SELECT tier FROM orders WHERE paid ORDER BY 1

-- refused: not joined by the key
SELECT count(*) FROM (SELECT item FROM orders UNION SELECT item FROM items UNION SELECT sku FROM order_lines) s

-- refused: not joined by the key
SELECT 'x' UNION SELECT (SELECT max(o.id)::text FROM orders o WHERE o.item = i.item) FROM items i

WITH w AS (SELECT item, sum(qty) AS q FROM orders GROUP BY item) SELECT w.item, w.q, i.grams FROM w JOIN items i USING (item) ORDER BY 1

SELECT s.n, i.item FROM (SELECT count(*) AS n FROM orders) s, items i ORDER BY 2

BEGIN;
INSERT INTO items (item, grams) VALUES ('glue', 7);
DELETE FROM orders WHERE customer_id IN (7, 8);
SELECT item FROM orders UNION SELECT item FROM items ORDER BY 1;
ROLLBACK

SELECT item FROM orders EXCEPT SELECT sku FROM order_lines EXCEPT SELECT name FROM customers

SELECT item FROM orders EXCEPT ALL SELECT item FROM orders WHERE qty > 3 UNION SELECT name FROM customers ORDER BY 1

(SELECT item FROM orders UNION SELECT sku FROM order_lines) UNION ALL SELECT name FROM customers

SELECT item FROM orders UNION ALL SELECT sku FROM order_lines UNION SELECT name FROM customers UNION ALL SELECT name FROM customers

SELECT item FROM orders INTERSECT (SELECT item FROM orders WHERE paid UNION ALL SELECT name FROM customers)

SELECT qty, id FROM orders INTERSECT ALL SELECT id, qty FROM orders EXCEPT SELECT line, order_id FROM order_lines ORDER BY 1, 2

(SELECT tier FROM orders UNION SELECT tier FROM customers ORDER BY 1 LIMIT 2) UNION ALL SELECT tier FROM customers ORDER BY 1

(SELECT customer_id FROM orders EXCEPT SELECT customer_id FROM customers WHERE tier IS NULL ORDER BY 1 DESC LIMIT 4) UNION ALL SELECT customer_id FROM customers WHERE customer_id < 5 ORDER BY 1 LIMIT 6 OFFSET 1

SELECT qty FROM orders UNION SELECT score FROM customers EXCEPT SELECT amount FROM order_lines ORDER BY 1

SELECT price, placed FROM orders EXCEPT SELECT balance, seen FROM customers EXCEPT SELECT amount, NULL::timestamptz FROM order_lines ORDER BY 1, 2

SELECT name AS n, customer_id % 3 AS m FROM customers EXCEPT SELECT item, id FROM orders INTERSECT SELECT item, qty FROM orders ORDER BY n, m

SELECT count(*), max(x) FROM (SELECT item AS x FROM orders EXCEPT SELECT sku FROM order_lines UNION ALL SELECT name FROM customers) s

-- $1 int 3
SELECT item FROM orders WHERE qty > $1 UNION SELECT name FROM customers EXCEPT ALL SELECT sku FROM order_lines LIMIT $1

SELECT label FROM readings WHERE ok UNION SELECT label FROM readings WHERE device < 15 EXCEPT SELECT label FROM readings WHERE n = 2 ORDER BY 1

-- refused: set operation
SELECT * FROM stock EXCEPT SELECT * FROM stock WHERE qty > 2 EXCEPT SELECT * FROM stock WHERE price > 3

-- refused: set operation
SELECT tags FROM customers UNION SELECT tags FROM customers EXCEPT SELECT NULL FROM orders

SELECT ref, meta, active FROM customers WHERE ref IS NOT NULL UNION ALL SELECT ref, meta, active FROM customers EXCEPT SELECT ref, meta, active FROM customers WHERE active
