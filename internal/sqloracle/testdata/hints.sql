/* rangefinder: key=7 */ SELECT count(*) FROM customers WHERE customer_id = 7

SELECT name FROM customers WHERE customer_id = 7 -- an ordinary comment

/* an ordinary comment: key=7 */ SELECT name FROM customers WHERE customer_id = 7
