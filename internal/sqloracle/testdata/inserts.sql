INSERT INTO customers (customer_id, name) VALUES (101, 'new')

INSERT INTO customers (customer_id, name) VALUES (101, 'new') RETURNING *

INSERT INTO customers (name, customer_id) VALUES ('new', 102) RETURNING customer_id, name AS n

INSERT INTO customers VALUES (103, 'new', 'gold', 1.5, 2.5, '2020-01-01', true, '{a}', '{"x": 1}', NULL, NULL) RETURNING customer_id

INSERT INTO orders (customer_id, id, item) VALUES (9, 50, 'a'), (9, 51, 'b')

INSERT INTO orders (customer_id, id, item) VALUES (9, 50, 'a'), (10, 50, 'b'), (11, 50, 'c')

INSERT INTO orders (customer_id, id, item) VALUES (9, 50, 'a'), (10, 50, 'b'), (11, 50, 'c') RETURNING customer_id, item

INSERT INTO customers (customer_id) VALUES (201), (202), (203), (204), (205), (206), (207), (208)

-- $1 bigint 301
-- $2 text x
INSERT INTO customers (customer_id, name) VALUES ($1, $2)

-- $1 bigint 301
-- $2 bigint 302
INSERT INTO customers (customer_id, name) VALUES ($1, 'a'), ($2, 'b') RETURNING customer_id

INSERT INTO customers (customer_id, name) VALUES (1, 'again')

INSERT INTO customers (customer_id, name) VALUES (104, 'fresh'), (1, 'again')

INSERT INTO customers (customer_id, name) VALUES (1, 'again') ON CONFLICT DO NOTHING

INSERT INTO customers (customer_id, name) VALUES (1, 'again') ON CONFLICT (customer_id) DO NOTHING RETURNING name

INSERT INTO customers (customer_id, name) VALUES (1, 'again') ON CONFLICT (customer_id) DO UPDATE SET name = EXCLUDED.name RETURNING name

INSERT INTO customers (customer_id, name) VALUES (1, 'a'), (2, 'b'), (105, 'c') ON CONFLICT (customer_id) DO UPDATE SET name = EXCLUDED.name || '!' RETURNING customer_id, name

INSERT INTO customers (customer_id, name) VALUES (1, 'a'), (2, 'b'), (105, 'c') ON CONFLICT DO NOTHING RETURNING customer_id

INSERT INTO customers (customer_id, score) VALUES (1, 5) ON CONFLICT (customer_id) DO UPDATE SET score = customers.score + EXCLUDED.score WHERE customers.active RETURNING score

INSERT INTO customers (customer_id, name) VALUES (106, DEFAULT), (107, 'x')

INSERT INTO customers (customer_id, name) VALUES (110, 'x'), (110, 'y')

INSERT INTO orders (customer_id, id) VALUES (9, NULL)

INSERT INTO customers (customer_id, balance) VALUES (108, 99999999999999)

INSERT INTO customers (customer_id, tier) VALUES (108, 'platinum')

INSERT INTO order_lines (customer_id, order_id, line, sku) SELECT customer_id, id, 77, item FROM orders WHERE customer_id = 9

INSERT INTO order_lines (customer_id, order_id, line, sku) SELECT customer_id, id, 77, item FROM orders

INSERT INTO customers (customer_id, name) SELECT i, 'gen' FROM generate_series(401, 405) i

INSERT INTO customers (customer_id, name) SELECT 406, 'one'

INSERT INTO readings (device, n, value) VALUES (5, 10, 1.5)

INSERT INTO readings (device, n, value) VALUES (5, 10, 1.5), (15, 10, 2.5), (25, 10, 3.5)

INSERT INTO readings (device, n) VALUES (9, 11), (10, 11) RETURNING device

INSERT INTO stock (region, sku, qty) VALUES ('de', 'new', 1), ('us', 'new', 2), ('zz', 'new', 3)

INSERT INTO stock (region, sku, qty) VALUES ('fr', 'sku1', 100) ON CONFLICT (region, sku) DO UPDATE SET qty = stock.qty + EXCLUDED.qty RETURNING qty

INSERT INTO accounts (name, cents) VALUES ('new', 5), ('Neu', 6), ('nouveau', 7)

INSERT INTO notes (id, body) VALUES (100, 'x'), (101, 'y') RETURNING *

INSERT INTO notes (id, body) SELECT id + 200, body FROM notes

INSERT INTO notes DEFAULT VALUES

INSERT INTO settings (k, v) VALUES ('k1', 'changed') ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v

