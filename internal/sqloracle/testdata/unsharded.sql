SELECT * FROM notes

SELECT * FROM notes WHERE id = 3

SELECT body, n FROM notes ORDER BY n DESC NULLS LAST, id LIMIT 5

SELECT 1

SELECT 1 + 1 AS two, 'x' || 'y' AS xy

SELECT upper('x'), length('yyy')

-- $1 int 4
SELECT $1::int + 1

SELECT generate_series(1, 3)

SELECT * FROM generate_series(1, 3) AS g (x) WHERE x > 1

SELECT count(*) FROM pg_class WHERE relname = 'customers'

SELECT relname, relkind FROM pg_class WHERE relname IN ('customers', 'notes')

SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position

SELECT current_user, current_database()

SELECT 1 WHERE false

SELECT NULL::int, NULL::text

SHOW search_path

SHOW standard_conforming_strings

SELECT current_setting('DateStyle')

SET DateStyle = 'German';
SELECT born FROM customers WHERE customer_id = 7;
SELECT seen FROM customers ORDER BY customer_id;
RESET DateStyle

SET TimeZone = 'Asia/Tokyo';
SELECT seen FROM customers WHERE customer_id = 7;
SELECT customer_id, seen FROM customers ORDER BY customer_id;
SELECT date_trunc('day', placed) AS d, count(*) FROM orders GROUP BY 1 ORDER BY 1;
RESET TimeZone

SET extra_float_digits = 0;
SELECT score / 3 FROM customers ORDER BY customer_id;
RESET extra_float_digits

SET IntervalStyle = 'iso_8601';
SELECT seen - '2024-01-01' FROM customers ORDER BY customer_id;
RESET IntervalStyle

SET bytea_output = 'escape';
SELECT 'abc'::bytea FROM customers WHERE customer_id < 4;
RESET bytea_output

PREPARE p (bigint) AS SELECT name FROM customers WHERE customer_id = $1;
EXECUTE p (7);
EXECUTE p (8);
DEALLOCATE p

PREPARE q AS SELECT count(*) FROM customers;
EXECUTE q;
DEALLOCATE q

EXPLAIN (COSTS off) SELECT 1
