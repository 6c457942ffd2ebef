SELECT customer_id, name, tier, balance, score, born, active, tags, meta, ref, seen FROM customers

SELECT customer_id, id, item, qty, price, tier, placed, paid FROM orders ORDER BY customer_id, id

SELECT customer_id, amount, weight, flags FROM order_lines ORDER BY customer_id, order_id, line

SELECT balance::text, score::int, born::timestamp, tags::text, meta::text, seen::date FROM customers ORDER BY customer_id

SELECT l FROM order_lines l WHERE customer_id = 3

SELECT l FROM order_lines l

SELECT row(customer_id, name) FROM customers

SELECT to_jsonb(c) FROM customers c ORDER BY customer_id

SELECT row_to_json(o) FROM orders o WHERE customer_id = 9

SELECT tags[1], tags[1:1], array_length(tags, 1) FROM customers

SELECT meta -> 'list' -> 0, meta #>> '{list,1}' FROM customers

SELECT 'x'::varchar(3) AS v, 1::smallint AS s, 1.5::float4 AS f, '{1,2}'::int[] AS a, interval '1 day' AS i FROM customers WHERE customer_id < 3

SELECT NULL AS n, 'unknown' AS u, 1 AS one FROM customers WHERE customer_id < 3

SELECT 'NaN'::float8 AS nan, 'Infinity'::numeric AS inf, '-Infinity'::timestamptz AS t FROM customers WHERE customer_id < 3

SELECT customer_id::numeric(20,4), name::char(4) FROM customers ORDER BY customer_id

SELECT ARRAY[customer_id, 1], ARRAY[name, 'x'] FROM customers ORDER BY customer_id

SELECT tier::text, enum_range(tier)::text FROM customers ORDER BY customer_id

SELECT now() - now() AS zero, current_user, current_database() FROM customers WHERE customer_id = 3

SELECT pg_typeof(sum(qty)), pg_typeof(avg(price)), pg_typeof(count(*)) FROM orders

SELECT sum(customer_id), avg(customer_id) FROM customers

SELECT decode('00ff', 'hex') AS b FROM customers WHERE customer_id = 3

SELECT name AS "Näme", balance AS "a b" FROM customers ORDER BY customer_id

SELECT name, name FROM customers ORDER BY customer_id

SELECT 1, 2, name FROM customers ORDER BY customer_id

SELECT FROM customers

SELECT balance * 1.1, balance / 3 FROM customers ORDER BY customer_id

SELECT sum(balance / 3), avg(balance / 7) FROM customers

SELECT min(tags), max(tags) FROM customers

SELECT max(ref::text) FROM customers
