SELECT '{rows}', count(*) FROM customers

SELECT '{columns}' || item, max(qty) FROM orders GROUP BY 1 ORDER BY 1, 2

SELECT DISTINCT '{type 1}' || tier FROM orders WHERE item <> '{hidden 1}' ORDER BY 1

SELECT item || E'\\{rows}\'{' AS a FROM orders GROUP BY 1 ORDER BY 1

INSERT INTO customers (customer_id, name) VALUES (201, '("{row}")'), (202, '{row}\'), (203, E'\\{a\'') RETURNING name

PREPARE p (text) AS SELECT $1 || '{rows}', count(*) FROM customers;
EXECUTE p ('{columns}');
DEALLOCATE p
