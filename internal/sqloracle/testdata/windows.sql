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

SELECT row_number() OVER (), customer_id FROM customers WHERE customer_id = 7

SELECT customer_id, row_number() OVER (ORDER BY customer_id) FROM customers ORDER BY 1

SELECT customer_id, sum(qty) OVER (PARTITION BY tier ORDER BY customer_id, id) FROM orders ORDER BY 1, 2 LIMIT 5

SELECT customer_id, lag(id) OVER w, count(*) OVER w FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY id) ORDER BY 1, 2, 3

SELECT tier, sum(count(*)) OVER (ORDER BY tier) FROM customers GROUP BY tier ORDER BY 1

SELECT customer_id, first_value(name) OVER (ORDER BY customer_id) FROM customers ORDER BY customer_id LIMIT 3

SELECT count(*) OVER (), customer_id FROM customers ORDER BY 2 LIMIT 2

SELECT b.customer_id, row_number() OVER (PARTITION BY b.customer_id ORDER BY a.customer_id) FROM customers a LEFT JOIN orders b ON b.customer_id = a.customer_id AND b.id = 4 ORDER BY 1, 2
