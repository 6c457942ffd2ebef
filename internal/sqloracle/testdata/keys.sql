SELECT * FROM customers WHERE customer_id = 1

SELECT name, tier FROM customers WHERE customer_id = 7

SELECT * FROM customers WHERE 7 = customer_id

SELECT * FROM customers WHERE customer_id = 7::bigint

SELECT * FROM customers WHERE customer_id = '7'

SELECT * FROM customers WHERE customer_id = 3 + 4

SELECT * FROM customers WHERE customer_id = -7

SELECT * FROM customers WHERE customer_id = 7 AND tier = 'gold'

SELECT * FROM customers WHERE customer_id = 7 AND customer_id = 7

SELECT * FROM customers WHERE customer_id = 7 AND customer_id = 8

SELECT * FROM customers WHERE customer_id IN (7)

SELECT * FROM customers WHERE customer_id IN (7, 8, 9)

SELECT * FROM customers WHERE customer_id IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

SELECT * FROM customers WHERE customer_id IN (7, NULL)

SELECT * FROM customers WHERE customer_id NOT IN (7, 8, 9)

SELECT * FROM customers WHERE customer_id = ANY (ARRAY[7, 8, 9])

SELECT * FROM customers WHERE customer_id = ANY ('{7,8,9}')

SELECT * FROM customers WHERE customer_id = ANY ('{}'::bigint[])

-- $1 bigint[] {7,8,9}
SELECT * FROM customers WHERE customer_id = ANY ($1)

-- $1 bigint[] {}
SELECT * FROM customers WHERE customer_id = ANY ($1)

-- $1 bigint 7
SELECT * FROM customers WHERE customer_id = $1

-- $1 numeric 7
SELECT * FROM customers WHERE customer_id = $1

-- $1 float8 7
SELECT c.name, o.id FROM customers c JOIN orders o USING (customer_id) WHERE c.customer_id = $1 ORDER BY o.id

-- $1 numeric 9
UPDATE orders SET qty = qty + 1 WHERE customer_id = $1 AND id > 1

-- $1 numeric 12
DELETE FROM readings WHERE device = $1

-- $1 bigint 7
-- $2 bigint 8
SELECT * FROM customers WHERE customer_id IN ($1, $2)

-- $1 bigint 7
-- $2 bigint 8
SELECT * FROM customers WHERE customer_id = $1 OR customer_id = $2

SELECT * FROM customers WHERE customer_id = 7 OR customer_id = 8

SELECT * FROM customers WHERE (customer_id = 7 AND active) OR (customer_id = 8 AND NOT active)

SELECT * FROM customers WHERE customer_id = 7 OR tier = 'gold'

SELECT * FROM customers WHERE customer_id BETWEEN 7 AND 9

SELECT * FROM customers WHERE customer_id > 7 AND customer_id < 10

SELECT * FROM customers WHERE customer_id <> 7

SELECT * FROM customers WHERE customer_id IS NULL

SELECT * FROM customers WHERE NOT customer_id = 7

SELECT * FROM customers WHERE customer_id = 7 LIMIT 1

SELECT * FROM customers c WHERE c.customer_id = 7

SELECT * FROM public.customers WHERE public.customers.customer_id = 7

SELECT * FROM customers AS c (k, n) WHERE c.k = 7

SELECT * FROM ONLY customers WHERE customer_id = 7

SELECT * FROM customers WHERE (customer_id, name) = (7, 'Bob')

SELECT * FROM orders WHERE (customer_id, id) = (7, 1)

SELECT * FROM orders WHERE (customer_id, id) IN ((7, 1), (7, 2))

SELECT * FROM orders WHERE (customer_id, id) IN ((7, 1), (8, 2))

SELECT * FROM customers WHERE customer_id = 7.0

SELECT * FROM customers WHERE customer_id = 7 AND random() < 2

SELECT * FROM customers WHERE customer_id = abs(-7)

SELECT * FROM customers WHERE customer_id = (SELECT 7)

-- error 22003: no row has a key that is out of the type's range; to ask for one is taken for a mistake
SELECT * FROM customers WHERE customer_id = 99999999999999999999

SELECT * FROM readings WHERE device = 5

SELECT * FROM readings WHERE device = 5 AND n = 1

SELECT * FROM readings WHERE device IN (5, 15, 25)

SELECT * FROM readings WHERE device IN (5, 6)

SELECT * FROM readings WHERE device BETWEEN 3 AND 6

