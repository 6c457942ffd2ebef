package wire_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// onShard runs statements on a shard's primary itself.
func (r *rig) onShard(shard int, list ...string) {
	r.t.Helper()
	if err := r.servers[shard].primary.ExecIn(ctxOf(r.t), "app", list...); err != nil {
		r.t.Fatal(err)
	}
}

// answerOf is what a statement answers, a line a row, sorted if it has no order.
func answerOf(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	if strings.HasPrefix(sql, "COPY") {
		var out bytes.Buffer
		tag, err := conn.PgConn().CopyTo(ctxOf(t), &out, sql)
		if err != nil {
			return err.Error()
		}
		lines := strings.Split(out.String(), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n") + tag.String()
	}
	rows, err := conn.Query(ctxOf(t), sql, args...)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err.Error()
		}
		lines = append(lines, fmt.Sprint(values...))
	}
	if rows.Err() != nil {
		return rows.Err().Error()
	}
	if !strings.Contains(sql, "ORDER BY") {
		slices.Sort(lines)
	}
	return strings.Join(lines, "\n") + "\n" + rows.CommandTag().String()
}

// moved puts a customer's orders on both shards, as they are while his range moves.
func (r *rig) moved(k int64) {
	r.t.Helper()
	r.onShard(1, fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'one'), (%d, 2, 'two')", k, k))
}

