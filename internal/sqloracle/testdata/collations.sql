SELECT name, customer_id FROM customers ORDER BY lower(name COLLATE "C"), customer_id

SELECT name, customer_id FROM customers ORDER BY (name || 'x') COLLATE "C", customer_id

SELECT name, customer_id FROM customers ORDER BY coalesce(name COLLATE "C", 'M'), customer_id

SELECT name, customer_id FROM customers ORDER BY coalesce(name COLLATE "C", 'M') DESC NULLS LAST, customer_id LIMIT 7

SELECT name, customer_id FROM customers ORDER BY CASE WHEN customer_id > 3 THEN name COLLATE "C" ELSE 'M' END, customer_id

SELECT DISTINCT name COLLATE "C" AS n FROM customers ORDER BY n

SELECT DISTINCT upper(name COLLATE "C") AS n FROM customers ORDER BY n

SELECT substr(name COLLATE "C", 1, 2) AS n, count(*) FROM customers GROUP BY n ORDER BY n

SELECT substr(name COLLATE "C", 1, 2), count(*) FROM customers GROUP BY substr(name COLLATE "C", 1, 2) ORDER BY substr(name COLLATE "C", 1, 2)

SELECT name COLLATE "C" AS n, count(*) FROM customers GROUP BY name ORDER BY n

SELECT name, count(*) FROM customers GROUP BY name ORDER BY name COLLATE "C"

SELECT name, count(*) FROM customers GROUP BY name ORDER BY lower(name COLLATE "C"), 1

SELECT name COLLATE "C", count(*) FROM customers GROUP BY name COLLATE "C" ORDER BY 1

SELECT name COLLATE "C" AS n, count(*) FROM customers GROUP BY ROLLUP (n) ORDER BY n

SELECT min(name COLLATE "C"), max(name COLLATE "C"), min(name), max(name) FROM customers

SELECT tier, max(name COLLATE "C") FROM customers GROUP BY tier ORDER BY 2, 1

SELECT count(*) FROM customers HAVING max(name COLLATE "C") > 'Zoe'

SELECT count(*) FROM customers HAVING max(name COLLATE "C") > min(name)

SELECT tier, count(*) FROM customers GROUP BY tier HAVING min(name COLLATE "C") < 'B' ORDER BY tier

SELECT customer_id, rank() OVER (ORDER BY name COLLATE "C", customer_id) FROM customers ORDER BY 1

SELECT customer_id, rank() OVER (ORDER BY lower(name COLLATE "C"), customer_id) FROM customers ORDER BY 1

SELECT string_agg(name, ',' ORDER BY name COLLATE "C", customer_id) FROM customers

SELECT string_agg(name, ',' ORDER BY lower(name COLLATE "C"), customer_id) FROM customers

SELECT array_agg(DISTINCT name COLLATE "C") FROM customers

SELECT DISTINCT ON (lower(name COLLATE "C")) name, customer_id FROM customers ORDER BY lower(name COLLATE "C"), customer_id

SELECT name COLLATE "C" AS n FROM customers UNION SELECT item FROM orders ORDER BY n

SELECT name COLLATE "C" AS n FROM customers UNION ALL SELECT item FROM orders ORDER BY 1

SELECT name AS n FROM customers UNION SELECT item COLLATE "C" FROM orders ORDER BY n

SELECT label FROM readings ORDER BY lower(label), device, n

SELECT label COLLATE "default" AS l, device, n FROM readings ORDER BY 1, 2, 3

SELECT device, n FROM readings ORDER BY label COLLATE "default", device, n

SELECT device, n FROM readings ORDER BY lower(label COLLATE "default"), device, n

SELECT max(label COLLATE "default"), min(label), max(lower(label)) FROM readings

SELECT label COLLATE "default" AS l, count(*) FROM readings GROUP BY label ORDER BY l

SELECT ok, max(label COLLATE "default") FROM readings GROUP BY ok ORDER BY 2, 1

SELECT count(*) FROM readings HAVING max(label COLLATE "default") > 'a'

