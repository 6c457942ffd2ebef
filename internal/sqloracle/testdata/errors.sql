SELECT nothing FROM customers WHERE customer_id = 7

SELECT nothing FROM customers

SELECT * FROM missing_table

SELECT * FROM customers WHERE customer_id = 7 AND

SELEC 1

SELECT 1 / 0

SELECT 1 / (customer_id - 7) FROM customers WHERE customer_id = 7

SELECT 1 / (customer_id - 7) FROM customers

SELECT name + 1 FROM customers WHERE customer_id = 7

SELECT name + 1 FROM customers

-- refused: volatile
SELECT missing_function(name) FROM customers

SELECT name, count(*) FROM customers

SELECT count(*) FROM customers GROUP BY tier HAVING name = 'x'

SELECT * FROM customers ORDER BY nothing

SELECT name FROM customers UNION SELECT customer_id FROM orders

SELECT (SELECT name FROM customers)

SELECT name::int FROM customers

INSERT INTO customers (customer_id, nothing) VALUES (1, 2)

-- refused: no key in INSERT
INSERT INTO customers (name) VALUES ('no key')

INSERT INTO customers (customer_id, name) VALUES (1)

UPDATE customers SET nothing = 1

DELETE FROM customers WHERE nothing

-- refused: not joined by the key
SELECT * FROM orders o, orders o

SELECT customer_id FROM customers c JOIN orders o ON o.customer_id = c.customer_id

SELECT sum(name) FROM customers

SELECT DISTINCT name FROM customers ORDER BY customer_id

SELECT avg(balance::money) FROM customers

SELECT tier, avg(balance::money) FROM customers GROUP BY tier

SELECT avg(NULL) FROM customers

SELECT avg('5') FROM customers

SELECT avg(tier) FROM customers