// TestCopiesAreLeftOut: while two shards have rows of a range, statements over both answer as if there were one of each, and change the owner's.
func TestCopiesAreLeftOut(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	k, there := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	other := r.keyOn("shard_1", k+1)
	conns := map[string]*pgx.Conn{}
	for name, mode := range allModes {
		conns[name] = r.connect(mode)
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	mustExec(t, conn, fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'one'), (%d, 2, 'two'), (%d, 3, 'two'), (%d, 4, 'four')", k, k, other, there))
	type ask struct {
		sql  string
		args []any
	}
	asks := []ask{
		{sql: "SELECT count(*), sum(id), min(item) FROM orders"}, {sql: "SELECT * FROM orders ORDER BY id"}, {sql: "SELECT item, count(*) FROM orders GROUP BY item ORDER BY item"},
		{sql: "SELECT id FROM orders ORDER BY id DESC LIMIT 2 OFFSET 1"}, {sql: "SELECT DISTINCT item FROM orders"}, {sql: "SELECT id FROM orders WHERE id > $1", args: []any{0}},
		{sql: "SELECT o.id FROM orders o JOIN orders p ON o.customer_id = p.customer_id AND o.id = p.id"},
		{sql: "SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM orders p WHERE p.customer_id = o.customer_id AND p.id <> o.id)"},
		{sql: fmt.Sprintf("SELECT * FROM orders WHERE customer_id IN (%d, %d)", k, there)}, {sql: "SELECT id FROM orders WHERE customer_id = ANY ($1)", args: []any{[]int64{k, there, other}}},
		{sql: "SELECT id FROM orders UNION ALL SELECT 10 * id FROM orders"}, {sql: "SELECT id FROM orders FOR UPDATE"}, {sql: "WITH w AS (SELECT id FROM orders) SELECT sum(id) FROM w"},
		{sql: "SELECT id, rank() OVER (ORDER BY id) FROM orders ORDER BY id"}, {sql: "UPDATE orders SET item = item || '' RETURNING id"}, {sql: "UPDATE orders o SET item = o.item WHERE id > $1", args: []any{1}},
	}
	// In a transaction that is rolled back.
	scripts := [][]string{
		{"DELETE FROM orders"}, {"DELETE FROM orders WHERE item = 'two' RETURNING id"}, {"UPDATE orders SET customer_id = customer_id + 100000 RETURNING id", "SELECT count(*) FROM orders"},
		{"WITH x AS (DELETE FROM orders WHERE item = 'two' RETURNING *) SELECT id FROM x", "SELECT count(*) FROM orders"},
		{"WITH x AS (UPDATE orders SET item = 'u' RETURNING customer_id, id) INSERT INTO orders (customer_id, id, item) SELECT customer_id, id + 200, 'w' FROM x RETURNING id", "SELECT id, item FROM orders ORDER BY id"},
		{"DECLARE c CURSOR FOR SELECT id FROM orders", "FETCH ALL FROM c"}, {"DECLARE d CURSOR FOR SELECT id FROM orders ORDER BY item, id", "FETCH 3 FROM d"},
		{"INSERT INTO orders (customer_id, id, item) SELECT customer_id, id + 100, item FROM orders", "SELECT count(*) FROM orders"},
		{"MERGE INTO orders o USING orders s ON s.customer_id = o.customer_id AND s.id + 1 = o.id WHEN MATCHED THEN UPDATE SET item = 'merged' WHEN NOT MATCHED THEN INSERT (customer_id, id, item) VALUES (s.customer_id, s.id + 50, 'new')", "SELECT id, item FROM orders ORDER BY id"},
		{"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) UPDATE orders SET item = 'x'", "SELECT count(*) FROM orders WHERE item = 'x'"},
	}
	simple := []string{"COPY orders TO STDOUT", "COPY orders (id, item) TO STDOUT (FORMAT csv, HEADER)", "COPY (SELECT id FROM orders WHERE id > 0) TO STDOUT", "COPY (SELECT id, item FROM orders ORDER BY id DESC LIMIT 3) TO STDOUT", "COPY (SELECT count(*) FROM orders) TO STDOUT"}
	mustExec(t, conn, "PREPARE p (bigint) AS SELECT count(*) FROM orders WHERE id >= $1")
	simple = append(simple, "EXECUTE p (2)")
	truth := map[string]string{}
	answers := func(when string) {
		t.Helper()
		for _, server := range r.servers { // copies, which may be behind, are read too
			if err := server.replica.CaughtUp(ctx); err != nil {
				t.Fatal(err)
			}
		}
		check := func(what, got string) {
			t.Helper()
			if strings.Contains(what, "EXPLAIN") { // what is done is looked at, not how
				_, got, _ = strings.Cut(got, "|")
			}
			if want, ok := truth[what]; !ok {
				truth[what] = got
			} else if got != want {
				t.Errorf("%s: %s\n got %q\nwant %q", when, what, got, want)
			}
		}
		for name, c := range conns {
			for _, a := range asks {
				got := answerOf(t, c, a.sql, a.args...)
				if strings.Contains(got, "SQLSTATE") {
					t.Errorf("%s: %s: %s: %s", when, name, a.sql, got)
				}
				check(a.sql, got)
			}
		}
		for _, list := range scripts {
			mustExec(t, conn, "BEGIN")
			var got []string
			for _, sql := range list {
				got = append(got, answerOf(t, conn, sql))
			}
			mustExec(t, conn, "ROLLBACK")
			check(strings.Join(list, "; "), strings.Join(got, "|"))
		}
		for _, sql := range simple {
			check(sql, answerOf(t, conn, sql))
		}
	}
	untouched := func(when string, shard int, item string) {
		t.Helper()
		mustExec(t, conn, "UPDATE orders SET item = '"+item+"' WHERE item = 'two'")
		if got := r.itemsOf(shard, k); got != "one,two" {
			t.Errorf("%s: of the shard that does not own them, rows were changed: %s", when, got)
		}
		if got := r.itemsOf(1-shard, k); got != "one,"+item {
			t.Errorf("%s: of the owner: %s", when, got)
		}
		mustExec(t, conn, "UPDATE orders SET item = 'two' WHERE item = '"+item+"'")
	}
	answers("before")
	for what, answer := range truth {
		if strings.Contains(answer, "SQLSTATE") {
			t.Errorf("%s: %s", what, answer)
		}
	}
	r.moved(k)
	if got := answerOf(t, conn, "SELECT count(*) FROM orders"); !strings.HasPrefix(got, "6\n") {
		t.Errorf("copies that nobody knows of are counted, or the test cannot fail: %s", got)
	}
	r.lonely.Store(true) // and has not heard of the move
	answers("without a lease")
	r.lonely.Store(false)
	r.prepare(k)
	answers("copying")
	untouched("copying", 1, "xxx")
	r.lonely.Store(true)
	answers("copying, without a lease")
	r.lonely.Store(false)
	r.own(func(o *rib.Ownership) { o.Moves[0].Phase, o.Moves[0].Epoch = rib.MoveAborted, o.Epoch })
	answers("aborted")
	r.own(func(o *rib.Ownership) { o.Moves[0].Phase, o.Moves[0].Epoch = rib.MovePrepare, o.Epoch })

	// What one snapshot holds of the range is too old once that has flipped.
	strict, loose := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	keyed := []string{fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", other), fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", there)}
	mustExec(t, strict, append([]string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}, keyed...)...)
	mustExec(t, loose, append([]string{"BEGIN"}, keyed...)...)
	r.freeze()
	r.flip()
	if _, err := strict.Exec(ctx, "SELECT count(*) FROM orders"); sqlstate(err) != pg.CodeSerializationFailure {
		t.Errorf("a snapshot of before the flip: %v", err)
	}
	mustExec(t, strict, "ROLLBACK")
	if got := answerOf(t, loose, asks[0].sql); got != truth[asks[0].sql] {
		t.Errorf("in a transaction of before the flip: %s", got)
	}
	mustExec(t, loose, "COMMIT")
	answers("flipped")
	untouched("flipped", 0, "yyy")

	mustExec(t, strict, append([]string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}, keyed...)...)
	r.onShard(0, fmt.Sprintf("DELETE FROM orders WHERE customer_id = %d", k))
	answers("deleted")
	r.own(func(o *rib.Ownership) { o.Moves[0].Cleared = true })
	answers("cleared")
	r.abort()
	if _, err := strict.Exec(ctx, "SELECT count(*) FROM orders"); sqlstate(err) != pg.CodeSerializationFailure {
		t.Errorf("a snapshot of before the old rows were deleted: %v", err)
	}
	answers("over")
}