-- refused: no key
MERGE INTO orders o USING (VALUES (9::bigint, 1, 'merged'), (9, 60, 'made')) v (c, i, t) ON o.customer_id = v.c AND o.id = v.i WHEN MATCHED THEN UPDATE SET item = v.t WHEN NOT MATCHED THEN INSERT (customer_id, id, item) VALUES (v.c, v.i, v.t)

INSERT INTO stock VALUES ('de', 'new', 3, 1.5), ('us', 'new', 4, 2.5), ('jp', 'new', 5, DEFAULT) RETURNING *

INSERT INTO stock VALUES ('de', 'new')

-- $1 text de
-- $2 text new2
INSERT INTO stock AS s VALUES ($1, $2, 5) ON CONFLICT (region, sku) DO UPDATE SET qty = s.qty + 1 RETURNING sku, qty

INSERT INTO orders SELECT customer_id, id + 40, 'copied', qty FROM orders WHERE id = 1

INSERT INTO stock VALUES ('de', 'new', 3, 1.5, 'too many')

INSERT INTO stock VALUES ('de', 'new', 'x')

INSERT INTO tiles VALUES (7, 'new', 1), (8, 'new', 1), (9, 'new', 1, 'noted') RETURNING note, name, zoom

INSERT INTO customers (customer_id, name) VALUES (7, 'seven') ON CONFLICT (customer_id) DO UPDATE SET customer_id = EXCLUDED.customer_id, name = 'eight' RETURNING customer_id, name

-- refused: UPDATE of the key
INSERT INTO customers (customer_id, name) VALUES (7, 'seven') ON CONFLICT (customer_id) DO UPDATE SET customer_id = 8 RETURNING customer_id, name

INSERT INTO customers (customer_id, name) VALUES (7, 'x'), (107, 'y'), (8, 'z') ON CONFLICT DO NOTHING RETURNING customer_id

INSERT INTO customers (customer_id, name) VALUES (107, 'a'), (108, 'b') RETURNING customer_id, (SELECT count(*) FROM items)

-- refused: not joined by the key
INSERT INTO customers (customer_id, name) VALUES (107, 'a'), (108, 'b') RETURNING customer_id, (SELECT count(*) FROM customers)

INSERT INTO customers (customer_id, name) VALUES (' 107 ', 'a'), ('108', 'b') RETURNING customer_id

INSERT INTO customers (customer_id, name) VALUES (107.4, 'a') RETURNING customer_id

-- refused: not joined by the key
INSERT INTO customers (customer_id, name) SELECT customer_id + 100, name FROM customers WHERE customer_id = 7

INSERT INTO customers (customer_id, name) SELECT 107, 'a' UNION ALL SELECT 108, 'b'

INSERT INTO customers (customer_id, name) (VALUES (107, 'a'), (108, 'b')) ORDER BY 1 LIMIT 1

INSERT INTO customers (customer_id, name) VALUES (107, 'a'), (108, 'b'), (109, 'c') ORDER BY 1 OFFSET 1

INSERT INTO customers (customer_id, name) VALUES (107, 'a'), (108, 'b'), (109, 'c') LIMIT 2

WITH v AS (SELECT 107 AS k) INSERT INTO customers (customer_id, name) SELECT k, 'x' FROM v RETURNING customer_id

INSERT INTO customers (customer_id, name) VALUES (abs(-503), 'x') RETURNING customer_id

INSERT INTO customers (customer_id, name) VALUES (500 + 3, 'x'), (abs(-504), 'y'), (505::numeric, 'z') RETURNING customer_id, name

INSERT INTO stock (region, sku, qty) VALUES (lower('DE'), 'x', 1), ('u' || 's', 'y', 2) RETURNING region

INSERT INTO stock (region, sku) SELECT lower('DE'), 'sku' || 9

INSERT INTO accounts (name, cents) VALUES (md5('x'), 5), ('new' || 'é', 6) RETURNING name

INSERT INTO readings (device, n) VALUES (2147483647 + 1, 1)

INSERT INTO stock (region, sku) VALUES (lower('BRI'), 'x')

INSERT INTO tiles (zoom, name, n) VALUES (1 + 1, upper('b'), 99)

-- $1 bigint[] {501,502}
INSERT INTO customers (customer_id) SELECT unnest($1::bigint[])

-- $1 bigint[] {501,502}
-- $2 text[] {a,b}
INSERT INTO customers (customer_id, name) SELECT * FROM unnest($1::bigint[], $2::text[])

-- $1 bigint[] {501,502}
-- $2 text[] {a,b}
INSERT INTO customers (customer_id, name) SELECT u.k, u.n FROM unnest($1::bigint[], $2::text[]) AS u (k, n)

