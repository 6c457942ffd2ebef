package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rangefinder/wire/pg"
)

// TestCursorsOverShards: a cursor over several shards goes ahead as PostgreSQL's does, in each query mode.
func TestCursorsOverShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	for _, mode := range queryModes {
		t.Run(mode.String(), func(t *testing.T) {
			conn := r.connect(mode)
			exec := func(sql string, args ...any) string {
				t.Helper()
				tag, err := conn.Exec(ctx, sql, args...)
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				return tag.String()
			}
			tags := func(want string, sql string) {
				t.Helper()
				if tag := exec(sql); tag != want {
					t.Errorf("%s: %s, want %s", sql, tag, want)
				}
			}
			exec("DELETE FROM orders")
			for _, key := range []int64{one, two} {
				exec("INSERT INTO orders (customer_id, id, item) SELECT $1, i, 'item' || i % 3 FROM generate_series(1, 50) i", key)
			}
			exec("BEGIN")
			exec("DECLARE plain CURSOR FOR SELECT customer_id, id FROM orders")
			exec("DECLARE sorted CURSOR FOR SELECT id, customer_id FROM orders ORDER BY id DESC, customer_id LIMIT 5 OFFSET 1")
			exec("DECLARE grouped CURSOR FOR SELECT item, count(*) FROM orders GROUP BY item ORDER BY item")
			exec("DECLARE few CURSOR FOR SELECT id FROM orders LIMIT 60 OFFSET 7")
			exec(fmt.Sprintf("DECLARE mine CURSOR FOR SELECT id FROM orders WHERE customer_id = %d ORDER BY id", two))
			exec("DELETE FROM orders") // they do not see that
			var all []string
			for _, sql := range []string{"FETCH 30 FROM plain", "FETCH NEXT FROM plain", "FETCH FORWARD 40 IN plain"} {
				all = append(all, texts(t, conn, sql)...)
			}
			tags("MOVE 9", "MOVE 9 IN plain")
			all = append(all, texts(t, conn, "FETCH ALL FROM plain")...)
			if slices.Sort(all); len(slices.Compact(all)) != 91 {
				t.Errorf("%d rows", len(all))
			}
			if got := texts(t, conn, "FETCH plain"); len(got) != 0 {
				t.Errorf("%q", got)
			}
			if got := texts(t, conn, "FETCH 3 FROM sorted"); len(got) != 3 || got[0] != fmt.Sprint(int64(50), max(one, two)) {
				t.Errorf("%q", got)
			}
			tags("MOVE 2", "MOVE ALL FROM sorted")
			if got := texts(t, conn, "FETCH ALL FROM grouped"); strings.Join(got, ",") != "item032,item134,item234" {
				t.Errorf("%q", got)
			}
			if got := texts(t, conn, "FETCH 50 FROM few"); len(got) != 50 {
				t.Errorf("%d rows", len(got))
			}
			if got := texts(t, conn, "FETCH 50 FROM few"); len(got) != 10 {
				t.Errorf("%d rows", len(got))
			}
			if got := texts(t, conn, "FETCH 2 FROM mine"); strings.Join(got, ",") != "1,2" {
				t.Errorf("%q", got)
			}
			tags("CLOSE CURSOR", "CLOSE plain")
			exec("SAVEPOINT s")
			exec("DECLARE plain CURSOR FOR SELECT customer_id, id FROM orders")
			_, err := conn.Exec(ctx, "DECLARE plain CURSOR FOR SELECT 1")
			wantCode(t, err, pg.CodeDuplicateCursor)
			exec("ROLLBACK TO s")
			exec("SAVEPOINT u")
			_, err = conn.Exec(ctx, "FETCH plain")
			wantCode(t, err, pg.CodeInvalidCursorName)
			exec("ROLLBACK TO u")
			_, err = conn.Exec(ctx, "FETCH PRIOR FROM few")
			wantCode(t, err, pg.CodeObjectNotInPrerequisiteState)
			exec("ROLLBACK TO u")
			exec("CLOSE ALL")
			exec("ROLLBACK")
			_, err = conn.Exec(ctx, "DECLARE c CURSOR FOR SELECT * FROM orders")
			wantCode(t, err, pg.CodeNoActiveTransaction)
			exec("BEGIN") // declared on one shard, and fetched from when the transaction is on two
			exec(fmt.Sprintf("DECLARE mine CURSOR FOR SELECT id FROM orders WHERE customer_id = %d ORDER BY id", two))
			if got := texts(t, conn, "SELECT count(*) FROM orders"); got[0] != "100" {
				t.Errorf("%q", got)
			}
			if got := texts(t, conn, "FETCH 2 FROM mine"); strings.Join(got, ",") != "1,2" {
				t.Errorf("%q", got)
			}
			exec("CLOSE mine")
			exec("COMMIT")
			r.busy(t, 0)
		})
	}
}

// TestPsqlFetchCount: psql reads large results by a cursor if it is told to.
func TestPsqlFetchCount(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(queryModes[0])
	for _, shard := range []string{"shard_1", "shard_2"} {
		if _, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id) SELECT $1, i FROM generate_series(1, 500) i", r.keyOn(shard, 1)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := r.program(t, "\\set FETCH_COUNT 70\n\\t on\nSELECT id FROM orders;\nSELECT id FROM orders ORDER BY id DESC LIMIT 100;\n", "psql", "-X", "-A", r.dsn())
	if lines := strings.Fields(strings.ReplaceAll(out, "Tuples only is on.", "")); err != nil || len(lines) != 1100 || lines[1000] != "500" {
		t.Errorf("%d lines, %v", len(lines), err)
	}
}

// A cursor over shards whose columns differ is refused as a query is.
func TestCursorNoticesDrift(t *testing.T) {
	s := newSpread(t, rigOptions{})
	if err := s.servers[1].primary.ExecIn(s.ctx, "app", "ALTER TABLE orders ALTER COLUMN item TYPE varchar"); err != nil {
		t.Fatal(err)
	}
	s.caughtUp() // a read may go to a replica
	_, err := s.conn.Exec(s.ctx, "SELECT item FROM orders")
	want := wantCode(t, err, pg.CodeDatatypeMismatch)
	s.exec("BEGIN")
	_, err = s.conn.Exec(s.ctx, "DECLARE c CURSOR FOR SELECT item FROM orders")
	if e := wantCode(t, err, pg.CodeDatatypeMismatch); e.Message != want.Message || e.Detail != want.Detail {
		t.Errorf("%+v", e)
	}
	s.exec("ROLLBACK")
	s.busy(t, 0)
}
