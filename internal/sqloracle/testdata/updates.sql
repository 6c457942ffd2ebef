UPDATE customers SET name = 'changed' WHERE customer_id = 7

UPDATE customers SET name = 'changed' WHERE customer_id = 7 RETURNING *

UPDATE customers SET name = 'changed' WHERE customer_id = 777

UPDATE customers SET balance = balance + 10, active = NOT active WHERE customer_id = 7 RETURNING balance, active

UPDATE customers SET (name, tier) = ('x', 'gold') WHERE customer_id = 7

UPDATE customers SET name = DEFAULT WHERE customer_id = 7

UPDATE customers SET name = 'changed'

UPDATE customers SET balance = balance * 2 WHERE tier = 'gold'

UPDATE customers SET balance = balance * 2 WHERE tier = 'gold' RETURNING customer_id, balance

UPDATE customers SET name = 'changed' WHERE customer_id IN (1, 2, 3, 4)

UPDATE customers SET name = 'changed' WHERE customer_id = ANY ('{1,2,3}')

-- refused: UPDATE of the key
UPDATE customers SET customer_id = 7 WHERE customer_id = 7

-- refused: UPDATE of the key
UPDATE customers SET customer_id = 500 WHERE customer_id = 7

-- refused: UPDATE of the key
UPDATE customers SET customer_id = customer_id + 1000 WHERE tier = 'gold'

UPDATE orders SET qty = 0 WHERE customer_id = 9 AND id = 1

UPDATE orders SET qty = 0 WHERE id = 1

UPDATE orders o SET qty = 0 FROM customers c WHERE c.customer_id = o.customer_id AND c.tier = 'gold'

UPDATE orders o SET item = c.name FROM customers c WHERE c.customer_id = o.customer_id AND o.customer_id = 9

UPDATE orders SET qty = (SELECT count(*) FROM order_lines l WHERE l.customer_id = orders.customer_id AND l.order_id = orders.id)

UPDATE orders SET qty = (SELECT count(*) FROM order_lines l WHERE l.customer_id = 9 AND l.order_id = orders.id) WHERE customer_id = 9

UPDATE customers SET score = 1 / 0 WHERE customer_id = 7

UPDATE customers SET score = 1 / (customer_id - 7)

-- $1 text x
-- $2 bigint 7
UPDATE customers SET name = $1 WHERE customer_id = $2

-- $1 numeric 2.5
-- $2 tier silver
UPDATE customers SET balance = balance + $1 WHERE tier = $2

UPDATE readings SET value = value + 1 WHERE device = 5

UPDATE readings SET value = value + 1 WHERE device < 15

UPDATE readings SET value = 0 WHERE device >= 20 RETURNING device, n

UPDATE stock SET qty = qty + 1 WHERE sku = 'sku1'

UPDATE stock SET qty = qty + 1 WHERE region = 'de' RETURNING sku, qty

UPDATE accounts SET cents = coalesce(cents, 0) + 1

UPDATE notes SET n = n + 1 WHERE id < 5 RETURNING id, n

UPDATE settings SET v = 'x'

UPDATE customers SET tags = array_append(tags, 'z'), meta = meta || '{"z": 1}' WHERE customer_id = 3 RETURNING tags, meta

UPDATE customers SET name = 'x' WHERE false
