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
