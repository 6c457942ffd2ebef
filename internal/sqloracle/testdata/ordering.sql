SELECT customer_id FROM customers ORDER BY customer_id

SELECT customer_id FROM customers ORDER BY customer_id DESC

SELECT customer_id, name FROM customers ORDER BY name, customer_id

SELECT customer_id, name FROM customers ORDER BY name DESC, customer_id

SELECT customer_id, name FROM customers ORDER BY name NULLS FIRST, customer_id DESC

SELECT customer_id, name FROM customers ORDER BY name COLLATE "C", customer_id

SELECT customer_id, name FROM customers ORDER BY name COLLATE "C" DESC NULLS LAST, customer_id

SELECT customer_id, name FROM customers ORDER BY lower(name), customer_id

SELECT customer_id, tier FROM customers ORDER BY tier, customer_id

SELECT customer_id, tier FROM customers ORDER BY tier DESC NULLS LAST, customer_id

SELECT customer_id, balance FROM customers ORDER BY balance, customer_id

SELECT customer_id, balance FROM customers ORDER BY balance DESC, customer_id

SELECT customer_id, score FROM customers ORDER BY score NULLS FIRST, customer_id

SELECT customer_id, born FROM customers ORDER BY born, customer_id

SELECT customer_id, active FROM customers ORDER BY active DESC, customer_id

SELECT customer_id, tags FROM customers ORDER BY tags, customer_id

SELECT customer_id, meta FROM customers ORDER BY meta, customer_id

SELECT customer_id, ref FROM customers ORDER BY ref, customer_id

SELECT customer_id, seen FROM customers ORDER BY seen DESC NULLS FIRST, customer_id

SELECT name FROM customers ORDER BY customer_id

SELECT name AS n FROM customers ORDER BY n, customer_id

SELECT name, -customer_id AS k FROM customers ORDER BY k

SELECT name FROM customers ORDER BY customer_id % 3, customer_id

SELECT * FROM orders ORDER BY customer_id, id

SELECT * FROM orders ORDER BY placed, customer_id, id

SELECT o.* FROM orders o ORDER BY price DESC NULLS LAST, customer_id, id

SELECT item, price * qty AS total FROM orders ORDER BY total, customer_id, id

SELECT item FROM orders WHERE customer_id = 9 ORDER BY item, id

SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id) ORDER BY c.name, c.customer_id, o.id

SELECT c.name, o.item FROM customers c LEFT JOIN orders o USING (customer_id) ORDER BY c.customer_id, o.id NULLS FIRST

SELECT customer_id FROM customers ORDER BY 1 USING >

SELECT label, device, n FROM readings ORDER BY label, device, n

SELECT label, device, n FROM readings ORDER BY label DESC, device DESC, n

SELECT device, n FROM readings WHERE device < 10 ORDER BY value, device, n

SELECT region, sku FROM stock ORDER BY region, sku

SELECT name FROM accounts ORDER BY name

SELECT name FROM accounts ORDER BY name COLLATE "C"

SELECT name FROM accounts ORDER BY length(name), name

SELECT id FROM notes ORDER BY n, id

SELECT customer_id, CASE WHEN active THEN name ELSE 'none' END AS x FROM customers ORDER BY x, customer_id

SELECT coalesce(label, 'pen') FROM readings ORDER BY 1

SELECT label || '!' AS x, device FROM readings WHERE n = 1 ORDER BY x, device

SELECT coalesce(label, 'x') COLLATE "default" AS x, device FROM readings WHERE n = 1 ORDER BY x, device

SELECT label FROM readings WHERE device < 15 UNION ALL SELECT label FROM readings WHERE device > 15 ORDER BY 1

-- $1 text Z
SELECT coalesce(label, $1) AS x, count(*) FROM readings GROUP BY 1 ORDER BY 1

SELECT min(label || ''), max(coalesce(label, 'a')) FROM readings

SELECT name, customer_id FROM customers ORDER BY name NULLS FIRST, customer_id

SELECT name, customer_id FROM customers ORDER BY name COLLATE "C" NULLS FIRST, customer_id DESC

SELECT DISTINCT ON (tier) tier, customer_id, name FROM customers ORDER BY tier DESC NULLS LAST, customer_id DESC

SELECT DISTINCT ON (customer_id) customer_id, item FROM orders ORDER BY customer_id, item COLLATE "C" NULLS FIRST, id

SELECT * FROM (VALUES (1, 'a'), (2, 'b')) v (x, y) ORDER BY x

SELECT customer_id, jsonb_array_elements(meta -> 'list') AS e FROM customers ORDER BY customer_id, e::text

SELECT DISTINCT qty % 2 AS m FROM orders ORDER BY m NULLS FIRST

SELECT to_jsonb(c) -> 'name' FROM customers c ORDER BY customer_id

SELECT customer_id, ref FROM customers ORDER BY ref DESC, customer_id

SELECT customer_id FROM customers ORDER BY customer_id USING >

-- refused: rows without a type
SELECT (customer_id, tier) FROM customers ORDER BY (customer_id, tier) LIMIT 4

SELECT DISTINCT ON (name COLLATE "C") name, customer_id FROM customers ORDER BY name COLLATE "C", customer_id

SELECT DISTINCT ON (lower(name) COLLATE "C") name, customer_id FROM customers ORDER BY lower(name) COLLATE "C", customer_id

SELECT DISTINCT ON (name COLLATE "C", tier) name, tier, customer_id FROM customers ORDER BY tier, name COLLATE "C" DESC, customer_id LIMIT 7

SELECT DISTINCT ON (lower(name) COLLATE "C") customer_id FROM customers ORDER BY lower(name) COLLATE "C" NULLS FIRST, customer_id OFFSET 2

SELECT DISTINCT ON (name COLLATE "C") * FROM customers ORDER BY name COLLATE "C", customer_id