SELECT * FROM readings WHERE device BETWEEN 8 AND 12

SELECT * FROM readings WHERE device < 5

SELECT * FROM readings WHERE device >= 20

SELECT * FROM readings WHERE device > 9 AND device < 20

SELECT * FROM readings WHERE device < 5 OR device > 25

SELECT * FROM readings WHERE device BETWEEN 6 AND 3

SELECT * FROM readings

-- $1 int 12
-- $2 int 15
SELECT * FROM readings WHERE device >= $1 AND device <= $2

SELECT * FROM stock WHERE region = 'de'

SELECT * FROM stock WHERE region IN ('de', 'fr')

SELECT * FROM stock WHERE region IN ('de', 'us', 'jp')

SELECT * FROM stock WHERE region = 'nowhere'

SELECT * FROM stock WHERE region > 'de'

SELECT * FROM stock

SELECT * FROM accounts WHERE name = 'ann'

SELECT * FROM accounts WHERE name = 'Ann'

SELECT * FROM accounts WHERE name = ''

SELECT * FROM accounts WHERE name = 'O''Neil'

SELECT * FROM accounts WHERE name = E'back\\slash'

SELECT * FROM accounts WHERE name = 'émile'

SELECT * FROM accounts WHERE name = 'ann'::varchar

SELECT * FROM accounts WHERE name IN ('ann', 'bob', 'zed')

SELECT * FROM accounts WHERE name LIKE 'a%'

SELECT * FROM accounts WHERE lower(name) = 'ann'

-- $1 text émile
SELECT * FROM accounts WHERE name = $1

SELECT * FROM tiles WHERE (zoom, name) IN ((1, 'a'), (2, 'B'), (3, 'é'))

SELECT * FROM tiles WHERE (name, n, zoom) IN (('a', 1, 1), ('B', 2, 2))

SELECT * FROM tiles WHERE (zoom, name) = (1, 'a')

SELECT * FROM tiles WHERE (zoom, name) IN ((1, 'a'), (2, NULL))

-- $1 int 4
-- $2 text a
SELECT * FROM tiles WHERE (zoom, name) IN ((1, 'a'), ($1, $2)) ORDER BY zoom, name COLLATE "C", n

SELECT count(*) FROM tiles WHERE zoom IN (1, 2) AND name IN ('a', 'é')

SELECT * FROM orders WHERE (customer_id, id) IN ((7, 1), (8, 2), (9, 3))

SELECT * FROM readings WHERE (device, n) > (7, 2) AND (device, n) <= (12, 1)

SELECT * FROM readings WHERE (device, n) < (2, 2)

UPDATE tiles SET zoom = zoom + 1, name = upper(name) WHERE (zoom, name) IN ((1, 'a'), (2, 'é')) RETURNING *

DELETE FROM tiles WHERE (zoom, name) NOT IN ((1, 'a'), (2, 'B'))

SELECT customer_id FROM customers WHERE customer_id IN (7, 9, 12) ORDER BY 1 FOR UPDATE SKIP LOCKED

SELECT customer_id FROM customers WHERE customer_id = ' 7 '

SELECT customer_id FROM customers WHERE customer_id = 7.0

SELECT customer_id FROM customers WHERE customer_id = '007'

SELECT customer_id FROM customers WHERE customer_id IN (' 7', '9 ') ORDER BY 1

SELECT customer_id FROM customers WHERE customer_id = '0x7'

SELECT device, n FROM readings WHERE device BETWEEN 12 AND 8

SELECT device, n FROM readings WHERE device BETWEEN SYMMETRIC 12 AND 8 ORDER BY 1, 2

SELECT device, n FROM readings WHERE device > 18 AND device <= 21 ORDER BY device DESC, n

SELECT device, n FROM readings WHERE device < -1 OR device > 28 ORDER BY 1, 2

SELECT device FROM readings WHERE device >= 9.5 AND device < 10.5 AND n = 1 ORDER BY 1

SELECT label, device FROM readings WHERE n = 1 ORDER BY label NULLS FIRST, device LIMIT 8

SELECT region, sku FROM stock WHERE region > 'f' ORDER BY 1, 2

SELECT name FROM accounts WHERE name = 'ann ' OR name = 'ANN' ORDER BY 1

SELECT name FROM accounts WHERE name::char(10) = 'ann' ORDER BY 1

SELECT name FROM accounts WHERE name = 'ann'::char(10)

