BEGIN;
UPDATE customers SET name = 'a' WHERE customer_id = 7;
SELECT name FROM customers WHERE customer_id = 7;
COMMIT;
SELECT name FROM customers WHERE customer_id = 7

BEGIN;
UPDATE customers SET name = 'a' WHERE customer_id = 7;
ROLLBACK;
SELECT name FROM customers WHERE customer_id = 7

BEGIN;
INSERT INTO orders (customer_id, id) VALUES (9, 70);
SAVEPOINT s;
DELETE FROM orders WHERE customer_id = 9;
ROLLBACK TO SAVEPOINT s;
SELECT count(*) FROM orders WHERE customer_id = 9;
COMMIT

BEGIN;
INSERT INTO orders (customer_id, id) VALUES (9, 1);
SELECT 1;
ROLLBACK

BEGIN;
SAVEPOINT a;
INSERT INTO orders (customer_id, id) VALUES (9, 1);
ROLLBACK TO SAVEPOINT a;
INSERT INTO orders (customer_id, id) VALUES (9, 71);
RELEASE SAVEPOINT a;
COMMIT

BEGIN;
SELECT count(*) FROM customers;
COMMIT

BEGIN READ ONLY;
SELECT count(*) FROM customers;
SELECT count(*) FROM orders WHERE customer_id = 9;
COMMIT

BEGIN READ ONLY;
UPDATE customers SET name = 'a' WHERE customer_id = 7;
ROLLBACK

BEGIN;
UPDATE customers SET name = 'a' WHERE customer_id = 1;
UPDATE customers SET name = 'b' WHERE customer_id = 2;
UPDATE customers SET name = 'c' WHERE customer_id = 3;
UPDATE customers SET name = 'd' WHERE customer_id = 4;
COMMIT

BEGIN;
UPDATE customers SET name = 'a' WHERE customer_id = 1;
UPDATE customers SET name = 'b' WHERE customer_id = 2;
UPDATE customers SET name = 'c' WHERE customer_id = 3;
ROLLBACK

BEGIN;
UPDATE customers SET balance = 0;
SAVEPOINT s;
DELETE FROM orders;
ROLLBACK TO SAVEPOINT s;
SELECT sum(balance), count(*) FROM customers;
COMMIT

BEGIN;
UPDATE customers SET name = 'a' WHERE customer_id = 1;
SELECT count(*) FROM customers WHERE name = 'a';
ROLLBACK

BEGIN;
INSERT INTO customers (customer_id) VALUES (601), (602), (603), (604);
SELECT count(*) FROM customers;
COMMIT

BEGIN;
UPDATE notes SET n = 9 WHERE id = 1;
UPDATE customers SET name = 'a' WHERE customer_id = 1;
UPDATE customers SET name = 'b' WHERE customer_id = 2;
COMMIT

BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM orders WHERE customer_id = 9;
COMMIT

BEGIN;
COMMIT AND CHAIN;
SELECT 1;
ROLLBACK

START TRANSACTION;
SELECT 1 AS a;
END

COMMIT

ROLLBACK

SAVEPOINT nowhere

SELECT 1 AS a; SELECT 2 AS b

UPDATE customers SET name = 'x' WHERE customer_id = 7; SELECT name FROM customers WHERE customer_id = 7

UPDATE customers SET name = 'x' WHERE customer_id = 1; UPDATE customers SET name = 'y' WHERE customer_id = 2

UPDATE customers SET name = 'x' WHERE customer_id = 7; SELECT 1 / 0

-- refused: sharded and unsharded tables
BEGIN;
CREATE TEMPORARY TABLE made ON COMMIT DROP AS SELECT customer_id FROM customers;
SELECT count(*) FROM made;
COMMIT

-- refused: sharded and unsharded tables
BEGIN;
SELECT customer_id INTO TEMPORARY made FROM customers;
SELECT count(*) FROM made;
COMMIT

BEGIN;
UPDATE customers SET score = 1 WHERE customer_id = 7;
SELECT customer_id, score FROM customers WHERE customer_id IN (7, 8) ORDER BY 1;
ROLLBACK

BEGIN;
LOCK TABLE orders IN SHARE MODE;
SELECT count(*) FROM orders;
ROLLBACK

BEGIN;
DELETE FROM orders WHERE customer_id = 7;
SAVEPOINT s;
DELETE FROM orders WHERE customer_id = 9;
ROLLBACK TO s;
SELECT customer_id, count(*) FROM orders WHERE customer_id IN (7, 9) GROUP BY 1 ORDER BY 1;
ROLLBACK
