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

-- refused: writes in WITH
WITH gone AS (DELETE FROM orders WHERE qty = 1 RETURNING *) SELECT count(*) FROM gone
