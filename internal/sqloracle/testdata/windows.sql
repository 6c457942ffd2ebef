SELECT id, row_number() OVER (ORDER BY id) FROM orders WHERE customer_id = 9

SELECT customer_id, id, row_number() OVER (PARTITION BY customer_id ORDER BY id) FROM orders

SELECT customer_id, id, sum(qty) OVER (PARTITION BY customer_id ORDER BY id) FROM orders

SELECT customer_id, id, sum(qty) OVER w, avg(qty) OVER w FROM orders WINDOW w AS (PARTITION BY customer_id)

SELECT customer_id, row_number() OVER (ORDER BY customer_id) FROM customers

SELECT customer_id, rank() OVER (ORDER BY tier) FROM customers

SELECT customer_id, count(*) OVER () FROM customers

SELECT customer_id, lag(customer_id) OVER (ORDER BY customer_id) FROM customers

SELECT customer_id, tier, count(*) OVER (PARTITION BY tier) FROM customers

SELECT tier, count(*), sum(count(*)) OVER () FROM customers GROUP BY tier

SELECT * FROM (SELECT customer_id, id, row_number() OVER (PARTITION BY customer_id ORDER BY id DESC) AS r FROM orders) x WHERE r = 1

SELECT id, first_value(body) OVER (ORDER BY id) FROM notes
