SELECT * FROM items

SELECT * FROM items WHERE item = 'pen'

SELECT kind, count(*) FROM items GROUP BY kind ORDER BY kind

SELECT * FROM items JOIN tiers ON true

SELECT o.id, i.grams FROM orders o JOIN items i ON i.item = o.item WHERE o.customer_id = 9

SELECT o.customer_id, o.id, i.grams FROM orders o JOIN items i ON i.item = o.item

SELECT o.customer_id, o.id, i.grams FROM orders o LEFT JOIN items i ON i.item = o.item

-- refused: not joined by the key
SELECT o.customer_id, o.id, i.item FROM orders o RIGHT JOIN items i ON i.item = o.item

-- refused: not joined by the key
SELECT o.customer_id, o.id, i.item FROM orders o FULL JOIN items i ON i.item = o.item

-- refused: not joined by the key
SELECT i.item, o.id FROM items i LEFT JOIN orders o ON i.item = o.item

SELECT i.item, o.id FROM items i LEFT JOIN orders o ON i.item = o.item AND o.customer_id = 9

SELECT i.kind, sum(o.qty) FROM orders o JOIN items i ON i.item = o.item GROUP BY i.kind

-- refused: not joined by the key
SELECT i.kind, count(o.id) FROM items i LEFT JOIN orders o ON i.item = o.item GROUP BY i.kind

SELECT c.name, t.discount FROM customers c JOIN tiers t USING (tier) WHERE c.customer_id = 7

SELECT c.name, t.discount FROM customers c JOIN tiers t USING (tier)

-- refused: not joined by the key
SELECT item FROM items WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.item = items.item)

-- refused: not joined by the key
SELECT item FROM items WHERE item IN (SELECT item FROM orders)

SELECT count(*) FROM orders WHERE item IN (SELECT item FROM items WHERE grams IS NULL)

SELECT item FROM items UNION ALL SELECT item FROM orders

SELECT item FROM items UNION SELECT item FROM orders

SELECT (SELECT count(*) FROM items), count(*) FROM orders

SELECT i.item, r.device FROM items i JOIN readings r ON r.label = i.kind

INSERT INTO items (item, grams) VALUES ('glue', 5)

INSERT INTO items (item, grams) VALUES ('glue', 5), ('pen', 6)

INSERT INTO items (item, grams) VALUES ('glue', 5), ('ruler', 6) RETURNING item, grams

INSERT INTO items (item, grams) VALUES ('pen', 5) ON CONFLICT (item) DO UPDATE SET grams = EXCLUDED.grams RETURNING grams

UPDATE items SET grams = 0 WHERE item = 'pen'

UPDATE items SET grams = coalesce(grams, 0) + 1 RETURNING item, grams

DELETE FROM items WHERE grams IS NULL

UPDATE orders o SET qty = i.grams FROM items i WHERE i.item = o.item AND o.customer_id = 9

-- refused: reference and sharded tables in a write
UPDATE items i SET grams = o.qty FROM orders o WHERE i.item = o.item AND o.customer_id = 9

BEGIN;
INSERT INTO items (item) VALUES ('glue');
UPDATE customers SET name = 'x' WHERE customer_id = 1;
SELECT count(*) FROM items;
COMMIT

BEGIN;
DELETE FROM items;
ROLLBACK

INSERT INTO tiers (tier, label) VALUES ('bronze', 'the bronze')

INSERT INTO items (item, grams) SELECT 'made ' || i, i FROM generate_series(1, 5) i ORDER BY i LIMIT 3

UPDATE items SET grams = extract(year FROM now())::int - extract(year FROM current_date)::int WHERE item = 'pen'

UPDATE items SET kind = current_database() RETURNING item, kind = current_database()

DELETE FROM items WHERE item IN (SELECT item FROM items ORDER BY item LIMIT 2) RETURNING item, grams

INSERT INTO tiers (tier, discount, label) VALUES ('gold', 1, 'x' || length(now()::text) * 0), ('bronze', 2, NULL) ON CONFLICT (tier) DO UPDATE SET label = excluded.label || (clock_timestamp()::date - current_date) RETURNING tier

UPDATE tiers SET label = upper(label) || (SELECT count(*) FROM pg_class WHERE relname = 'items') RETURNING *

SELECT customer_id, (SELECT i.grams FROM items i WHERE i.item = o.item) FROM orders o WHERE id = 1 ORDER BY 1

-- refused: not joined by the key
SELECT i.item, count(o.id) FROM items i LEFT JOIN orders o ON o.item = i.item GROUP BY i.item ORDER BY 1

-- refused: not joined by the key
SELECT i.item FROM items i WHERE NOT EXISTS (SELECT FROM orders o WHERE o.item = i.item) ORDER BY 1

-- refused: not joined by the key
SELECT i.item FROM items i WHERE EXISTS (SELECT FROM orders o WHERE o.item = i.item) ORDER BY 1

-- refused: not joined by the key
SELECT i.item, o.id FROM items i FULL JOIN orders o ON o.item = i.item ORDER BY 1, 2

SELECT i.item, o.customer_id FROM orders o LEFT JOIN items i ON o.item = i.item ORDER BY 2, 1

SELECT count(*) FROM items, orders

-- refused: not joined by the key
SELECT count(*) FROM items i, LATERAL (SELECT FROM orders o WHERE o.item = i.item LIMIT 1) x

SELECT count(*) + (SELECT count(*) FROM items) FROM orders

SELECT count(*) FROM orders WHERE item IN (SELECT item FROM items)

SELECT tier, (SELECT label FROM tiers t WHERE t.tier = c.tier) AS l, count(*) FROM customers c GROUP BY tier ORDER BY tier

-- refused: not joined by the key
SELECT t.tier, count(c.customer_id) FROM tiers t LEFT JOIN customers c ON c.tier = t.tier GROUP BY t.tier ORDER BY t.tier
