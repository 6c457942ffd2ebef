SELECT c.name, o.item FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 7

SELECT c.name, o.item FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE o.customer_id = 7

SELECT c.name, o.item FROM customers c, orders o WHERE o.customer_id = c.customer_id AND c.customer_id = 7

SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id) WHERE customer_id = 7

SELECT name, item FROM customers NATURAL JOIN orders WHERE customer_id = 7

SELECT c.name, o.item FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 10

SELECT c.name, o.item FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.qty > 3 WHERE c.customer_id = 9

SELECT c.name, o.item FROM orders o RIGHT JOIN customers c ON o.customer_id = c.customer_id WHERE c.customer_id = 10

SELECT c.name, o.item FROM customers c JOIN orders o ON o.customer_id = c.customer_id

SELECT c.name, o.item FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id

SELECT c.name, o.item FROM customers c FULL JOIN orders o ON o.customer_id = c.customer_id

SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id) WHERE c.tier = 'gold'

SELECT c.name, o.item, l.sku FROM customers c JOIN orders o USING (customer_id) JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.id WHERE c.customer_id = 8

SELECT c.name, o.item, l.sku FROM customers c JOIN orders o USING (customer_id) JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.id

SELECT c.name, o.item, l.sku FROM customers c LEFT JOIN orders o USING (customer_id) LEFT JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.id WHERE c.customer_id IN (8, 9)

SELECT a.id, b.id FROM orders a JOIN orders b ON a.customer_id = b.customer_id AND a.id < b.id WHERE a.customer_id = 9

SELECT a.customer_id, a.id, b.id FROM orders a JOIN orders b ON a.customer_id = b.customer_id AND a.id < b.id

SELECT c.name, x.n FROM customers c CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id = c.customer_id) x WHERE c.customer_id = 9

SELECT c.name, x.n FROM customers c CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id = c.customer_id) x

SELECT c.name, x.item FROM customers c LEFT JOIN LATERAL (SELECT item FROM orders o WHERE o.customer_id = c.customer_id ORDER BY id DESC LIMIT 1) x ON true

SELECT c.customer_id, t.tag FROM customers c, unnest(c.tags) AS t(tag)

SELECT c.customer_id, t.tag FROM customers c, unnest(c.tags) AS t(tag) WHERE c.customer_id = 3

SELECT c.customer_id, v.x FROM customers c JOIN (VALUES (1, 'a'), (2, 'b'), (7, 'c')) v (k, x) ON v.k = c.customer_id

-- refused: not joined by the key
SELECT a.name, b.name FROM customers a JOIN customers b ON a.tier = b.tier AND a.customer_id < b.customer_id

-- refused: keys of several shards
SELECT a.name, b.name FROM customers a JOIN customers b ON a.name = b.name WHERE a.customer_id = 1 AND b.customer_id = 2

SELECT a.name, b.name FROM customers a CROSS JOIN customers b WHERE a.customer_id = 3 AND b.customer_id = 3

-- refused: not joined by the key
SELECT c.name, r.value FROM customers c JOIN readings r ON r.device = c.customer_id

-- refused: sharded and unsharded tables
SELECT c.name, n.body FROM customers c JOIN notes n ON n.id = c.customer_id

-- refused: sharded and unsharded tables
SELECT c.name, n.body FROM customers c JOIN notes n ON n.id = c.customer_id WHERE c.customer_id = 3

SELECT n.body, s.v FROM notes n JOIN settings s ON s.k = 'k' || n.id

SELECT c.customer_id, v.y FROM customers c JOIN (VALUES (7, 'a'), (8, 'b')) v (x, y) ON v.x = c.customer_id ORDER BY 1

SELECT c.customer_id, v.y FROM customers c LEFT JOIN (VALUES (7, 'a'), (8, 'b')) v (x, y) ON v.x = c.customer_id ORDER BY 1

-- refused: not joined by the key
SELECT v.x, c.name FROM (VALUES (7), (8), (999)) v (x) LEFT JOIN customers c ON v.x = c.customer_id ORDER BY 1

-- refused: not joined by the key
SELECT v.x, c.name FROM customers c RIGHT JOIN (VALUES (7), (8), (999)) v (x) ON v.x = c.customer_id ORDER BY 1

-- refused: not joined by the key
SELECT v.x, c.name FROM customers c FULL JOIN (VALUES (7), (8), (999)) v (x) ON v.x = c.customer_id ORDER BY 1, 2

SELECT g, c.customer_id FROM generate_series(1, 2) g, customers c ORDER BY 1, 2

-- refused: not joined by the key
SELECT g, c.customer_id FROM generate_series(1, 2) g LEFT JOIN customers c ON c.customer_id = g + 6 ORDER BY 1, 2

SELECT c.customer_id, x.n FROM customers c, LATERAL (SELECT c.customer_id + 1 AS n) x ORDER BY 1

SELECT c.customer_id, t FROM customers c, LATERAL unnest(c.tags) t ORDER BY 1, 2

SELECT c.customer_id, t FROM customers c LEFT JOIN LATERAL unnest(c.tags) WITH ORDINALITY AS u (t, n) ON true ORDER BY 1, n

SELECT avg(score), avg(balance), avg(qty) FROM customers c JOIN orders o USING (customer_id)

SELECT a.customer_id FROM customers a JOIN customers b ON a.customer_id = b.customer_id AND a.customer_id <> b.customer_id ORDER BY 1

SELECT a.customer_id FROM orders a NATURAL JOIN customers b ORDER BY 1

SELECT a.customer_id, b.customer_id FROM customers a FULL JOIN orders b ON a.customer_id = b.customer_id AND b.id = 1 ORDER BY 1, 2

SELECT coalesce(a.customer_id, b.customer_id) AS k FROM customers a FULL JOIN orders b USING (customer_id) ORDER BY 1 LIMIT 4

SELECT customer_id, count(*) FROM customers a FULL JOIN orders b USING (customer_id) GROUP BY customer_id ORDER BY 1

SELECT b.customer_id, count(*) FROM customers a LEFT JOIN orders b USING (customer_id) GROUP BY b.customer_id ORDER BY 1

SELECT b.customer_id, b.tier FROM customers a LEFT JOIN orders b USING (customer_id) GROUP BY b.customer_id, b.tier ORDER BY 1, 2

SELECT DISTINCT b.customer_id FROM customers a LEFT JOIN orders b ON b.customer_id = a.customer_id AND b.id = 4 ORDER BY 1

-- refused: not joined by the key
SELECT count(*) FROM orders a JOIN orders b ON a.ctid = b.ctid

SELECT pg_typeof(sum(qty)), pg_typeof(count(*)), pg_typeof(avg(score)) FROM orders o JOIN customers c USING (customer_id)
