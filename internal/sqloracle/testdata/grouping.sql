SELECT tier, count(*) FROM customers GROUP BY tier

SELECT tier, count(*) FROM customers GROUP BY tier ORDER BY tier

SELECT tier, count(*) FROM customers GROUP BY tier ORDER BY count(*) DESC, tier

SELECT tier, count(*) AS n FROM customers GROUP BY 1 HAVING count(*) > 7 ORDER BY n DESC, 1

SELECT name, count(*) FROM customers GROUP BY name ORDER BY name NULLS FIRST

SELECT name, sum(balance), avg(score) FROM customers GROUP BY name

SELECT customer_id, count(*), sum(qty) FROM orders GROUP BY customer_id

SELECT customer_id, count(*), sum(qty) FROM orders GROUP BY customer_id ORDER BY customer_id LIMIT 5

SELECT customer_id, sum(price) AS total FROM orders GROUP BY customer_id ORDER BY total DESC NULLS LAST, customer_id LIMIT 3

SELECT customer_id, count(*) FROM orders WHERE customer_id = 9 GROUP BY customer_id

SELECT tier, paid, count(*) FROM orders GROUP BY tier, paid ORDER BY tier, paid

SELECT tier, max(item), min(placed) FROM orders GROUP BY tier

SELECT upper(item) AS i, count(*) FROM orders GROUP BY upper(item)

SELECT qty % 2 AS odd, sum(qty) FROM orders GROUP BY qty % 2

SELECT date_trunc('day', placed) AS d, count(*) FROM orders GROUP BY 1 ORDER BY 1

SELECT tier FROM orders GROUP BY tier

SELECT count(*) FROM orders GROUP BY tier

SELECT tier, count(*) FROM orders GROUP BY ROLLUP (tier)

SELECT tier, paid, count(*) FROM orders GROUP BY CUBE (tier, paid)

SELECT tier, paid, count(*), grouping(tier, paid) FROM orders GROUP BY GROUPING SETS ((tier), (paid), ())

SELECT tier, string_agg(item, ',' ORDER BY item, customer_id, id) FROM orders GROUP BY tier

SELECT tier, array_agg(DISTINCT qty ORDER BY qty) FROM orders GROUP BY tier

SELECT tier, count(DISTINCT customer_id) FROM orders GROUP BY tier

SELECT customer_id, count(DISTINCT tier) FROM orders GROUP BY customer_id HAVING count(DISTINCT tier) > 1

SELECT c.tier, sum(o.qty) FROM customers c JOIN orders o USING (customer_id) GROUP BY c.tier

SELECT c.customer_id, c.name, count(o.id) FROM customers c LEFT JOIN orders o USING (customer_id) GROUP BY c.customer_id

SELECT c.customer_id, c.name, count(o.id) FROM customers c LEFT JOIN orders o USING (customer_id) GROUP BY c.customer_id ORDER BY 3 DESC, 1

SELECT tier, stddev(qty), variance(price) FROM orders GROUP BY tier

SELECT label, count(*) FROM readings GROUP BY label ORDER BY label

SELECT ok, avg(value) FROM readings WHERE device < 10 GROUP BY ok

SELECT region, sum(qty) FROM stock GROUP BY region

SELECT sku, sum(qty * price) FROM stock GROUP BY sku ORDER BY sku

SELECT n, count(*) FROM notes GROUP BY n ORDER BY n

SELECT DISTINCT tier FROM customers

SELECT DISTINCT tier, active FROM customers ORDER BY tier, active

SELECT DISTINCT name FROM customers ORDER BY name DESC NULLS LAST LIMIT 4

SELECT DISTINCT ON (tier) tier, customer_id FROM customers ORDER BY tier, customer_id

SELECT DISTINCT ON (customer_id) customer_id, id, item FROM orders ORDER BY customer_id, id DESC

SELECT DISTINCT meta FROM customers

SELECT DISTINCT tags FROM customers WHERE customer_id = 3

SELECT DISTINCT customer_id FROM orders

SELECT tier, count(*) FILTER (WHERE qty > 3) AS big FROM orders GROUP BY tier HAVING sum(qty) > 10

SELECT tier, paid, count(*), grouping(tier, paid) FROM orders GROUP BY GROUPING SETS ((tier), (paid), ()) ORDER BY 1, 2, 4, 3

SELECT tier, paid, sum(qty) FROM orders GROUP BY CUBE (tier, paid) ORDER BY grouping(tier, paid), tier, paid

SELECT tier, count(*) FROM orders GROUP BY ROLLUP (tier) HAVING count(*) > 3 ORDER BY 1 NULLS LAST, 2

