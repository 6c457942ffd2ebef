-- refused: no key
SELECT customer_id FROM customers ORDER BY customer_id

-- refused: no key
SELECT customer_id FROM customers ORDER BY customer_id DESC

-- refused: no key
SELECT customer_id, name FROM customers ORDER BY name, customer_id

-- refused: no key
SELECT customer_id, name FROM customers ORDER BY name DESC, customer_id

-- refused: no key
SELECT customer_id, name FROM customers ORDER BY name NULLS FIRST, customer_id DESC

-- refused: no key
SELECT customer_id, name FROM customers ORDER BY name COLLATE "C", customer_id

-- refused: no key
SELECT customer_id, name FROM customers ORDER BY name COLLATE "C" DESC NULLS LAST, customer_id

-- refused: no key
SELECT customer_id, name FROM customers ORDER BY lower(name), customer_id

-- refused: no key
SELECT customer_id, tier FROM customers ORDER BY tier, customer_id

-- refused: no key
SELECT customer_id, tier FROM customers ORDER BY tier DESC NULLS LAST, customer_id

-- refused: no key
SELECT customer_id, balance FROM customers ORDER BY balance, customer_id

-- refused: no key
SELECT customer_id, balance FROM customers ORDER BY balance DESC, customer_id

-- refused: no key
SELECT customer_id, score FROM customers ORDER BY score NULLS FIRST, customer_id

-- refused: no key
SELECT customer_id, born FROM customers ORDER BY born, customer_id

-- refused: no key
SELECT customer_id, active FROM customers ORDER BY active DESC, customer_id

-- refused: no key
SELECT customer_id, tags FROM customers ORDER BY tags, customer_id

-- refused: no key
SELECT customer_id, meta FROM customers ORDER BY meta, customer_id

-- refused: no key
SELECT customer_id, ref FROM customers ORDER BY ref, customer_id

-- refused: no key
SELECT customer_id, seen FROM customers ORDER BY seen DESC NULLS FIRST, customer_id

-- refused: no key
SELECT name FROM customers ORDER BY customer_id

-- refused: no key
SELECT name AS n FROM customers ORDER BY n, customer_id

-- refused: no key
SELECT name, -customer_id AS k FROM customers ORDER BY k

-- refused: no key
SELECT name FROM customers ORDER BY customer_id % 3, customer_id

-- refused: no key
SELECT * FROM orders ORDER BY customer_id, id

-- refused: no key
SELECT * FROM orders ORDER BY placed, customer_id, id

-- refused: no key
SELECT o.* FROM orders o ORDER BY price DESC NULLS LAST, customer_id, id

-- refused: no key
SELECT item, price * qty AS total FROM orders ORDER BY total, customer_id, id

SELECT item FROM orders WHERE customer_id = 9 ORDER BY item, id

-- refused: no key
SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id) ORDER BY c.name, c.customer_id, o.id

-- refused: no key
SELECT c.name, o.item FROM customers c LEFT JOIN orders o USING (customer_id) ORDER BY c.customer_id, o.id NULLS FIRST

-- refused: no key
SELECT customer_id FROM customers ORDER BY 1 USING >

-- refused: no key
SELECT label, device, n FROM readings ORDER BY label, device, n

-- refused: no key
SELECT label, device, n FROM readings ORDER BY label DESC, device DESC, n

-- refused: no key
SELECT device, n FROM readings WHERE device < 10 ORDER BY value, device, n

-- refused: no key
SELECT region, sku FROM stock ORDER BY region, sku

-- refused: no key
SELECT name FROM accounts ORDER BY name

-- refused: no key
SELECT name FROM accounts ORDER BY name COLLATE "C"

-- refused: no key
SELECT name FROM accounts ORDER BY length(name), name

SELECT id FROM notes ORDER BY n, id

-- refused: no key
SELECT customer_id, CASE WHEN active THEN name ELSE 'none' END AS x FROM customers ORDER BY x, customer_id