// TestCopiesAreNotMet: what cannot be asked so that it leaves the copies out is refused, and nothing else.
func TestCopiesAreNotMet(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	k, there := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	other := r.keyOn("shard_1", k+1)
	both := []string{"SELECT count(*) FROM orders AS o (a, b, c)", "SELECT count(*) AS \"{leave 1}\" FROM orders"}
	bound := []string{
		fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", k), fmt.Sprintf("SELECT * FROM orders WHERE customer_id IN (%d, %d)", other, k),
		fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'a'), (%d, 2, 'b') ON CONFLICT DO NOTHING", other, there),
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	expect := func(when, sqlstateOfBoth string) {
		t.Helper()
		for _, sql := range both {
			if _, err := conn.Exec(context.Background(), sql); err == nil != (sqlstateOfBoth == "") || err != nil && sqlstate(err) != sqlstateOfBoth {
				t.Errorf("%s: %s: %v", when, sql, err)
			}
		}
		mustExec(t, conn, bound...)
	}
	expect("before", "")
	r.prepare(k)
	expect("copying", pg.CodeObjectInUse)
	r.lonely.Store(true)
	expect("without a lease", pg.CodeCannotConnectNow)
	r.lonely.Store(false)
	r.freeze()
	r.flip()
	bound = bound[:1]
	expect("flipped", pg.CodeObjectInUse)
	r.own(func(o *rib.Ownership) { o.Moves[0].Cleared = true })
	expect("cleared", "")
}

