package sqloracle

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// document is what the table of docs/sql.md tells of, by its parts.
var document = []struct {
	part       string
	statements []string // each is an entry
}{
	{"By key", []string{
		"SELECT * FROM orders WHERE customer_id = 7",
		"SELECT * FROM orders WHERE customer_id IN (7, 8, 9)",
		"SELECT * FROM orders WHERE customer_id = ANY ('{7,8,9}')",
		"SELECT * FROM orders WHERE customer_id = 7 OR customer_id = 8",
		"SELECT * FROM readings WHERE device BETWEEN 3 AND 6",
		"SELECT * FROM readings WHERE device >= 8 AND device < 25",
		"SELECT * FROM orders WHERE customer_id BETWEEN 7 AND 9",
		"SELECT * FROM stock WHERE region IN ('de', 'fr')",
		"SELECT * FROM tiles WHERE (zoom, name) = (1, 'a')",
		"SELECT * FROM tiles WHERE (zoom, name) IN ((1, 'a'), (2, 'B'), (3, 'c'))",
		"SELECT * FROM accounts WHERE name = 'ann'",
		"SELECT * FROM stock WHERE region = lower('DE')",
		"SELECT * FROM orders WHERE customer_id IN (3 + 4, abs(-8))",
		"SELECT * FROM orders WHERE customer_id = 7::customer_no",
		"SELECT * FROM accounts WHERE name = 'annabel'::short_login",
		"-- $1 int 6\nSELECT * FROM orders WHERE customer_id = $1 + 1",
		"-- $1 text DE\nSELECT * FROM stock WHERE region = lower($1)",
		"-- $1 text ann\nSELECT * FROM accounts WHERE name = left($1, 3)",
	}},
	{"Without a key", []string{
		"SELECT * FROM orders",
		"SELECT customer_id, item FROM orders WHERE qty > 3",
		"SELECT name FROM customers ORDER BY customer_id LIMIT 5 OFFSET 3",
		"SELECT name, customer_id FROM customers ORDER BY name DESC NULLS LAST, customer_id",
		"SELECT name, customer_id FROM customers ORDER BY name COLLATE \"C\", customer_id",
		"SELECT DISTINCT tier FROM customers",
		"SELECT * FROM orders WHERE qty = 2 FOR UPDATE",
	}},
	{"Aggregates", []string{
		"SELECT count(*), sum(qty), avg(price), min(item), max(placed) FROM orders",
		"SELECT count(DISTINCT item) FROM orders",
		"SELECT stddev(qty), variance(price) FROM orders",
		"SELECT string_agg(item, ',' ORDER BY customer_id, id) FROM orders",
		"SELECT tier, count(*) FROM customers GROUP BY tier HAVING count(*) > 2 ORDER BY tier",
		"SELECT customer_id, sum(qty) FROM orders GROUP BY customer_id ORDER BY 2 DESC, 1 LIMIT 5",
		"SELECT tier, paid, count(*) FROM orders GROUP BY ROLLUP (tier, paid)",
		"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY score) FROM customers",
	}},
	{"Joins and subqueries", []string{
		"SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id) WHERE c.customer_id = 7",
		"SELECT c.name, o.item FROM customers c JOIN orders o USING (customer_id)",
		"SELECT c.name, o.item FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.paid",
		"SELECT a.name, b.name FROM customers a JOIN customers b ON a.name = b.name",
		"SELECT c.name, r.value FROM customers c JOIN readings r ON r.device = c.customer_id",
		"SELECT c.name, n.body FROM customers c JOIN notes n ON n.id = c.customer_id",
		"SELECT name FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id)",
		"SELECT name FROM customers WHERE balance > (SELECT avg(balance) FROM customers)",
		"WITH w AS (SELECT customer_id, sum(qty) AS q FROM orders GROUP BY customer_id) SELECT * FROM w WHERE q > 5",
		"SELECT customer_id, id, row_number() OVER (PARTITION BY customer_id ORDER BY id) FROM orders",
		"SELECT customer_id, rank() OVER (ORDER BY customer_id) FROM customers",
	}},
	{"Set operations", []string{
		"SELECT item FROM orders WHERE customer_id = 7 UNION SELECT sku FROM order_lines WHERE customer_id = 7",
		"SELECT item FROM orders WHERE customer_id = 7 UNION ALL SELECT item FROM orders WHERE customer_id = 8",
		"SELECT item FROM orders UNION ALL SELECT sku FROM order_lines",
		"SELECT item FROM orders UNION SELECT sku FROM order_lines ORDER BY 1 LIMIT 5",
		"SELECT customer_id FROM customers EXCEPT SELECT customer_id FROM orders",
		"SELECT customer_id, tier FROM customers INTERSECT SELECT customer_id, tier FROM orders",
		"SELECT item FROM orders EXCEPT SELECT sku FROM order_lines",
		"SELECT item FROM orders INTERSECT ALL SELECT sku FROM order_lines",
		"SELECT item FROM orders EXCEPT SELECT item FROM items",
		"SELECT item FROM items UNION SELECT item FROM orders",
		"SELECT item FROM orders UNION ALL SELECT 'none' UNION ALL SELECT sku FROM order_lines",
		"SELECT name FROM customers WHERE customer_id = 7 UNION SELECT item FROM items UNION SELECT name FROM customers WHERE customer_id = 8",
		"SELECT item FROM orders EXCEPT SELECT sku FROM order_lines EXCEPT SELECT name FROM customers",
		"(SELECT item FROM orders UNION SELECT sku FROM order_lines) UNION ALL SELECT name FROM customers",
		"SELECT item FROM orders UNION ALL SELECT body FROM notes",
		"SELECT item FROM orders UNION ALL SELECT label FROM readings",
	}},
	{"Writes", []string{
		"INSERT INTO orders (customer_id, id, item) VALUES (7, 90, 'ink')",
		"INSERT INTO orders (customer_id, id, item) VALUES (7, 90, 'ink'), (8, 90, 'pen'), (9, 90, 'pen')",
		"INSERT INTO customers (customer_id, name) VALUES (7, 'x') ON CONFLICT (customer_id) DO UPDATE SET name = EXCLUDED.name RETURNING name",
		"INSERT INTO order_lines (customer_id, order_id, line) SELECT customer_id, id, 77 FROM orders",
		"INSERT INTO customers (customer_id, name) SELECT 501, 'x' UNION ALL SELECT 502, 'y'",
		"INSERT INTO customers (customer_id) SELECT unnest('{501,502}'::bigint[])",
		"INSERT INTO stock VALUES ('de', 'pens', 3), ('us', 'pens', 4)",
		"INSERT INTO accounts VALUES (md5('x')), ('an' || 'na')",
		"INSERT INTO accounts VALUES (left('anna', 2))",
		"-- $1 text X\n-- $2 text y\nINSERT INTO accounts VALUES (lower($1)), ($2 || '-z')",
		"MERGE INTO customers c USING (SELECT 7 AS id, 'x' AS name) s ON c.customer_id = s.id WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (customer_id, name) VALUES (s.id, s.name)",
		"MERGE INTO order_lines l USING orders o ON l.customer_id = o.customer_id AND l.order_id = o.id AND l.line = 2 WHEN MATCHED THEN UPDATE SET sku = o.item WHEN NOT MATCHED THEN INSERT (customer_id, order_id, line, sku) VALUES (o.customer_id, o.id, 2, o.item)",
		"UPDATE orders SET qty = qty + 1 WHERE customer_id = 7 AND id = 1",
		"UPDATE orders SET qty = qty + 1 WHERE tier = 'gold' RETURNING customer_id, id",
		"UPDATE orders o SET item = c.name FROM customers c WHERE c.customer_id = o.customer_id",
		"UPDATE customers SET customer_id = 503 WHERE customer_id = 7",
		"UPDATE orders SET customer_id = customer_id + 1000 WHERE paid RETURNING customer_id, id",
		"UPDATE customers SET customer_id = DEFAULT WHERE customer_id = 7",
		"DELETE FROM orders WHERE customer_id IN (7, 8, 9)",
		"DELETE FROM orders WHERE paid",
		"WITH gone AS (DELETE FROM orders WHERE qty = 1 RETURNING *) INSERT INTO order_lines (customer_id, order_id, line) SELECT customer_id, id, 77 FROM gone",
		"WITH gone AS (DELETE FROM orders WHERE qty = 1 RETURNING id) INSERT INTO order_lines (customer_id, order_id, line) SELECT id, id, 77 FROM gone",
		"INSERT INTO items (item, grams) VALUES ('glue', extract(year FROM now()) * 0)",
	}},
	{"Transactions", []string{
		"BEGIN;\nUPDATE customers SET score = 0 WHERE customer_id = 7;\nSAVEPOINT s;\nDELETE FROM orders WHERE customer_id = 7;\nROLLBACK TO SAVEPOINT s;\nCOMMIT",
		"BEGIN;\nUPDATE customers SET score = 0 WHERE customer_id = 1;\nUPDATE customers SET score = 0 WHERE customer_id = 2;\nUPDATE customers SET score = 0 WHERE customer_id = 3;\nCOMMIT",
		"BEGIN;\nSELECT count(*) FROM customers;\nCOMMIT",
		"BEGIN;\nDECLARE c CURSOR FOR SELECT * FROM orders ORDER BY customer_id, id;\nFETCH 5 FROM c;\nMOVE 3 IN c;\nFETCH ALL FROM c;\nCOMMIT",
		"BEGIN;\nDECLARE c SCROLL CURSOR FOR SELECT * FROM orders;\nROLLBACK",
		"BEGIN;\nDECLARE c SCROLL CURSOR FOR SELECT * FROM orders ORDER BY id, customer_id;\nROLLBACK",
		"PREPARE p AS SELECT count(*) FROM customers WHERE score > $1;\nEXECUTE p (0.5);\nDEALLOCATE p",
	}},
	{"Others", []string{
		"SELECT * FROM notes",
		"SELECT 1 + 1",
		"SELECT relname FROM pg_class WHERE relname = 'orders'",
	}},
}

