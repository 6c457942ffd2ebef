package wire_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// texts are the rows of a query of one column, or the sums of more, as text.
func texts(t *testing.T, conn *pgx.Conn, sql string, args ...any) (list []string) {
	t.Helper()
	rows, err := conn.Query(ctxOf(t), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for rows.Next() {
		v, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprint(v...))
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return list
}

// TestExecuteOverShards: what SQL's PREPARE has prepared is executed on as many shards as it needs, with constants and expressions, in a
// transaction and out of one, and EXPLAIN (ROUTE) says so.
func TestExecuteOverShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		t.Run(mode.String(), func(t *testing.T) {
			conn := r.connect(mode)
			exec := func(sql string) {
				t.Helper()
				if _, err := conn.Exec(ctx, sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			exec("DELETE FROM orders")
			exec("PREPARE put (bigint, bigint, text) AS INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, $3), ($2, 2, $3)")
			exec(fmt.Sprintf("EXECUTE put(%d, %d, 'it''s {rows} \\')", one, two))
			exec("PREPARE sums (numeric) AS SELECT count(*), sum(id) + $1 FROM orders WHERE id * $1 > 0")
			for _, sql := range []string{"EXECUTE sums(1.5)", "EXECUTE sums(1 + 0.5)", "EXECUTE sums('1.5')", "EXECUTE sums(abs(-1.5))"} {
				if got := texts(t, conn, sql); len(got) != 1 || !strings.HasPrefix(got[0], "2 ") {
					t.Errorf("%s: %q", sql, got)
				}
			}
			exec("PREPARE items AS SELECT item FROM orders ORDER BY id")
			if got := texts(t, conn, "EXECUTE items"); len(got) != 2 || got[0] != `it's {rows} \` {
				t.Errorf("%q", got)
			}
			exec("BEGIN")
			if got := texts(t, conn, "EXECUTE items"); len(got) != 2 {
				t.Errorf("%q", got)
			}
			exec("PREPARE more AS UPDATE orders SET item = item || '!'")
			exec("EXECUTE more")
			exec("PREPARE mine (bigint) AS SELECT item FROM orders WHERE customer_id = $1")
			if got := texts(t, conn, fmt.Sprintf("EXECUTE mine(%d)", two)); len(got) != 1 || got[0] != `it's {rows} \!` {
				t.Errorf("%q", got)
			}
			exec("DEALLOCATE mine")
			exec("ROLLBACK")
			if got := texts(t, conn, "EXECUTE items"); len(got) != 2 || got[1] != `it's {rows} \` {
				t.Errorf("%q", got)
			}
			_, err := conn.Exec(ctx, fmt.Sprintf("EXECUTE put(%d + 0, %d, 'x')", one, two))
			if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Message, "no constant") {
				t.Errorf("%+v", e)
			}
			_, told := conn.Exec(ctx, fmt.Sprintf("EXPLAIN (ROUTE) EXECUTE put(%d + 0, %d, 'x')", one, two))
			if e := wantCode(t, told, pg.CodeFeatureNotSupported); e.Message != wantCode(t, err, pg.CodeFeatureNotSupported).Message {
				t.Errorf("%+v", e)
			}
			_, err = conn.Exec(ctx, "EXECUTE sums(1, 2)")
			wantCode(t, err, pg.CodeSyntaxError)
			_, err = conn.Exec(ctx, "EXECUTE sums('x')")
			wantCode(t, err, pg.CodeInvalidTextRepresentation)
			if got := strings.Join(texts(t, conn, "EXPLAIN (COSTS OFF) EXECUTE items"), "\n"); strings.Count(got, "Seq Scan on orders") != 2 || !strings.Contains(got, "Shard shard_1\n") {
				t.Errorf("%s", got)
			}
			if got := strings.Join(texts(t, conn, "EXPLAIN (ANALYZE) EXECUTE more"), "\n"); strings.Count(got, "Update on orders") != 2 {
				t.Errorf("%s", got)
			}
			if got := texts(t, conn, "EXECUTE items"); len(got) != 2 || got[1] != `it's {rows} \!` {
				t.Errorf("%q", got)
			}
			exec("DEALLOCATE ALL")
			r.busy(t, 0)
		})
	}
}

// TestExplainOverShards: EXPLAIN has the plan of each shard, and ANALYZE carries the statement out on all.
func TestExplainOverShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	for _, mode := range queryModes {
		t.Run(mode.String(), func(t *testing.T) {
			conn := r.connect(mode)
			if _, err := conn.Exec(ctxOf(t), "DELETE FROM orders"); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(texts(t, conn, fmt.Sprintf("EXPLAIN ANALYZE INSERT INTO orders (customer_id, id) VALUES (%d, 1), (%d, 1)", one, two)), "\n")
			if strings.Count(got, "Insert on orders") != 2 || !strings.Contains(got, "Shard shard_1\n  Insert on orders") || !strings.Contains(got, "\nShard shard_2\n  Insert") {
				t.Errorf("%s", got)
			}
			if each, _ := r.onShards(t, "SELECT count(*) FROM orders"); each[0] != 1 || each[1] != 1 {
				t.Errorf("%v rows", each)
			}
			if got := texts(t, conn, "EXPLAIN DELETE FROM orders"); len(got) < 5 {
				t.Errorf("%q", got)
			}
			if _, sum := r.onShards(t, "SELECT count(*) FROM orders"); sum != 2 {
				t.Error("EXPLAIN deletes")
			}
			var doc string
			if err := conn.QueryRow(ctxOf(t), "EXPLAIN (FORMAT JSON) SELECT * FROM orders WHERE item = '{rows}' ORDER BY id").Scan(&doc); err != nil {
				t.Fatal(err)
			}
			var shards []struct {
				Shard string
				Plans []struct{ Plan map[string]any }
			}
			if err := json.Unmarshal([]byte(doc), &shards); err != nil || len(shards) != 2 || shards[1].Shard != "shard_2" || len(shards[1].Plans) != 1 || shards[1].Plans[0].Plan["Node Type"] == nil {
				t.Errorf("%v: %s", err, doc)
			}
			_, err := conn.Exec(ctxOf(t), "EXPLAIN (FORMAT XML) SELECT * FROM orders")
			wantCode(t, err, pg.CodeFeatureNotSupported)
			r.busy(t, 0)
		})
	}
}