// TestOldSnapshot: a transaction whose one snapshot of a shard is older than the flip of a range that this shard owns now gets 40001 when it comes to that
// range, by its key or by a list of keys, on one connection or over shards, also when the move is over. One with a snapshot for each statement sees the rows.
func TestOldSnapshot(t *testing.T) {
	const strict, loose = "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN"
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{across: true, poolSize: 40})
			ctx := ctxOf(t)
			k, there := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
			other, others := r.keyOn("shard_1", k+1), r.keyOn("shard_2", there+1)
			mustExec(t, r.connect(mode), fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'one'), (%d, 2, 'two'), (%d, 3, 'there')", k, k, there))
			r.prepare(k)
			type open struct {
				conn  *pgx.Conn
				begin string
				what  string
				sql   string
				args  []any
			}
			var list []open
			for _, begin := range []string{strict, "BEGIN ISOLATION LEVEL SERIALIZABLE", "SET default_transaction_isolation = 'repeatable read'", loose} {
				for what, first := range map[string][]int64{"one shard": {there}, "two shards": {there, other}} {
					for _, o := range []open{
						{sql: "SELECT count(*) FROM orders WHERE customer_id = $1", args: []any{k}}, {sql: "SELECT count(*) FROM orders WHERE customer_id IN ($1, $2)", args: []any{k, others}},
						{sql: "SELECT count(*) FROM orders WHERE customer_id = ANY ($1)", args: []any{[]int64{k}}},
						{sql: "WITH x AS (UPDATE orders SET item = 'new' WHERE customer_id = $1 RETURNING id) SELECT count(*) FROM x", args: []any{k}},
					} {
						o.conn, o.begin, o.what = r.connect(mode), begin, what
						mustExec(t, o.conn, begin)
						if !strings.HasPrefix(begin, "BEGIN") {
							mustExec(t, o.conn, "BEGIN")
						}
						for _, key := range first {
							if _, err := o.conn.Exec(ctx, "SELECT * FROM orders WHERE customer_id = $1", key); err != nil {
								t.Fatal(err)
							}
						}
						list = append(list, o)
					}
				}
			}
			r.moved(k)
			r.freeze()
			r.drained()
			r.flip()
			look := func(when string, o open) {
				t.Helper()
				var n int
				err := o.conn.QueryRow(ctx, o.sql, o.args...).Scan(&n)
				switch {
				case o.begin == loose && (err != nil || n != 2):
					t.Errorf("%s, %s, %s: %s: %d rows, %v", when, o.begin, o.what, o.sql, n, err)
				case o.begin != loose && sqlstate(err) != pg.CodeSerializationFailure:
					t.Errorf("%s, %s, %s: %s: %d rows, %v", when, o.begin, o.what, o.sql, n, err)
				}
			}
			for i, o := range list {
				if i%2 == 0 {
					look("flipped", o)
					mustExec(t, o.conn, "ROLLBACK")
					if err := o.conn.QueryRow(ctx, o.sql, o.args...).Scan(new(int)); err != nil {
						t.Errorf("run again: %v", err)
					}
				}
			}
			r.abort() // it is over
			for i, o := range list {
				if i%2 == 1 {
					var n int
					if err := o.conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", there).Scan(&n); err != nil || n != 1 {
						t.Errorf("of a range that has not moved: %d rows, %v", n, err)
					}
					look("over", o)
					mustExec(t, o.conn, "ROLLBACK")
				}
			}
		})
	}
}

// TestChainedSnapshot: a transaction that COMMIT AND CHAIN has begun has no snapshot of before.
func TestChainedSnapshot(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	k, there := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	conn := r.connect(pgx.QueryExecModeExec)
	r.prepare(k)
	mustExec(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ", fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", there))
	r.moved(k)
	r.freeze()
	r.drained()
	r.flip()
	mustExec(t, conn, "COMMIT AND CHAIN")
	if got := answerOf(t, conn, fmt.Sprintf("SELECT count(*) FROM orders WHERE customer_id = %d", k)); got != "2\nSELECT 1" {
		t.Error(got)
	}
}

