SET TimeZone = 'Asia/Shanghai';
SET DateStyle = 'SQL, DMY';
SELECT max(seen), min(seen) FROM customers;
SELECT seen, count(*) FROM customers GROUP BY seen;
SELECT DISTINCT seen FROM customers ORDER BY seen;
SELECT customer_id, seen FROM customers ORDER BY seen, customer_id;
SELECT array_agg(seen ORDER BY customer_id) FROM customers;
SELECT placed FROM orders UNION SELECT placed FROM orders;
SELECT born, seen::timestamp, count(*) FROM customers GROUP BY 1, 2;
RESET ALL

SET TimeZone = 'Asia/Kolkata';
SET DateStyle = 'Postgres';
SELECT max(seen), max(seen::timestamp), max(born) FROM customers;
SELECT '0044-03-15 12:00:00.5 BC'::timestamptz + customer_id * '0 s'::interval AS t, 'infinity'::timestamptz AS i, '-infinity'::date AS d, '12024-01-02 03:04:05+00'::timestamptz AS f, count(*) FROM customers GROUP BY 1;
RESET ALL

SET extra_float_digits = 0;
SELECT count(DISTINCT 1 + customer_id % 3 * 2.3e-16::float8) FROM customers;
SELECT 1 + customer_id % 3 * 2.3e-16::float8 AS f, count(*) FROM customers GROUP BY f ORDER BY count(*), min(customer_id % 3);
SELECT max(1 + customer_id % 3 * 2.3e-16::float8) - 1 FROM customers;
RESET ALL

SET extra_float_digits = -10;
SELECT sum(CASE customer_id % 2 WHEN 0 THEN 12345.123::float8 ELSE -12345 END) FROM customers;
SELECT sum(weight::float4), min(weight), 'NaN'::float8 AS n, '-Infinity'::float4 AS i, '-0'::float8 AS z FROM order_lines;
RESET ALL

SET array_nulls = off;
SELECT DISTINCT name FROM customers;
SELECT name, count(*), max(score) FROM customers GROUP BY name;
RESET ALL

SET array_nulls = off;
UPDATE items SET grams = NULL, kind = left(now()::text, 0) WHERE item = 'pen';
INSERT INTO items (item, kind) SELECT 'glue', NULL WHERE now() IS NOT NULL;
UPDATE orders SET customer_id = customer_id + 1000 WHERE qty IS NULL;
INSERT INTO customers (customer_id, name) SELECT 501 + n, NULL FROM unnest('{1,2,3}'::int[]) n;
RESET ALL

-- refused: settings
SET DateStyle = 'German';
SELECT max(ARRAY[seen]) FROM customers WHERE customer_id > 0;
RESET ALL

-- refused: settings
SET extra_float_digits = 0;
SELECT DISTINCT ARRAY[score] FROM customers;
RESET ALL

SET TimeZone = 'Asia/Shanghai';
SET DateStyle = 'SQL, DMY';
PREPARE p (timestamptz) AS SELECT $1 AS t, count(*) FROM customers GROUP BY 1;
EXECUTE p ('2024-01-06 14:00:00+00'::timestamptz + '1 hour');
DEALLOCATE p;
RESET ALL