SELECT name FROM accounts WHERE name = 'Ann' COLLATE "C"

SELECT name FROM accounts WHERE name ILIKE 'ann' ORDER BY name

SELECT zoom, name, n FROM tiles WHERE (zoom, name) > (5, 'a') ORDER BY 1, 2, 3

SELECT zoom, name FROM tiles WHERE zoom = 1 AND name IN ('a', 'B') AND n = 1 ORDER BY 2

SELECT customer_id FROM orders WHERE xmin IS NULL

-- as text: in binary it holds numbers, which are other ones on the plain server
SELECT o FROM orders o WHERE customer_id IN (7, 9) ORDER BY customer_id, id

SELECT row(customer_id, id) FROM orders WHERE id = 1 ORDER BY customer_id

SELECT customer_id FROM customers WHERE customer_id = 7 OR name = 'bob' ORDER BY 1

SELECT customer_id FROM customers WHERE NOT (customer_id <> 7)

SELECT customer_id FROM customers WHERE customer_id = 7 AND customer_id = 8

SELECT customer_id FROM customers WHERE (customer_id = 7) IS TRUE

SELECT customer_id FROM customers WHERE customer_id IS NOT DISTINCT FROM 7

SELECT customer_id FROM customers WHERE customer_id = 7 IS NULL ORDER BY 1

SELECT customer_id FROM customers WHERE CASE WHEN customer_id = 7 THEN true END

SELECT customer_id FROM customers WHERE customer_id = ANY ('{7,NULL,9}') ORDER BY 1

SELECT customer_id FROM customers WHERE customer_id <> ALL ('{7,9}') ORDER BY 1

SELECT customer_id FROM customers WHERE customer_id = ALL ('{7}')

SELECT customer_id FROM customers WHERE customer_id = ANY (ARRAY[[7, 8], [9, 10]]) ORDER BY 1

SELECT customer_id FROM customers WHERE 7 = customer_id

SELECT customer_id FROM customers WHERE customer_id + 0 = 7

SELECT customer_id FROM customers WHERE customer_id = abs(-7)

SELECT customer_id FROM customers c WHERE c = c ORDER BY 1 LIMIT 2

SELECT customer_id FROM orders WHERE tableoid IN ('orders'::regclass, 'customers'::regclass) AND id = 1 ORDER BY 1

SELECT c.relname, o.customer_id FROM orders o JOIN pg_class c ON c.oid = o.tableoid WHERE o.id = 1 ORDER BY 2

SELECT * FROM customers WHERE customer_id = abs(-7)

SELECT * FROM customers WHERE customer_id = 14 / 2 AND tier = lower('GOLD')::tier

SELECT * FROM customers WHERE customer_id IN (3 + 4, mod(18, 10), 9)

SELECT * FROM customers WHERE customer_id = 7::numeric

SELECT * FROM customers WHERE customer_id = ANY (ARRAY[3 + 4, 2 * 4])

SELECT * FROM customers WHERE customer_id = 2147483647 + 1

SELECT * FROM customers WHERE customer_id = 7 / 0

SELECT * FROM stock WHERE region = lower('DE')

SELECT * FROM stock WHERE region = lower('BRI') OR region = 'u' || 's'

SELECT * FROM stock WHERE region IN (lower('DE'), 'u' || 's')

SELECT * FROM accounts WHERE name = 'an' || 'n'

SELECT * FROM accounts WHERE name = 'é' || 'mile'

SELECT * FROM readings WHERE device BETWEEN 2 + 1 AND 2 * 3

SELECT * FROM readings WHERE device >= abs(-8) AND device < 5 * 5

SELECT * FROM tiles WHERE (zoom, name) = (3 - 2, lower('A'))

DELETE FROM orders WHERE customer_id = 3 + 4 AND id = 1

UPDATE customers SET customer_id = 500 + 3 WHERE customer_id = 3 + 4

UPDATE customers SET customer_id = abs(-503), name = 'x' WHERE customer_id = 7 RETURNING customer_id, name

-- $1 int 6
SELECT * FROM customers WHERE customer_id = $1 + 1

-- $1 int 2147483647
SELECT * FROM customers WHERE customer_id = $1 + 1

-- $1 bigint 6
SELECT * FROM customers WHERE customer_id = $1::bigint + 1

-- $1 int -7
SELECT * FROM customers WHERE customer_id = abs($1::int)

-- $1 int 3
-- $2 int 4
SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id) WHERE c.customer_id = $1::int + $2::int ORDER BY o.id

