package sqloracle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

// What cannot be right is told so with the SQLSTATE of what is wrong and a hint, in every protocol; nothing of it is written, and the
// session goes on.
func testBadInput(t *testing.T, p *place) {
	c := newClients(t, p)
	null, text := arg{null: true, oid: pgtype.Int8OID}, func(s string) arg { return arg{text: s} }
	in := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ", %d", i+100000)
		}
		return "(100" + b.String() + ")"
	}
	deep := strings.Repeat("(", 10_000) + "1" + strings.Repeat(")", 10_000)
	for _, b := range []struct {
		name, sql string
		args      []arg
		code      string
		hint      string // a part of it
	}{
		{"a key that is NULL", "SELECT * FROM customers WHERE customer_id = NULL", nil, "22004", "NULL"},
		{"a key that is NULL, inserted", "INSERT INTO customers (customer_id, name) VALUES (NULL, 'x')", nil, "22004", "Give customer_id a value"},
		{"a key that is NULL among others", "INSERT INTO customers (customer_id, name) VALUES (901, 'x'), (NULL, 'y')", nil, "22004", "Give customer_id a value"},
		{"a parameter that is NULL", "SELECT * FROM customers WHERE customer_id = $1", []arg{null}, "22004", "parameter"},
		{"an inserted parameter that is NULL", "INSERT INTO customers (customer_id) VALUES ($1)", []arg{null}, "22004", "parameter"},
		{"beyond bigint", "UPDATE customers SET name = 'x' WHERE customer_id = 99999999999999999999", nil, "22003", "bigint"},
		{"beyond bigint, inserted", "INSERT INTO customers (customer_id) VALUES (99999999999999999999)", nil, "22003", "bigint"},
		{"beyond bigint, among others", "INSERT INTO customers (customer_id) VALUES (901), (99999999999999999999), (902)", nil, "22003", "bigint"},
		{"beyond bigint, a parameter", "DELETE FROM customers WHERE customer_id = $1", []arg{text("99999999999999999999")}, "22003", "bigint"},
		{"beyond int", "DELETE FROM readings WHERE device = 3000000000", nil, "22003", "int"},
		{"beyond int, a parameter", "INSERT INTO readings (device, n) VALUES ($1, 1)", []arg{text("3000000000")}, "22003", "int"},
		{"no number", "SELECT * FROM customers WHERE customer_id = 'seven'", nil, "22P02", "bigint"},
		{"no number, inserted", "INSERT INTO customers (customer_id) VALUES ('seven')", nil, "22P02", "bigint"},
		{"no number, a parameter", "UPDATE customers SET name = 'x' WHERE customer_id = $1", []arg{text("seven")}, "22P02", "bigint"},
		{"no number, among others", "INSERT INTO readings (device, n) VALUES (1, 91), ('x', 92), (25, 93)", nil, "22P02", "int"},
		{"two hints that differ", "/* rangefinder: key=1 */ DELETE FROM customers /* rangefinder: key=2 */", nil, "22023", "/* rangefinder: key="},
		{"a hint against the key", "/* rangefinder: key=1 */ DELETE FROM customers WHERE customer_id = 2", nil, "22023", "hint"},
		{"a hint against the key's shard", "/* rangefinder: shard=shard_1 */ DELETE FROM readings WHERE device = 25", nil, "22023", "hint"},
		{"a hint that is none", "/* rangefinder: somewhere */ DELETE FROM customers", nil, "22023", "/* rangefinder: key="},
		{"a hint for no shard", "/* rangefinder: shard=shard_9 */ DELETE FROM customers", nil, "22023", "shard"},
		{"a hint that is no key", "/* rangefinder: key=seven */ DELETE FROM customers", nil, "22P02", "hint"},
		{"a table that nobody has", "DELETE FROM nobody WHERE customer_id = 1", nil, "42P01", ""},
		{"10,000 parentheses", "SELECT " + deep, nil, "54001", "Split it"},
		{"10,000 parentheses in a write", "UPDATE customers SET score = " + deep + " WHERE customer_id = 1", nil, "54001", "Split it"},
		{"1 MB of IN list with one that is no number", "DELETE FROM customers WHERE customer_id IN " + strings.Replace(in(125_000), ", 100500,", ", 'x',", 1), nil, "22P02", ""},
		{"an array with one that is no number", "DELETE FROM customers WHERE customer_id = ANY ($1::bigint[])", []arg{text("{1,x,3}")}, "22P02", ""},
		{"a malformed array", "DELETE FROM customers WHERE customer_id = ANY ($1::bigint[])", []arg{text("{1,2")}, "22P02", ""},
	} {
		t.Run(b.name, func(t *testing.T) {
			for _, how := range []protocol{simple, extended, prepared} {
				if how == simple && len(b.args) > 0 || how == prepared && len(b.sql) > 100_000 {
					continue
				}
				s := &statement{sql: b.sql, args: b.args, how: how}
				a := c.ask(1, s)
				switch {
				case a.lost != nil:
					t.Fatalf("%s: the connection is lost: %v", how, a.lost)
				case a.err == nil:
					t.Errorf("%s: no error", how)
				case a.err.Code != b.code:
					t.Errorf("%s: %s, want %s", how, inFull(a.err), b.code)
				case !strings.Contains(a.err.Hint, b.hint):
					t.Errorf("%s: the hint of %s says nothing of %s", how, inFull(a.err), b.hint)
				}
			}
		})
	}
	t.Run("1 MB of IN list", func(t *testing.T) {
		list := in(125_000)
		if len(list) < 1_000_000 {
			t.Fatal("it is too short")
		}
		for _, how := range []protocol{simple, prepared} {
			if o := c.try(&statement{sql: "SELECT customer_id FROM customers WHERE customer_id IN " + strings.Replace(list, "(", "(7, 8, 9, ", 1), how: how}); o.problem != "" {
				t.Errorf("%s: %.1000s", how, o.problem)
			}
		}
	})
	t.Run("nothing is written", func(t *testing.T) {
		var names []string
		for _, t := range tables {
			names = append(names, t.name)
		}
		different, err := p.compareTables(t.Context(), names...)
		if different != "" {
			defer p.reset(t.Context(), names...)
		}
		if err != nil || different != "" {
			t.Errorf("%s, %v", different, err)
		}
		if o := c.try(&statement{sql: "SELECT name FROM customers WHERE customer_id = 7"}); !o.passed {
			t.Errorf("the session does not go on: %+v", o)
		}
	})
}
