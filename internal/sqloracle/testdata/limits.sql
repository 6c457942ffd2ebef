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
