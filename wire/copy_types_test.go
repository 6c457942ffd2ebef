package wire_test

import (
	"bytes"
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// Data of COPY in binary format hold the session's numbers of types, whatever shards they go to and come from.
func TestCopyOfShardsTypes(t *testing.T) {
	x := newTyped(t, rigOptions{across: true})
	conn := x.connect(pgx.QueryExecModeCacheStatement)
	x.loads(conn)
	p := pairOf{"happy", 7, []string{"sad", "ok"}}
	var rows [][]any
	const n = 60
	for i := range n {
		row := []any{int64(i), int64(1), "ok", []string{"happy", "sad"}, p, []pairOf{p, p}, 3, []string{"ok"}}
		if i%7 == 0 {
			row[3], row[4] = nil, nil
		}
		rows = append(rows, row)
	}
	columns := []string{"customer_id", "id", "m", "list", "p", "ps", "g", "ds"}
	right := func() {
		t.Helper()
		for i := range int64(n) {
			var list, ds []string
			var one *pairOf
			var ps []pairOf
			if err := conn.QueryRow(x.ctx, "SELECT list, p, ps, ds FROM orders WHERE customer_id = $1", i).Scan(&list, &one, &ps, &ds); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if !reflect.DeepEqual(ps, []pairOf{p, p}) || !reflect.DeepEqual(ds, []string{"ok"}) || (list == nil) != (i%7 == 0) || one != nil && !reflect.DeepEqual(*one, p) {
				t.Fatalf("%d: %v %v %v %v", i, list, one, ps, ds)
			}
		}
	}
	if copied, err := conn.CopyFrom(x.ctx, pgx.Identifier{"orders"}, columns, pgx.CopyFromRows(rows)); err != nil || copied != n {
		t.Fatal(copied, err)
	}
	right()
	whole, err := x.servers[0].primary.ConnTo(x.ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close(context.Background())
	if _, err := whole.Exec(x.ctx, "CREATE TEMP TABLE o (LIKE orders)"); err != nil {
		t.Fatal(err)
	}
	const list = " (customer_id, id, m, list, p, ps, g, ds) "
	var data string
	for _, sql := range []string{"COPY orders" + list + "TO STDOUT (FORMAT binary)", "COPY (SELECT" + strings.Trim(list, " ()") + " FROM orders) TO STDOUT (FORMAT binary)",
		"COPY (SELECT" + strings.Trim(list, " ()") + " FROM orders ORDER BY customer_id) TO STDOUT (FORMAT binary)"} {
		sql = strings.Replace(sql, "SELECTcustomer_id", "SELECT customer_id", 1)
		data, _ = copyOut(t, conn, sql)
		if tag, err := copyIn(t, whole, "COPY o"+list+"FROM STDIN (FORMAT binary)", data); err != nil || tag.RowsAffected() != n {
			t.Fatalf("the reference shard does not take the data of %s: %v, %v", sql, tag, err)
		}
	}
	if _, err := conn.Exec(x.ctx, "DELETE FROM orders"); err != nil {
		t.Fatal(err)
	}
	if tag, err := copyIn(t, conn, "COPY orders"+list+"FROM STDIN (FORMAT binary)", data); err != nil || tag.RowsAffected() != n {
		t.Fatal(tag, err)
	}
	right()
	// A number that no type has, and a value that is none.
	number := []byte{byte(x.number(0, "mood") >> 24), byte(x.number(0, "mood") >> 16), byte(x.number(0, "mood") >> 8), byte(x.number(0, "mood"))}
	strange := string(bytes.ReplaceAll([]byte(data), number, []byte{0, 0, 0xff, 0xff}))
	_, err = copyIn(t, conn, "COPY orders"+list+"FROM STDIN (FORMAT binary)", strange)
	if e := wantCode(t, err, pg.CodeUndefinedObject); e.Where == "" {
		t.Errorf("%+v", e)
	}
	right()
	x.busy(t, 0)
}