-- $1 int[] {91,92}
INSERT INTO orders (customer_id, id) SELECT 7, unnest($1::int[])

-- $1 int 600
INSERT INTO customers (customer_id, name) VALUES ($1 + 1, 'x') RETURNING *

-- $1 int 600
-- $2 int 601
INSERT INTO customers (customer_id, name) VALUES ($1 + 1, 'x'), ($2 + 7, 'y'), (4, 'z') ON CONFLICT DO NOTHING

-- $1 text É
-- refused: computed of parameters
INSERT INTO accounts (name, owner) VALUES (lower($1), 'x')

-- $1 int 600
INSERT INTO customers (customer_id, name) SELECT $1 + 1, 'x'

-- $1 text X
INSERT INTO accounts (name, owner) VALUES (lower($1::text), $1::text)

INSERT INTO customers (customer_id, name) VALUES (600::customer_no, 'x'), (601::favored, 'y') RETURNING *

-- $1 bigint 600
INSERT INTO customers (customer_id, name) VALUES ($1::favored, 'x')

INSERT INTO customers (customer_id, name) VALUES (13::customer_no, 'x')

-- $1 bigint[] {601,602,603,604}
-- $2 text[] {a,NULL,"c,d","e\"\\f"}
INSERT INTO customers (name, customer_id) SELECT n, k FROM unnest($1::bigint[], $2::text[]) AS u (k, n) RETURNING customer_id, name

-- $1 bigint[] {7,602,8}
-- $2 text[] {a,b,c}
INSERT INTO customers (customer_id, name) SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT (customer_id) DO UPDATE SET name = EXCLUDED.name || '-' || customers.name RETURNING *

-- $1 bigint[] {7,602,8}
-- $2 text again
INSERT INTO customers AS c (customer_id, name) SELECT k, $2 FROM unnest($1::bigint[]) k ON CONFLICT (customer_id) DO UPDATE SET name = $2 WHERE c.customer_id < 8 RETURNING c.customer_id, $2::text

-- $1 bigint[] {7,602,8}
INSERT INTO customers (customer_id, name) SELECT k, 'x' FROM unnest($1::bigint[]) k ON CONFLICT DO NOTHING

INSERT INTO customers (customer_id, name, tier, born, seen, tags, meta, ref, balance) SELECT k, 'n' || k, 'gold', '2001-02-03', '2024-01-01 10:00+02', ARRAY['a', NULL], '{"a": 1}', '00000000-0000-0000-0000-00000000000a', k / 3.0 FROM generate_series(701, 709) k;
SELECT * FROM customers WHERE customer_id > 700 ORDER BY 1

WITH v (k, n) AS (VALUES (107, 'a'), (108, 'b')) INSERT INTO customers (customer_id, name) SELECT k, n FROM v RETURNING customer_id

WITH RECURSIVE v (k) AS (SELECT 801 UNION ALL SELECT k + 1 FROM v WHERE k < 805) INSERT INTO customers (customer_id) SELECT k FROM v

INSERT INTO readings (device, n, at, value) SELECT d, n, '2024-01-01'::timestamptz + n * interval '1 hour', n * 1.5 FROM generate_series(0, 30, 6) d, generate_series(100, 102) n

INSERT INTO stock (region, sku, qty) SELECT left(r, 2), 'sku', 2.5 FROM unnest(ARRAY['de-x', 'us-y', 'jp-z', 'fr-w']) r RETURNING region, qty

INSERT INTO tiles (name, n, zoom) SELECT upper(m), 50 + z, z FROM generate_series(1, 4) z, unnest(ARRAY['q', 'É']) m

INSERT INTO accounts (name, owner) SELECT item, kind FROM items

INSERT INTO accounts (name, opened) SELECT i.item || t.tier, '2024-05-06' FROM items i JOIN tiers t ON t.discount > 1 WHERE i.grams IS NOT NULL

INSERT INTO accounts SELECT i.item FROM items i ORDER BY item LIMIT 3

-- error 22004: such a row belongs to no shard
INSERT INTO accounts (name) SELECT NULL FROM generate_series(1, 2)

-- error 22004: such a row belongs to no shard
INSERT INTO accounts (name) SELECT nullif(k::text, '2') FROM generate_series(1, 3) k

INSERT INTO accounts (name) SELECT 5 FROM generate_series(1, 2)

INSERT INTO orders (customer_id, id, qty) SELECT g, 90, 'x' FROM generate_series(1, 3) g

INSERT INTO customers (customer_id) SELECT 'seven' FROM generate_series(1, 2)

INSERT INTO customers (customer_id, name) SELECT k, 'x' FROM generate_series(5, 9) k