SELECT tier, array_agg(id ORDER BY customer_id DESC, id) FILTER (WHERE qty IS NOT NULL) FROM orders GROUP BY tier ORDER BY tier

SELECT count(*) FROM orders HAVING count(*) > 5

SELECT count(*) FROM orders HAVING count(*) > 5000

SELECT 1 FROM orders HAVING true

SELECT 1 AS one FROM orders HAVING count(*) > 5000

SELECT sum(qty) FROM orders WHERE false HAVING sum(qty) IS NULL

SELECT item, count(*) AS n FROM orders GROUP BY item ORDER BY n DESC, item COLLATE "C" LIMIT 3

SELECT lower(item) AS item, count(*) FROM orders GROUP BY lower(item) ORDER BY 1

SELECT item, count(*) FROM orders GROUP BY 1 ORDER BY lower(item), item

SELECT customer_id / 10 AS d, sum(balance) FROM customers GROUP BY d ORDER BY d

SELECT NULLIF(customer_id, 7) AS k, count(*) FROM orders GROUP BY NULLIF(customer_id, 7) ORDER BY 1

SELECT customer_id AS id, id AS customer_id, count(*) FROM orders GROUP BY customer_id, id ORDER BY customer_id, 1 LIMIT 5

SELECT id AS customer_id, count(*) FROM orders GROUP BY customer_id, id ORDER BY 1, 2 LIMIT 5

SELECT 5 AS customer_id, count(*) FROM orders GROUP BY customer_id ORDER BY 2, 1

SELECT tier AS customer_id, count(*) FROM orders GROUP BY orders.customer_id, tier ORDER BY customer_id, 2

-- refused: numbers of tables
SELECT tableoid::regclass AS t, count(*) FROM orders GROUP BY tableoid ORDER BY 1

-- as text: in binary it holds numbers, which are other ones on the plain server
SELECT tableoid::regclass AS t, pg_typeof(tier), count(*) FROM orders GROUP BY 1, 2 ORDER BY 1, 2

SELECT DISTINCT pg_typeof(tier)::text, tableoid::regclass::text FROM orders

SELECT (o).item, count(*) FROM orders o GROUP BY (o).item ORDER BY 1

SELECT tier, count(*) FROM customers GROUP BY tier ORDER BY tier LIMIT 1 OFFSET 1

SELECT 'lit' AS kind, tier, count(*) FROM orders GROUP BY 1, 2

SELECT tier, NULL AS one, sum(qty) FROM orders GROUP BY tier, 2

SELECT 5, count(*) FROM orders GROUP BY 1

SELECT -5, 7, 5, tier, true, 1.5, count(*), sum(qty + 5) FROM orders GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY tier

SELECT 5 AS five, count(*) FROM orders WHERE false GROUP BY 1

SELECT 'lit' AS kind, count(*) FROM orders GROUP BY kind ORDER BY kind

SELECT '-' AS dash, tier, string_agg(item, '-' ORDER BY item, customer_id, id) FROM orders GROUP BY 1, 2

SELECT 2 AS two, qty % 2, '5' AS text, count(DISTINCT item), sum(qty + '5') FROM orders GROUP BY 1, 2, 3

SELECT c.tier, 'x' AS x, count(o.id) + 5, 5 FROM customers c LEFT JOIN orders o USING (customer_id) GROUP BY 1, 2, 4

SELECT qty % 2 AS item, count(*) FROM orders GROUP BY item, qty

SELECT 1 AS item, count(*) FROM orders GROUP BY item ORDER BY 2, 1

SELECT qty AS item, count(*) FROM orders GROUP BY item, qty ORDER BY item, 2

SELECT customer_id AS c, qty AS item, count(*) FROM orders GROUP BY c, item, qty ORDER BY 1, 2, 3

SELECT qty AS item, count(*) FROM (SELECT * FROM orders) o GROUP BY item, qty

SELECT o.qty AS kind, count(*) FROM orders o JOIN items i ON i.item = o.item GROUP BY kind, o.qty

SELECT upper(item) AS i, count(*) FROM orders GROUP BY ROLLUP (i) ORDER BY 2, 1

SELECT upper(item) AS item, qty AS q, count(*) FROM orders GROUP BY GROUPING SETS ((q, item), (q), ())

SELECT upper(item) AS i, count(*) FROM orders GROUP BY i HAVING max(i) > 'a'

SELECT upper(item) AS item, count(*) FROM orders GROUP BY item, tier HAVING max(item) > 'a' ORDER BY item, 2