SELECT max(label COLLATE "default") > max(label) FROM readings

SELECT ok, greatest(max(label COLLATE "default"), 'a') AS g FROM readings GROUP BY ok ORDER BY g, ok

SELECT name, customer_id FROM customers ORDER BY ARRAY[name COLLATE "C"], customer_id

SELECT DISTINCT ARRAY[lower(name COLLATE "C")] AS a FROM customers ORDER BY a

SELECT ARRAY[name COLLATE "C"] AS a, count(*) FROM customers GROUP BY a ORDER BY a

SELECT max(ARRAY[name COLLATE "C"]) FROM customers

SELECT name, customer_id FROM customers ORDER BY tags COLLATE "C", customer_id

SELECT name, customer_id FROM customers ORDER BY name::login_c, customer_id

SELECT max(name::login_c), min(name::login_c) FROM customers

SELECT name, customer_id FROM customers ORDER BY ARRAY[name::login_c], customer_id

-- refused: rows without a type
SELECT name, customer_id FROM customers ORDER BY ROW(name COLLATE "C"), customer_id

SELECT name, customer_id FROM customers ORDER BY name::name, customer_id

SELECT name, customer_id FROM customers ORDER BY name::name COLLATE "default", customer_id

SELECT DISTINCT name::bpchar COLLATE "C" AS n FROM customers ORDER BY n DESC

SELECT s.n, count(*) FROM (SELECT DISTINCT name COLLATE "C" AS n FROM customers) s GROUP BY s.n ORDER BY s.n

SELECT s.n FROM (SELECT name COLLATE "C" AS n, count(*) FROM customers GROUP BY 1) s ORDER BY s.n

WITH w AS (SELECT max(name COLLATE "C") AS m, tier FROM customers GROUP BY tier) SELECT m FROM w ORDER BY m, tier

SELECT count(*) FROM customers WHERE lower(name COLLATE "C") > 'B'

BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT name, customer_id FROM customers ORDER BY lower(name COLLATE "C"), customer_id;
FETCH ALL FROM c;
FETCH BACKWARD 3 FROM c;
ROLLBACK

-- $1 text M
SELECT name, customer_id FROM customers ORDER BY coalesce(name COLLATE "C", $1), customer_id

-- $1 text M
SELECT max(coalesce(name COLLATE "C", $1)), count(*) FROM customers HAVING max(name COLLATE "C") > $1

SELECT min(label COLLATE "default") < min(label) FROM readings

SELECT ok, min(label COLLATE "default") < min(label) FROM readings GROUP BY ok

SELECT least(min(label COLLATE "default"), min(label)) FROM readings

SELECT count(*) FROM readings HAVING min(label COLLATE "default") < min(label)

SELECT label COLLATE "default" < lower(label) AS b, count(*) FROM readings GROUP BY b

SELECT min(label COLLATE "default") < min(sku COLLATE "C") AS b FROM readings, items WHERE item = sku

SELECT lower(min(label COLLATE "default")) || min(label) AS l, ok FROM readings GROUP BY ok ORDER BY l

SELECT count(label COLLATE "default") FROM readings

SELECT label, rank() OVER (ORDER BY label COLLATE "default", device, n) FROM readings ORDER BY device, n

SELECT min(name COLLATE "C") || min(name) AS m, tier FROM customers GROUP BY tier ORDER BY m, tier

SELECT min(lower(label COLLATE "default")) < min(label) FROM readings

SELECT ok, min(coalesce(label COLLATE "default", 'B')) || 'b' < min(label) FROM readings GROUP BY ok

SELECT lower(label COLLATE "default") AS l, label, count(*) FROM readings GROUP BY l, label HAVING lower(label COLLATE "default") >= label ORDER BY l, label

SELECT lower(name COLLATE "C") AS n, count(*) FROM customers GROUP BY ROLLUP (n), tier ORDER BY n, 2

SELECT min(tags || ARRAY[name COLLATE "C"]) FROM customers
