package wire_test

import (
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// Where a table's columns stand in another order on one shard, COPY without a list of columns takes them in the order of the shard that describes the
// table, and what has * for its columns is refused: values are told and stored under their own names.
func TestColumnsInAnotherOrder(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for i, s := range r.servers {
		order := "a text, b text"
		if i == len(r.servers)-1 {
			order = "b text, a text"
		}
		if err := s.primary.ExecIn(ctxOf(t), "app", "DROP TABLE orders", "CREATE TABLE orders (customer_id bigint, id bigint, "+order+", PRIMARY KEY (customer_id, id))", "GRANT ALL ON orders TO PUBLIC"); err != nil {
			t.Fatal(err)
		}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	var data strings.Builder
	const rows = 40
	for i := range rows {
		data.WriteString(strings.ReplaceAll("N\t1\tA\tB\n", "N", string(rune('0'+i/10))+string(rune('0'+i%10))))
	}
	if tag, err := copyIn(t, conn, "COPY orders FROM STDIN", data.String()); err != nil || tag.RowsAffected() != rows {
		t.Fatal(tag, err)
	}
	var right int
	if err := conn.QueryRow(ctxOf(t), "SELECT count(*) FROM orders WHERE a = 'A' AND b = 'B'").Scan(&right); err != nil || right != rows {
		t.Fatalf("%d of %d rows are right, %v", right, rows, err)
	}
	if got, _ := copyOut(t, conn, "COPY orders TO STDOUT"); strings.Count(got, "\t1\tA\tB\n") != rows {
		t.Fatalf("%.300s", got)
	}
	if got, _ := copyOut(t, conn, "COPY (SELECT o.a, b FROM orders o) TO STDOUT"); strings.Count(got, "A\tB\n") != rows {
		t.Fatalf("%.300s", got)
	}
	for _, sql := range []string{"COPY (SELECT * FROM orders) TO STDOUT", "COPY (SELECT o.* FROM orders o WHERE id > 0) TO STDOUT (FORMAT binary)"} {
		_, err := conn.PgConn().CopyTo(ctxOf(t), io.Discard, sql)
		wantCode(t, err, pg.CodeDatatypeMismatch)
	}
	for _, sql := range []string{"SELECT * FROM orders", "SELECT * FROM orders ORDER BY customer_id", "DELETE FROM orders RETURNING *",
		"UPDATE orders SET customer_id = customer_id + 1000 RETURNING *"} {
		_, err := conn.Exec(ctxOf(t), sql)
		wantCode(t, err, pg.CodeDatatypeMismatch)
	}
	if err := conn.QueryRow(ctxOf(t), "SELECT count(*) FROM orders WHERE a = 'A' AND b = 'B' AND customer_id < 1000").Scan(&right); err != nil || right != rows {
		t.Fatalf("%d of %d rows are as they were, %v", right, rows, err)
	}
}
