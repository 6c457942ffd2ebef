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

UPDATE customers SET customer_id = 7 WHERE customer_id = 7

UPDATE customers SET customer_id = 500 WHERE customer_id = 7

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

UPDATE orders SET customer_id = 777 WHERE customer_id = 7 RETURNING *

UPDATE orders SET (customer_id, item) = (customer_id + 100, 'moved') WHERE qty > 2 RETURNING customer_id, id, item, price

UPDATE customers SET customer_id = 500, name = 'it''s {rows}', tier = 'gold', tags = '{"a,b",NULL}', meta = '{"k": [1, null]}' WHERE customer_id IN (7, 8) AND name IS NOT NULL RETURNING customer_id, name, tier, tags, meta

-- $1 bigint 600
-- $2 text gold
UPDATE customers SET customer_id = $1, tier = $2 WHERE customer_id = 9 RETURNING *

UPDATE order_lines SET customer_id = -customer_id, weight = weight / 3 WHERE line > 1

UPDATE orders o SET customer_id = c.customer_id + 1000 FROM customers c WHERE c.customer_id = o.customer_id AND c.active

UPDATE orders o SET customer_id = (SELECT max(c.customer_id) + 1000 FROM customers c WHERE c.customer_id = o.customer_id) WHERE o.id = 1

UPDATE readings SET device = device + 10 WHERE n = 1 AND device < 5 RETURNING device, n, at, value, ok

UPDATE readings SET device = 29 - device, n = n + 10

UPDATE stock SET region = 'us' WHERE region = 'de' AND sku = 'sku9'

UPDATE stock SET region = upper(region) WHERE region IN ('de', 'us') RETURNING region, sku, qty

UPDATE accounts SET name = name || '\x' WHERE owner = 'B' RETURNING name

-- error 22004: a NULL key belongs to no shard
UPDATE customers SET customer_id = NULL WHERE customer_id = 7

UPDATE customers SET customer_id = 'x' WHERE customer_id = 7

UPDATE customers SET customer_id = 12.6 WHERE customer_id = 7 AND false

UPDATE customers SET customer_id = 99999999999999999999 WHERE customer_id = 7

-- refused: UPDATE of the key
UPDATE orders SET customer_id = DEFAULT WHERE customer_id = 7

-- refused: UPDATE of the key
UPDATE orders SET customer_id = 7 WHERE customer_id = 8 RETURNING (SELECT count(*) FROM customers c WHERE c.customer_id = 8)

INSERT INTO customers (customer_id, name) VALUES (7, 'x') ON CONFLICT (customer_id) DO UPDATE SET customer_id = EXCLUDED.customer_id, name = EXCLUDED.name RETURNING customer_id, name

-- refused: UPDATE of the key
WITH w AS (UPDATE orders SET customer_id = 7 WHERE customer_id = 8 RETURNING *) SELECT count(*) FROM w

BEGIN;
UPDATE customers SET customer_id = 700 WHERE customer_id = 7;
UPDATE customers SET name = 'there' WHERE customer_id = 700;
UPDATE customers SET customer_id = 7 WHERE customer_id = 700 RETURNING name;
COMMIT

UPDATE customers SET name = (SELECT max(item) FROM items) WHERE tier = 'gold' RETURNING customer_id

UPDATE customers SET name = (SELECT max(item COLLATE "C") FROM orders o WHERE o.customer_id = customers.customer_id) RETURNING customer_id, name

-- refused: not joined by the key
UPDATE customers SET name = (SELECT max(item) FROM orders) WHERE customer_id IN (7, 8)

UPDATE customers SET score = score + 1 WHERE customer_id IN (7, 8, 9) RETURNING customer_id, (SELECT count(*) FROM orders o WHERE o.customer_id = customers.customer_id)

-- refused: not joined by the key
UPDATE customers SET name = 'x' WHERE customer_id = (SELECT max(customer_id) FROM customers)

-- refused: not joined by the key
UPDATE orders SET qty = 5 WHERE (customer_id, id) IN (SELECT customer_id, id FROM orders WHERE qty = 2 ORDER BY customer_id LIMIT 2)

UPDATE orders SET qty = v.q FROM (VALUES (7, 1, 100), (9, 1, 200)) v (k, i, q) WHERE customer_id = v.k AND id = v.i RETURNING customer_id, id, qty

-- refused: no key
UPDATE orders SET qty = 9 WHERE ctid = '(0,1)'

-- $1 int 6
UPDATE customers SET score = 1 WHERE customer_id = $1 + 1

-- $1 int 6
UPDATE customers SET customer_id = $1 + 600 WHERE customer_id = $1 + 1
