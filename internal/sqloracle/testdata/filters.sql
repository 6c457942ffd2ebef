SELECT customer_id FROM customers WHERE tier = 'gold'

SELECT customer_id FROM customers WHERE tier > 'bronze'

SELECT customer_id FROM customers WHERE tier IS NULL

SELECT customer_id FROM customers WHERE active

SELECT customer_id FROM customers WHERE NOT active

SELECT customer_id FROM customers WHERE active IS NOT TRUE

SELECT customer_id FROM customers WHERE balance > 10.5

SELECT customer_id FROM customers WHERE score BETWEEN 0 AND 10

SELECT customer_id FROM customers WHERE name LIKE '%n%'

SELECT customer_id FROM customers WHERE name ILIKE 'ann_'

SELECT customer_id FROM customers WHERE name ~ '^[A-Z]'

SELECT customer_id FROM customers WHERE name SIMILAR TO '(anna|bob)'

SELECT customer_id FROM customers WHERE tags @> ARRAY['x']

SELECT customer_id FROM customers WHERE 'y' = ANY (tags)

SELECT customer_id FROM customers WHERE meta @> '{"n": 1}'

SELECT customer_id FROM customers WHERE meta ->> 'n' = '2'

SELECT customer_id FROM customers WHERE meta ? 'list'

SELECT customer_id FROM customers WHERE ref = '00000000-0000-0000-0000-000000000003'

SELECT customer_id FROM customers WHERE born < '1980-01-01'

SELECT customer_id FROM customers WHERE extract(year FROM born) = 1975

SELECT customer_id FROM customers WHERE seen >= '2024-01-05 00:00:00+00' AND seen < '2024-01-10 00:00:00+00'

SELECT customer_id FROM customers WHERE seen IS NULL OR born IS NULL

SELECT customer_id FROM customers WHERE coalesce(name, 'none') = 'none'

SELECT customer_id FROM customers WHERE nullif(name, 'bob') IS NULL

SELECT customer_id FROM customers WHERE CASE WHEN tier = 'gold' THEN score > 0 ELSE active END

SELECT customer_id FROM customers WHERE (tier, active) = ('gold', true)

SELECT customer_id FROM customers WHERE name IS DISTINCT FROM 'bob'

SELECT customer_id FROM customers WHERE customer_id % 2 = 0

SELECT customer_id FROM customers WHERE true

SELECT customer_id FROM customers WHERE false

SELECT customer_id, id FROM orders WHERE qty IN (1, 2, 3) AND paid

SELECT customer_id, id FROM orders WHERE price >= ALL (ARRAY[10, 20])

SELECT customer_id, id FROM orders WHERE placed::date = '2024-03-03'

SELECT customer_id, id, price * qty AS total FROM orders WHERE price * qty > 100

SELECT customer_id, order_id, line FROM order_lines WHERE flags && ARRAY[1]

-- $1 tier gold
SELECT customer_id FROM customers WHERE tier = $1

-- $1 text b%
-- $2 numeric 5.25
SELECT customer_id FROM customers WHERE name LIKE $1 AND balance > $2

-- $1 timestamptz 2024-01-08 00:00:00+00
SELECT customer_id FROM customers WHERE seen > $1