// TestOldSnapshotElsewhere: what ends or changes hands in one keyspace does not concern a transaction that comes to another.
func TestOldSnapshotElsewhere(t *testing.T) {
	r := newRig(t, rigOptions{across: true, keyed: []rib.KeyedTable{{Schema: "public", Name: "others", Columns: []string{"id"}}}})
	r.own(func(o *rib.Ownership) {
		low, high := oneKey(t, 1)
		o.Moves = append(o.Moves, rib.Move{ID: 78, Keyspace: 3, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MovePrepare, Epoch: o.Epoch})
	})
	conn := r.connect(pgx.QueryExecModeExec)
	mustExec(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	for _, shard := range []string{"shard_1", "shard_2"} {
		mustExec(t, conn, fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", r.keyOn(shard, 1)))
	}
	r.abort()
	mustExec(t, conn, "SELECT count(*) FROM orders", "COMMIT")
}

// leased is wire.Config's.
func (r *rig) leased() bool {
	if !r.lonely.Load() {
		return true
	}
	if r.lately.Load() {
		r.asked.Add(1)
	}
	return false
}

// TestLeaseReturns: a statement over shards that finds the lease gone when its turn comes, or that cannot be asked for without one, waits for a lease that
// has ended a moment ago, and is answered when it returns. It does not wait for one that stays away, and a cancel request ends the wait.
func TestLeaseReturns(t *testing.T) {
	r := newRig(t, rigOptions{across: true, poolSize: 1, wait: patience, shards: []shardServers{{primary: servers(t)[0].primary}, {primary: servers(t)[1].primary}}})
	k := r.keyOn("shard_1", 1)
	const planned, unsayable = "SELECT count(*) FROM orders", "SELECT count(*) FROM orders AS o (a)"
	lose := func() {
		r.asked.Store(0)
		r.lately.Store(true)
		r.lonely.Store(true)
	}
	for name, test := range map[string]struct {
		then func(conn *pgx.Conn)
		want string // of planned, and of unsayable if that is "" or no 57P03 of its own
	}{
		"returns":    {func(*pgx.Conn) { r.lonely.Store(false) }, ""},
		"stays away": {func(*pgx.Conn) { r.lately.Store(false) }, pg.CodeCannotConnectNow},
		"canceled": {func(conn *pgx.Conn) {
			if err := conn.PgConn().CancelRequest(ctxOf(t)); err != nil {
				t.Error(err)
			}
		}, pg.CodeQueryCanceled},
	} {
		for _, sql := range []string{planned, unsayable} {
			t.Run(name+", "+sql, func(t *testing.T) {
				conn, other := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
				mustExec(t, conn, sql)
				mustExec(t, other, "BEGIN", fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", k))
				if sql == unsayable {
					mustExec(t, other, "COMMIT")
					lose()
				}
				done := make(chan string, 1)
				go func() {
					_, err := conn.Exec(ctxOf(t), sql)
					if err != nil {
						done <- sqlstate(err)
						return
					}
					done <- ""
				}()
				if sql == planned { // it stands in line for the one connection
					pgtest.Eventually(t, patience, func() error {
						if s := r.pools.Stats(); !slices.ContainsFunc(s, func(b pool.Stat) bool { return b.Waiting > 0 }) {
							return fmt.Errorf("nobody waits: %+v", s)
						}
						return nil
					})
					lose()
					mustExec(t, other, "COMMIT")
				}
				pgtest.Eventually(t, patience, func() error {
					if n := r.asked.Load(); n < 3 {
						return fmt.Errorf("asked for the lease %d times", n)
					}
					return nil
				})
				test.then(conn)
				if got := <-done; got != test.want {
					t.Errorf("%q, want %q", got, test.want)
				}
				r.lonely.Store(false)
				mustExec(t, conn, sql)
			})
		}
	}
}
