SELECT id FROM orders WHERE customer_id = 9 UNION SELECT order_id FROM order_lines WHERE customer_id = 9

-- refused: keys of several shards
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