-- $1 int 7
SELECT * FROM customers WHERE customer_id = coalesce($1, 5)

-- $1 int 7
SELECT name FROM customers WHERE customer_id IN ($1 + 1, 9, 10) ORDER BY customer_id

-- $1 int 7
SELECT tier, count(*) FROM customers WHERE customer_id = $1 * 2 GROUP BY tier

-- $1 int 7
SELECT name FROM customers WHERE customer_id = $1 + 1 AND tier > 'bronze' FOR UPDATE

-- $1 text ANN
SELECT * FROM accounts WHERE name = lower($1)

-- $1 text ÉMILE
SELECT * FROM accounts WHERE name = lower($1)

-- $1 text IDA
SELECT * FROM accounts WHERE name = lower($1)

-- $1 text an
SELECT * FROM accounts WHERE name = $1 || 'n'

-- $1 text émi
SELECT * FROM accounts WHERE name = $1 || 'le'

-- $1 text a
-- $2 text nn
SELECT * FROM accounts WHERE name = $1 || $2

-- $1 text ann
SELECT * FROM accounts WHERE name = lower($1) AND owner = upper(left($1, 1))

-- $1 text ann
SELECT * FROM accounts WHERE name = left($1, 3)

-- $1 int 7
SELECT * FROM readings WHERE device > $1 + 1 AND device <= $1 + 4 ORDER BY device, n

-- $1 int 1
SELECT * FROM tiles WHERE zoom = $1 + 1 AND name = lower('A')

-- $1 int 6
SELECT * FROM customers WHERE customer_id = $1 + 1 UNION ALL SELECT * FROM customers WHERE customer_id = $1 + 1

-- $1 int 6
SELECT name FROM customers WHERE customer_id = $1 + 1 AND balance > (SELECT avg(price) FROM orders WHERE customer_id = $1 + 1)

-- $1 int 500
SELECT customer_id FROM orders WHERE customer_id = $1 - 493 AND qty < $1

PREPARE p (int) AS SELECT name FROM customers WHERE customer_id = $1 + 1;
EXECUTE p (6);
EXECUTE p (NULL);
DEALLOCATE p

PREPARE p AS SELECT name FROM accounts WHERE name = lower($1);
EXECUTE p ('ANN');
EXECUTE p (upper('bob'));
DEALLOCATE p

PREPARE p AS SELECT name FROM accounts WHERE name = $1;
EXECUTE p ('ann'::text);
EXECUTE p ('ann'::varchar);
DEALLOCATE p

PREPARE p (uuid, date) AS SELECT count(*) FROM accounts WHERE $1 = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' AND $2 < '2030-01-01';
EXECUTE p ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid, date '20200102');
DEALLOCATE p

PREPARE p (text) AS SELECT count(*) FROM accounts WHERE $1 IN ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\x616263', '2020-01-02');
EXECUTE p ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid);
EXECUTE p ('abc'::bytea);
EXECUTE p (date '20200102');
DEALLOCATE p

PREPARE p (text) AS SELECT name FROM accounts WHERE name IN ($1, NULL);
EXECUTE p (left('anna', 3));
EXECUTE p (left('carla', 4));
EXECUTE p (left('doras', 4));
EXECUTE p (left('guse', 3));
DEALLOCATE p

SELECT * FROM customers WHERE customer_id = 7::customer_no

SELECT * FROM customers WHERE customer_id = '7'::public.favored

SELECT * FROM customers WHERE customer_id = 13::customer_no

SELECT * FROM customers WHERE customer_id = (-7)::favored

SELECT * FROM customers WHERE customer_id IN (7::customer_no, 8::favored) ORDER BY customer_id

SELECT * FROM customers WHERE customer_id = ANY ('{7,8}'::customer_no[]) ORDER BY customer_id

-- $1 bigint 7
SELECT * FROM customers WHERE customer_id = $1::customer_no

-- $1 text ann
SELECT * FROM accounts WHERE name = $1::login

SELECT * FROM accounts WHERE name = 'ann'::login

SELECT * FROM accounts WHERE name = 'annabel'::short_login

SELECT * FROM accounts WHERE name = 'ann'::login_c

SELECT * FROM accounts WHERE name = lower('ANN'::login)

PREPARE p (customer_no) AS SELECT name FROM customers WHERE customer_id = $1;
EXECUTE p (7);
EXECUTE p (8::customer_no);
DEALLOCATE p