INSERT INTO customers (customer_id, balance) SELECT k, 12345678901234.5 FROM generate_series(501, 503) k

INSERT INTO customers (customer_id, balance) SELECT k, 1.239 FROM generate_series(501, 503) k RETURNING balance

INSERT INTO customers (customer_id) SELECT k FROM generate_series(501, 500) k RETURNING customer_id

INSERT INTO customers (customer_id, name) SELECT k FROM generate_series(501, 502) k

-- refused: no key
INSERT INTO customers (customer_id) SELECT k FROM generate_series(501, 503) k RETURNING customer_id, (SELECT count(*) FROM items)

-- refused: no key
INSERT INTO customers (customer_id) SELECT k FROM generate_series(501, 503) k ON CONFLICT (customer_id) DO UPDATE SET name = (SELECT max(item) FROM items)

-- refused: sharded and unsharded tables
INSERT INTO customers (customer_id, name) SELECT id, body FROM notes

-- refused: no key
INSERT INTO customers (customer_id) SELECT oid::int FROM pg_class

-- refused: no key
INSERT INTO customers (customer_id, tags[1]) SELECT k, 'x' FROM generate_series(501, 503) k

-- refused: no key
EXPLAIN INSERT INTO customers (customer_id) SELECT k FROM generate_series(501, 503) k

BEGIN;
INSERT INTO customers (customer_id) SELECT k FROM generate_series(501, 503) k;
INSERT INTO orders (customer_id, id) SELECT k, 1 FROM generate_series(501, 503) k;
SELECT customer_id, id FROM orders WHERE customer_id > 500 ORDER BY 1;
ROLLBACK

PREPARE many (bigint[]) AS INSERT INTO customers (customer_id, name) SELECT k, 'p' FROM unnest($1) k RETURNING customer_id;
EXECUTE many ('{901,902,903}');
EXECUTE many ('{904}')

INSERT INTO accounts (name, owner) SELECT k, '{rows}{columns}{type 1}' FROM unnest(ARRAY['{rows}', '{columns}', 'a"{rows}"']) k RETURNING *

-- refused: no key
INSERT INTO accounts ("name", owner) SELECT "{rows}", 'x' FROM unnest(ARRAY['z1', 'z2']) AS v ("{rows}")

INSERT INTO accounts (name, owner, cents) VALUES (left('anna', 2), 'x', 5), (reverse('nab'), 6, 7.5), ('plain', NULL, '8') RETURNING *

INSERT INTO accounts (owner, name, opened) VALUES ('2024-01-01'::date, concat('a', 'b'), '2024-01-01'), (5.50, concat('c', 'd'), '2024-01-02 10:00'::timestamp), (true, concat('e', 'f'), date '2024-01-03' + 1)

INSERT INTO customers (customer_id, score, balance) VALUES (length('abc') + 500, 1.1::float8, 1.239), (length('abcd') + 500, 0.1::numeric, 2::float8 / 3) RETURNING customer_id, score, balance

-- refused: no key
INSERT INTO customers (customer_id, tier, tags, meta) VALUES (length('abc') + 500, 'gold', '{a,b}', '{"x": [1]}'), (length('abcd') + 500, NULL, ARRAY['c'], 'null')

-- $1 bigint 5
-- $2 text two
INSERT INTO customers (customer_id, name) VALUES (greatest($1, 600), $2), (601, $2 || '!') ON CONFLICT DO NOTHING RETURNING customer_id, name

-- refused: no key
INSERT INTO customers (customer_id, name) VALUES (length('abc') + 500, DEFAULT)

INSERT INTO customers (customer_id, name) VALUES (length('abc') + 500, 'x'), (length('abc') + 500, 'y')

INSERT INTO customers (customer_id, name) VALUES (1 / (length('abc') - 3), 'x'), (502, 'y')

INSERT INTO customers (customer_id, name) VALUES ('seven'::text, 'x')

-- refused: no key
INSERT INTO customers (customer_id, name) VALUES (length('abc') + 500, 'x'), (length('x'))

-- refused: no key
INSERT INTO customers (customer_id, name) VALUES (length('abc') + 500)

-- refused: no key
INSERT INTO customers (customer_id) VALUES (length('abc') + 500, 'x')

-- error 22004: such a row belongs to no shard
INSERT INTO customers (customer_id, name) VALUES (nullif(length('abc'), 3), 'x')

INSERT INTO readings (device, n, at) VALUES (extract(day FROM date '2024-01-17'), 900, '2024-01-01 00:00+00'), ('5', 901, '2024-01-01'::date)