// What EXECUTE's arguments do is done once, however often the statement is described and run, and counts as a write where it is done.
func TestExecuteEvaluatesOnce(t *testing.T) {
	s := newSpread(t, rigOptions{})
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "CREATE SEQUENCE calls", "GRANT ALL ON SEQUENCE calls TO app"); err != nil {
			t.Fatal(err)
		}
	}
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2), ($2, 3)", s.one, s.two)
	calls := func(want int) {
		t.Helper()
		if _, sum := s.onShards(t, "SELECT last_value * is_called::int FROM calls"); sum != want {
			t.Errorf("%d calls, want %d", sum, want)
		}
	}
	for i, mode := range queryModes {
		s.conn = s.connect(mode)
		s.exec("BEGIN")
		s.exec("PREPARE few (bigint) AS SELECT id::text FROM orders WHERE id > $1 * 0")
		s.read("SELECT id::text FROM orders")
		if got := s.read("EXECUTE few(nextval('calls'))"); strings.Count(got, ",") != 2 {
			t.Errorf("%s: %s", mode, got)
		}
		s.exec("COMMIT")
		calls(i + 1)
		s.exec("DEALLOCATE few")
	}
	s.exec("PREPARE few (bigint) AS SELECT id::text FROM orders WHERE id > $1 * 0")
	exchange := s.raw()
	raw := append(pg.AppendParse(nil, "", "EXECUTE few(nextval('calls'))", nil), bound...)
	raw = pg.AppendDescribe(raw, pg.KindPortal, "")
	raw = pg.AppendClose(raw, pg.KindStatement, "nosuch") // so that it is not described and run in one go
	for range 2 {
		raw = pg.AppendExecute(raw, "", 2)
	}
	exchange(pg.AppendQuery(nil, "BEGIN"))
	if got := exchange(pg.AppendSync(raw)); got != "1 2 T 3 D D s D C(SELECT 1) Z" {
		t.Error(got)
	}
	exchange(pg.AppendQuery(nil, "COMMIT"))
	calls(len(queryModes) + 1)
	s.busy(t, 0)
}

// Where an argument of EXECUTE may have written, the transaction has written.
func TestExecuteArgumentsWrite(t *testing.T) {
	r := newRig(t, rigOptions{})
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	for _, server := range r.servers {
		if err := server.primary.ExecIn(ctxOf(t), "app", fmt.Sprintf("CREATE FUNCTION puts() RETURNS bigint LANGUAGE sql AS 'INSERT INTO orders VALUES (%d, 77) RETURNING id'", one)); err != nil {
			t.Fatal(err)
		}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	exec := func(sql string) error {
		_, err := conn.Exec(ctxOf(t), sql)
		return err
	}
	for _, sql := range []string{"PREPARE mine (bigint) AS SELECT count(*) FROM orders WHERE customer_id = " + fmt.Sprint(one) + " AND id = $1", "BEGIN", "SELECT count(*) FROM orders", "EXECUTE mine(puts())"} {
		if err := exec(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	wantCode(t, exec(fmt.Sprintf("INSERT INTO orders VALUES (%d, 1)", two)), pg.CodeFeatureNotSupported)
}

// FETCH and EXPLAIN over shards heed the limit of a portal, and DDL that goes shard by shard is none the worse for one.
func TestLimitOfFetchAndExplain(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2), ($2, 3)", s.one, s.two)
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "ALTER TABLE orders OWNER TO app"); err != nil {
			t.Fatal(err)
		}
	}
	exchange := s.raw()
	run := func(sql string, times int) string {
		raw := append(pg.AppendParse(nil, "", sql, nil), bound...)
		for range times {
			raw = pg.AppendExecute(raw, "", 2)
		}
		return exchange(pg.AppendSync(raw))
	}
	if got := run("CREATE INDEX CONCURRENTLY by_item ON orders (item)", 1); got != "1 2 C(CREATE INDEX) Z" {
		t.Error(got)
	}
	exchange(pg.AppendQuery(nil, "BEGIN"))
	exchange(pg.AppendQuery(nil, "DECLARE c CURSOR FOR SELECT id FROM orders"))
	if got := run("FETCH ALL FROM c", 2); got != "1 2 D D s D C(FETCH 1) Z" {
		t.Error(got)
	}
	if got := run("EXPLAIN SELECT id FROM orders", 2); !strings.HasPrefix(got, "1 2 D D s D D ") || !strings.HasSuffix(got, "s Z") {
		t.Error(got)
	}
	if got := run("EXPLAIN SELECT id FROM orders", 9); !strings.Contains(got, "s D C(EXPLAIN) ") && !strings.Contains(got, "s D D C(EXPLAIN) ") || !strings.HasSuffix(got, "C(EXPLAIN) Z") {
		t.Error(got)
	}
	exchange(pg.AppendQuery(nil, "COMMIT"))
	s.busy(t, 0)
}
