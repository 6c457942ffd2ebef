WITH w AS (SELECT * FROM orders WHERE customer_id = 9) SELECT count(*), sum(qty) FROM w

WITH w AS (SELECT * FROM orders) SELECT item FROM w WHERE customer_id = 9

WITH w AS (SELECT * FROM orders) SELECT count(*) FROM w

WITH w AS (SELECT customer_id, sum(qty) AS q FROM orders GROUP BY customer_id) SELECT * FROM w WHERE q > 5

WITH w AS (SELECT customer_id, sum(qty) AS q FROM orders GROUP BY customer_id) SELECT c.name, w.q FROM customers c JOIN w ON w.customer_id = c.customer_id

WITH w AS (SELECT customer_id, sum(qty) AS q FROM orders WHERE customer_id = 9 GROUP BY customer_id) SELECT c.name, w.q FROM customers c JOIN w ON w.customer_id = c.customer_id WHERE c.customer_id = 9

WITH w AS MATERIALIZED (SELECT * FROM orders WHERE customer_id = 9) SELECT id FROM w ORDER BY id

WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS y FROM a) SELECT * FROM a, b

WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t

WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT t.n, o.item FROM t JOIN orders o ON o.id = t.n WHERE o.customer_id = 9

WITH a AS (SELECT customer_id FROM customers WHERE tier = 'gold'), b AS (SELECT customer_id FROM orders WHERE paid) SELECT count(*) FROM a JOIN b USING (customer_id)

WITH gone AS (DELETE FROM orders WHERE customer_id = 9 AND id = 1 RETURNING *) SELECT item, qty FROM gone

WITH made AS (INSERT INTO orders (customer_id, id, item) VALUES (9, 99, 'new') RETURNING customer_id, id) SELECT * FROM made

WITH changed AS (UPDATE orders SET qty = 0 WHERE customer_id = 9 RETURNING id) SELECT count(*) FROM changed

WITH gone AS (DELETE FROM orders WHERE qty = 1 RETURNING *) SELECT count(*) FROM gone

WITH gone AS (DELETE FROM orders WHERE qty = 1 RETURNING *) SELECT item, qty FROM gone

WITH gone AS (DELETE FROM orders WHERE qty = 1 RETURNING *) SELECT item, count(*), sum(qty) FROM gone GROUP BY item ORDER BY item

WITH gone AS (DELETE FROM orders WHERE id = 1 RETURNING *) INSERT INTO order_lines (customer_id, order_id, line, sku) SELECT customer_id, id, 77, item FROM gone RETURNING customer_id, sku

WITH gone AS (DELETE FROM order_lines WHERE line = 1 RETURNING customer_id, order_id, amount) UPDATE orders o SET price = g.amount FROM gone g WHERE g.customer_id = o.customer_id AND g.order_id = o.id

WITH x AS (UPDATE orders SET qty = qty + 1 WHERE paid RETURNING *), y AS (DELETE FROM order_lines l USING x WHERE x.customer_id = l.customer_id AND x.id = l.order_id RETURNING l.*) SELECT count(*), min(sku) FROM y

WITH gone AS (DELETE FROM orders WHERE customer_id IN (7, 9, 12) RETURNING customer_id, id) SELECT c.name, g.id FROM gone g JOIN customers c ON c.customer_id = g.customer_id ORDER BY g.id, c.name

-- refused: not joined by the key
WITH gone AS (DELETE FROM orders RETURNING *) SELECT c.name, g.id FROM gone g JOIN customers c ON c.name = g.item

-- refused: not joined by the key
WITH x AS (DELETE FROM orders WHERE id = 1 RETURNING id) INSERT INTO order_lines (customer_id, order_id, line) SELECT id, id, 99 FROM x
