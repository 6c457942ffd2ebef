-- refused: no key
SELECT customer_id FROM customers WHERE tier = 'gold'

-- refused: no key
SELECT customer_id FROM customers WHERE tier > 'bronze'

-- refused: no key
SELECT customer_id FROM customers WHERE tier IS NULL

-- refused: no key
SELECT customer_id FROM customers WHERE active

-- refused: no key
SELECT customer_id FROM customers WHERE NOT active

-- refused: no key
SELECT customer_id FROM customers WHERE active IS NOT TRUE

-- refused: no key
SELECT customer_id FROM customers WHERE balance > 10.5

-- refused: no key
SELECT customer_id FROM customers WHERE score BETWEEN 0 AND 10

-- refused: no key
SELECT customer_id FROM customers WHERE name LIKE '%n%'

-- refused: no key
SELECT customer_id FROM customers WHERE name ILIKE 'ann_'

-- refused: no key
SELECT customer_id FROM customers WHERE name ~ '^[A-Z]'

-- refused: no key
SELECT customer_id FROM customers WHERE name SIMILAR TO '(anna|bob)'

-- refused: no key
SELECT customer_id FROM customers WHERE tags @> ARRAY['x']

-- refused: no key
SELECT customer_id FROM customers WHERE 'y' = ANY (tags)

-- refused: no key
SELECT customer_id FROM customers WHERE meta @> '{"n": 1}'

-- refused: no key
SELECT customer_id FROM customers WHERE meta ->> 'n' = '2'

-- refused: no key
SELECT customer_id FROM customers WHERE meta ? 'list'

-- refused: no key
SELECT customer_id FROM customers WHERE ref = '00000000-0000-0000-0000-000000000003'

-- refused: no key
SELECT customer_id FROM customers WHERE born < '1980-01-01'

-- refused: no key
SELECT customer_id FROM customers WHERE extract(year FROM born) = 1975

-- refused: no key
SELECT customer_id FROM customers WHERE seen >= '2024-01-05 00:00:00+00' AND seen < '2024-01-10 00:00:00+00'

-- refused: no key
SELECT customer_id FROM customers WHERE seen IS NULL OR born IS NULL

-- refused: no key
SELECT customer_id FROM customers WHERE coalesce(name, 'none') = 'none'

-- refused: no key
SELECT customer_id FROM customers WHERE nullif(name, 'bob') IS NULL

-- refused: no key
SELECT customer_id FROM customers WHERE CASE WHEN tier = 'gold' THEN score > 0 ELSE active END

-- refused: no key
SELECT customer_id FROM customers WHERE (tier, active) = ('gold', true)

-- refused: no key
SELECT customer_id FROM customers WHERE name IS DISTINCT FROM 'bob'

-- refused: no key
SELECT customer_id FROM customers WHERE customer_id % 2 = 0

-- refused: no key
SELECT customer_id FROM customers WHERE true

-- refused: no key
SELECT customer_id FROM customers WHERE false

-- refused: no key
SELECT customer_id, id FROM orders WHERE qty IN (1, 2, 3) AND paid

-- refused: no key
SELECT customer_id, id FROM orders WHERE price >= ALL (ARRAY[10, 20])

-- refused: no key
SELECT customer_id, id FROM orders WHERE placed::date = '2024-03-03'

-- refused: no key
SELECT customer_id, id, price * qty AS total FROM orders WHERE price * qty > 100

-- refused: no key
SELECT customer_id, order_id, line FROM order_lines WHERE flags && ARRAY[1]

-- $1 tier gold
-- refused: no key
SELECT customer_id FROM customers WHERE tier = $1

-- $1 text b%
-- $2 numeric 5.25
-- refused: no key
SELECT customer_id FROM customers WHERE name LIKE $1 AND balance > $2

-- $1 timestamptz 2024-01-08 00:00:00+00
-- refused: no key
SELECT customer_id FROM customers WHERE seen > $1