INSERT INTO stock (region, sku, price) VALUES (substr('xde', 2), 's1', 1.999), (substr('xus', 2), 's2', '2.5')

INSERT INTO customers (customer_id, name) VALUES (length('abc') + 500, 'x'), (504, 'y'), (505, 'z') ORDER BY 1 DESC LIMIT 2

INSERT INTO accounts (name, cents) VALUES (9 + length(''), 1), (10 + length(''), 2) ORDER BY 1 LIMIT 1

INSERT INTO accounts (owner, name) VALUES (9, 'x'), (10, 'y') ORDER BY 1 LIMIT 1

INSERT INTO accounts (owner, name) VALUES (1.50, 'a' || length('b')), (2::float8, 'c') ORDER BY 2 LIMIT 2

INSERT INTO accounts (name, owner) WITH v AS (SELECT 501 AS k) VALUES ((SELECT k FROM v), 1.50), (length('abc'), 2::float8)

-- refused: no key
INSERT INTO customers (customer_id, tags) VALUES (length('abc') + 500, ARRAY[1.50, 2::float8])

INSERT INTO customers (customer_id, tags) VALUES (length('abc') + 500, ARRAY[1.50, 2::float8]::text[]), (length('abcd') + 500, '{a,b}')

BEGIN READ ONLY;
INSERT INTO customers (customer_id, name) SELECT k, 'x' FROM generate_series(1, 0) k

-- refused: no key in INSERT
INSERT INTO customers SELECT * FROM generate_series(501, 505) k

-- refused: LIMIT in INSERT
INSERT INTO accounts (name, cents) VALUES ('a1', (SELECT tableoid::bigint FROM items LIMIT 1)), ('b1', 2) LIMIT 2

INSERT INTO customers (customer_id, name) VALUES (508, 'a'), (507, 'b'), (506, 'c'), (505, 'd'), (504, 'e') RETURNING customer_id, name

-- $1 bigint 508
-- $2 bigint 505
-- $3 bigint 507
-- $4 bigint 504
-- $5 bigint 506
INSERT INTO customers (customer_id, balance, seen) VALUES ($1, 1.5, '2024-02-03 04:05:06+00'), ($2, 2.5, NULL), ($3, 3.5, NULL), ($4, 4.5, NULL), ($5, 5.5, NULL) RETURNING customer_id, balance, seen

INSERT INTO customers (customer_id, name) VALUES (508, 'a'), (8, 'b'), (506, 'c'), (5, 'd'), (504, 'e'), (4, 'f') ON CONFLICT (customer_id) DO UPDATE SET name = EXCLUDED.name RETURNING customer_id, name

INSERT INTO customers (customer_id, name) VALUES (508, 'a'), (507, 'b'), (506, 'c'), (505, 'd'), (504, 'e') ON CONFLICT DO NOTHING RETURNING customer_id, name

-- sorted before they are inserted
INSERT INTO customers (customer_id, name) VALUES (508, 'a'), (507, 'b'), (506, 'c'), (505, 'd'), (504, 'e') ORDER BY 2 DESC RETURNING customer_id, name

INSERT INTO customers (customer_id, name) VALUES (508, 'a'), (507, 'b'), (506, 'c'), (505, 'd'), (504, 'e') ORDER BY 1

INSERT INTO customers (customer_id, name) SELECT k, 'n' || k FROM generate_series(520, 505, -1) k RETURNING customer_id, name

-- as an ORM has it that pairs rows with its objects
INSERT INTO customers (customer_id, name) SELECT p0::bigint, p1::text FROM (VALUES (508, 'a', 0), (507, 'b', 1), (506, 'c', 2), (505, 'd', 3), (504, 'e', 4)) AS imp_sen (p0, p1, sen_counter) ORDER BY sen_counter RETURNING customer_id, name

PREPARE many AS INSERT INTO customers (customer_id, name) VALUES ($1, 'a'), ($2, 'b'), ($3, 'c'), ($4, 'd') RETURNING customer_id, name;
EXECUTE many (510, 509, 508, 507)

-- $1 numeric 508.4
-- $2 float8 507
-- $3 bigint 506
INSERT INTO customers (customer_id, name) VALUES ($1, 'a'), ($2, 'b'), ($3, 'c') RETURNING customer_id, name

-- $1 numeric 19.5
-- $2 numeric 3
INSERT INTO readings (device, n) VALUES ($1, 50), ($2, 51) RETURNING device, n

PREPARE odd (numeric, numeric) AS INSERT INTO readings (device, n) VALUES ($1, 50), ($2, 51) RETURNING device, n;
EXECUTE odd (19.5, 3)
