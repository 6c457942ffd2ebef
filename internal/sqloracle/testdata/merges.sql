MERGE INTO customers c USING (SELECT 7 AS id, 'merged' AS name) s ON c.customer_id = s.id WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (customer_id, name) VALUES (s.id, s.name)

MERGE INTO customers c USING (VALUES (777, 'merged')) s(id, name) ON c.customer_id = s.id WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (customer_id, name) VALUES (s.id, s.name)

-- $1 bigint 778
-- $2 text merged
MERGE INTO customers c USING (SELECT $1::bigint AS id, $2::text AS name) s ON c.customer_id = s.id WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (customer_id, name) VALUES (s.id, s.name)

MERGE INTO orders o USING (SELECT * FROM order_lines WHERE customer_id = 7 AND line = 1) l ON o.customer_id = l.customer_id AND o.id = l.order_id WHEN MATCHED THEN UPDATE SET item = l.sku WHEN NOT MATCHED THEN INSERT (customer_id, id, item) VALUES (l.customer_id, l.order_id, l.sku)

MERGE INTO order_lines l USING orders o ON l.customer_id = o.customer_id AND l.order_id = o.id AND l.line = 2 WHEN MATCHED AND o.paid THEN DELETE WHEN MATCHED THEN UPDATE SET sku = o.item WHEN NOT MATCHED THEN INSERT (customer_id, order_id, line, sku) VALUES (o.customer_id, o.id, 2, o.item)

MERGE INTO orders o USING customers c ON o.customer_id = c.customer_id WHEN MATCHED AND c.tier = 'gold' THEN DELETE WHEN NOT MATCHED AND c.active THEN INSERT (id, customer_id) VALUES (50, c.customer_id)

MERGE INTO customers c USING (VALUES (1, 'a'), (2, 'b'), (99, 'c')) v(id, name) ON c.customer_id = v.id WHEN MATCHED THEN UPDATE SET name = v.name

-- refused: no key
MERGE INTO customers c USING (VALUES (1, 'a'), (2, 'b'), (99, 'c')) v(id, name) ON c.customer_id = v.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (customer_id, name) VALUES (v.id, v.name)

MERGE INTO orders o USING items i ON o.item = i.item WHEN MATCHED THEN UPDATE SET qty = i.grams

-- refused: not joined by the key
MERGE INTO orders o USING customers c ON o.id = c.customer_id WHEN MATCHED THEN DELETE

-- refused: MERGE
MERGE INTO orders o USING customers c ON o.customer_id = c.customer_id WHEN MATCHED THEN UPDATE SET customer_id = 7

-- refused: sharded and unsharded tables
MERGE INTO customers c USING notes n ON c.customer_id = n.id WHEN MATCHED THEN DELETE

MERGE INTO notes n USING settings s ON n.body = s.k WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, body) VALUES (length(s.k) * 100 + ascii(right(s.k, 1)), s.k)

MERGE INTO items i USING (VALUES ('pen', 5), ('glue', 7)) v(item, grams) ON i.item = v.item WHEN MATCHED THEN UPDATE SET grams = v.grams WHEN NOT MATCHED THEN INSERT (item, grams) VALUES (v.item, v.grams)

-- refused: reference and sharded tables in a write
MERGE INTO items i USING orders o ON i.item = o.item WHEN MATCHED THEN DELETE
