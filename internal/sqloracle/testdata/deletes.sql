DELETE FROM orders WHERE customer_id = 9

DELETE FROM orders WHERE customer_id = 9 RETURNING *

DELETE FROM orders WHERE customer_id = 9 AND id = 2

DELETE FROM orders

DELETE FROM orders WHERE paid

DELETE FROM orders WHERE paid RETURNING customer_id, id

DELETE FROM orders WHERE customer_id IN (1, 2, 3)

DELETE FROM orders o USING customers c WHERE c.customer_id = o.customer_id AND c.tier = 'gold'

DELETE FROM orders o USING customers c WHERE c.customer_id = o.customer_id AND c.customer_id = 9

DELETE FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.customer_id)

DELETE FROM customers WHERE customer_id IN (SELECT customer_id FROM orders WHERE qty > 5)

DELETE FROM order_lines WHERE customer_id = 8 AND order_id = 1 RETURNING line

-- $1 bigint 9
DELETE FROM orders WHERE customer_id = $1

DELETE FROM readings WHERE device BETWEEN 8 AND 12

DELETE FROM readings WHERE device = 3 RETURNING n

DELETE FROM stock WHERE qty IS NULL

DELETE FROM accounts WHERE name IN ('ann', 'bob')

DELETE FROM notes WHERE id > 6

DELETE FROM settings RETURNING k

TRUNCATE notes

DELETE FROM orders USING items i WHERE i.item = orders.item AND i.grams > 30 RETURNING customer_id, id

DELETE FROM orders WHERE customer_id IN (SELECT customer_id FROM customers WHERE tier = 'gold')

DELETE FROM customers WHERE NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = customers.customer_id) RETURNING customer_id

-- refused: not joined by the key
DELETE FROM orders WHERE ctid IN (SELECT ctid FROM orders WHERE qty = 2)

-- refused: not joined by the key
DELETE FROM orders WHERE (ctid, 1) = ANY (SELECT ctid, 1 FROM orders WHERE qty = 2 LIMIT 1)

-- $1 int 6
DELETE FROM orders WHERE customer_id = $1 + 1 RETURNING id