const documentFile = "../../docs/sql.md"

// testDocument holds the table of docs/sql.md against what is seen here.
func testDocument(t *testing.T, p *place) {
	c := newClients(t, p)
	content, err := os.ReadFile(documentFile)
	if err != nil {
		t.Fatal(err)
	}
	const mark = " -update -->\n"
	prose, _, ok := strings.Cut(string(content), mark)
	if !ok {
		t.Fatalf("%s has no line that ends with %q", documentFile, mark)
	}
	var b strings.Builder
	b.WriteString(prose + mark)
	for _, part := range document {
		fmt.Fprintf(&b, "\n### %s\n\n| statement | |\n| --- | --- |\n", part.part)
		for _, sql := range part.statements {
			e := readEntry(t, sql)
			fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Join(e.statements, "; "), c.verdict(t, e))
		}
	}
	switch {
	case b.String() == string(content) || t.Failed():
	case *update:
		if err := os.WriteFile(documentFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s says something else than what is seen: see -update. It would be:\n%s", documentFile, b.String())
	}
}

// verdict says what becomes of a statement, in words for the table.
func (c *clients) verdict(t *testing.T, e *entry) string {
	if !c.check(t, e) {
		return "fails"
	}
	if e.refused != "" {
		for _, r := range refusals {
			if r.kind == e.refused {
				return "refused, 0A000: " + r.why
			}
		}
	}
	before := c.p.touched()
	s := e.stories()[0]
	all := c.tell(s)
	if last := all[len(all)-1]; last.answer.err != nil || last.problem != "" {
		t.Errorf("%s: %+v %s", e, last.answer.err, last.problem)
	}
	n := 0
	for i, now := range c.p.touched() {
		if now > before[i] {
			n++
		}
	}
	switch {
	case n < 2:
		return "routed to one shard"
	case len(s.writes) > 0:
		return fmt.Sprintf("on %d shards, all or nothing", n)
	case len(e.statements) > 1:
		return fmt.Sprintf("on %d shards", n)
	}
	return fmt.Sprintf("merged from %d shards", n)
}
