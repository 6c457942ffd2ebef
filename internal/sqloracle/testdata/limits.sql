SELECT customer_id FROM customers ORDER BY customer_id LIMIT 5

SELECT customer_id FROM customers ORDER BY customer_id DESC LIMIT 5

SELECT customer_id FROM customers ORDER BY customer_id LIMIT 5 OFFSET 7

SELECT customer_id FROM customers ORDER BY customer_id OFFSET 25

SELECT customer_id FROM customers ORDER BY customer_id OFFSET 100

SELECT customer_id FROM customers ORDER BY customer_id LIMIT 0

SELECT customer_id FROM customers ORDER BY customer_id LIMIT ALL

SELECT customer_id FROM customers ORDER BY customer_id LIMIT NULL

SELECT customer_id FROM customers LIMIT 5

SELECT customer_id FROM customers OFFSET 5

SELECT customer_id FROM customers ORDER BY customer_id FETCH FIRST 3 ROWS ONLY

SELECT tier FROM customers ORDER BY tier FETCH FIRST 1 ROW WITH TIES

SELECT customer_id FROM customers ORDER BY customer_id LIMIT 2 + 1

-- $1 bigint 4
SELECT customer_id FROM customers ORDER BY customer_id LIMIT $1

-- $1 bigint 4
-- $2 bigint 3
SELECT customer_id FROM customers ORDER BY customer_id LIMIT $1 OFFSET $2

SELECT name FROM customers ORDER BY name, customer_id LIMIT 6

SELECT name FROM customers ORDER BY name DESC NULLS LAST, customer_id LIMIT 3 OFFSET 2

SELECT id FROM orders WHERE customer_id = 9 ORDER BY id LIMIT 2 OFFSET 1

SELECT customer_id FROM customers ORDER BY customer_id LIMIT -1

SELECT customer_id FROM customers ORDER BY customer_id OFFSET -1

SELECT * FROM orders WHERE customer_id = 9 ORDER BY id LIMIT 1 FOR UPDATE

SELECT * FROM orders WHERE qty = 2 FOR UPDATE

SELECT customer_id, id FROM orders WHERE qty = 2 ORDER BY customer_id, id FOR SHARE

SELECT customer_id FROM customers WHERE customer_id IN (1, 2, 3) ORDER BY customer_id DESC LIMIT 2

SELECT count(*) FROM customers LIMIT 1

SELECT tier, count(*) FROM customers GROUP BY tier ORDER BY tier LIMIT 2

SELECT name, customer_id FROM customers ORDER BY name DESC NULLS LAST, customer_id LIMIT 7 OFFSET 2

SELECT tier, customer_id FROM customers ORDER BY tier NULLS FIRST, customer_id LIMIT 9

SELECT score, customer_id FROM customers ORDER BY score NULLS FIRST, customer_id FETCH FIRST 5 ROWS ONLY

SELECT qty FROM orders ORDER BY qty FETCH FIRST 5 ROWS WITH TIES

SELECT qty, item FROM orders ORDER BY qty DESC NULLS LAST, item COLLATE "C" FETCH FIRST 3 ROWS WITH TIES

SELECT tier FROM customers ORDER BY tier OFFSET 3 FETCH NEXT 4 ROWS WITH TIES

SELECT DISTINCT ON (customer_id % 3) customer_id % 3 AS m, customer_id FROM customers ORDER BY customer_id % 3, customer_id DESC LIMIT 2

SELECT customer_id, unnest(tags) FROM customers ORDER BY 1, 2 LIMIT 5

-- refused: no key
SELECT customer_id FROM customers ORDER BY customer_id LIMIT 3 FOR UPDATE SKIP LOCKED

-- refused: no key
SELECT customer_id FROM customers ORDER BY customer_id LIMIT 3 FOR UPDATE NOWAIT

SELECT DISTINCT tier, qty FROM orders ORDER BY qty, tier LIMIT 6 OFFSET 1

SELECT DISTINCT customer_id, tier FROM orders ORDER BY tier, customer_id LIMIT 4

SELECT customer_id, tags FROM customers ORDER BY tags, customer_id LIMIT 7

SELECT customer_id, meta FROM customers ORDER BY meta NULLS FIRST, customer_id LIMIT 7

SELECT born, customer_id FROM customers ORDER BY born DESC NULLS FIRST, customer_id LIMIT 9

SELECT born::text, customer_id FROM customers ORDER BY 1, customer_id LIMIT 9

SELECT placed::timestamp AS p, customer_id, id FROM orders ORDER BY p, customer_id, id LIMIT 9

SELECT interval '1 day' * qty AS i, customer_id, id FROM orders ORDER BY i, customer_id, id LIMIT 9

SELECT active, customer_id FROM customers ORDER BY active, customer_id LIMIT 9

SELECT ('x' || qty)::char(5) AS c, customer_id, id FROM orders ORDER BY c, customer_id, id LIMIT 9

SELECT name::name AS n, customer_id FROM customers ORDER BY n, customer_id LIMIT 9

SELECT ('\x' || lpad(customer_id::text, 2, '0'))::bytea AS b FROM customers ORDER BY b LIMIT 5

SELECT name FROM customers ORDER BY random() < 2, customer_id LIMIT 3

SELECT customer_id FROM customers ORDER BY -customer_id LIMIT 3

SELECT customer_id FROM customers ORDER BY customer_id LIMIT (SELECT 3)

SELECT customer_id FROM customers ORDER BY customer_id LIMIT 2 + 1 OFFSET 1 + 1

SELECT customer_id FROM customers ORDER BY customer_id LIMIT ALL OFFSET 28

SELECT customer_id FROM customers ORDER BY customer_id LIMIT NULL OFFSET NULL

SELECT DISTINCT CASE WHEN customer_id % 2 = 0 THEN 0.0::float8 ELSE '-0'::float8 END = 0 FROM orders

SELECT FROM customers ORDER BY customer_id LIMIT 3
