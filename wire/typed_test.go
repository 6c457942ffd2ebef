package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Parameters that are declared with another type than the key's are as constants of that type: what they are compared with may be on any shard.
func TestParametersOfOtherTypes(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	s.caughtUp() // another session is to read it
	conn := s.connect(pgx.QueryExecModeExec).PgConn()
	ask := func(sql, value string, oid uint32) (rows []string, tag string, err error) {
		t.Helper()
		r := conn.ExecParams(s.ctx, sql, [][]byte{[]byte(value)}, []uint32{oid}, nil, nil).Read()
		for _, row := range r.Rows {
			rows = append(rows, string(row[0]))
		}
		return rows, r.CommandTag.String(), r.Err
	}
	one, two := fmt.Sprint(s.one), fmt.Sprint(s.two)
	for _, block := range []bool{false, true} {
		if block {
			if _, err := conn.Exec(s.ctx, "BEGIN; SELECT count(*) FROM orders").ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			value string
			oid   uint32
			rows  int
		}{{one, pgtype.NumericOID, 1}, {one + ".0", pgtype.NumericOID, 1}, {one + ".5", pgtype.NumericOID, 0}, {two, pgtype.Float8OID, 1}, {two, pgtype.Int4OID, 1}} {
			rows, _, err := ask("SELECT item FROM orders WHERE customer_id = $1", c.value, c.oid)
			if err != nil || len(rows) != c.rows {
				t.Errorf("%s of type %d: %v, %v", c.value, c.oid, rows, err)
			}
		}
		if _, tag, err := ask("UPDATE orders SET item = item || '!' WHERE customer_id = $1", two, pgtype.NumericOID); err != nil || tag != "UPDATE 1" {
			t.Errorf("UPDATE: %s, %v", tag, err)
		}
		if block {
			if _, err := conn.Exec(s.ctx, "COMMIT").ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if rows, _, err := ask("SELECT item FROM orders WHERE customer_id = $1", two, pgtype.NumericOID); err != nil || len(rows) != 1 || rows[0] != "b!!" {
		t.Errorf("%v, %v", rows, err)
	}
	_, _, err := ask("SELECT item FROM orders WHERE customer_id = $1", one, pgtype.TextOID)
	wantCode(t, err, "42883")
	if _, tag, err := ask("INSERT INTO orders (customer_id, id, item) VALUES ($1, 77, 'of a server')", two, pgtype.NumericOID); err != nil || tag != "INSERT 0 1" {
		t.Errorf("INSERT: %s, %v", tag, err)
	}
	if rows, _, err := ask("DELETE FROM orders WHERE customer_id = $1 AND id = 77 RETURNING item", two, pgtype.Int8OID); err != nil || len(rows) != 1 || rows[0] != "of a server" {
		t.Errorf("%v, %v", rows, err)
	}
	// Prepared statements, of both kinds.
	if _, err := conn.Prepare(s.ctx, "p", "SELECT item FROM orders WHERE customer_id = $1", []uint32{pgtype.NumericOID}); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{one, two} {
		if r := conn.ExecPrepared(s.ctx, "p", [][]byte{[]byte(value)}, nil, nil).Read(); r.Err != nil || len(r.Rows) != 1 {
			t.Errorf("%s: %v, %v", value, r.Rows, r.Err)
		}
	}
	for _, sql := range []string{"PREPARE q (numeric) AS SELECT item FROM orders WHERE customer_id = $1", "EXECUTE q (" + two + ")", "BEGIN; EXECUTE q (" + one + "); EXECUTE q (" + two + "); COMMIT"} {
		results, err := conn.Exec(s.ctx, sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for _, r := range results {
			if r.CommandTag.Select() && len(r.Rows) != 1 {
				t.Errorf("%s: %v", sql, r.Rows)
			}
		}
	}
}
