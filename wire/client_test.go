package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

var allModes = map[string]pgx.QueryExecMode{
	"cache statement": pgx.QueryExecModeCacheStatement,
	"cache describe":  pgx.QueryExecModeCacheDescribe,
	"describe exec":   pgx.QueryExecModeDescribeExec,
	"exec":            pgx.QueryExecModeExec,
	"simple":          pgx.QueryExecModeSimpleProtocol,
}

// Rows written through the router lie where PostgreSQL's own hash says, and come back, in every way pgx knows to send them.
func TestKeyedRows(t *testing.T) {
	r := newRig(t, rigOptions{})
	const rows = 60
	next := int64(0)
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			ctx := ctxOf(t)
			conn := r.connect(mode)
			from := next
			next += rows
			for k := from; k < from+rows; k++ {
				tag, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, $3)", k, k, fmt.Sprint("item ", k))
				if err != nil || tag.RowsAffected() != 1 {
					t.Fatalf("insert of %d: %v %v", k, tag, err)
				}
			}
			for k := from; k < from+rows; k++ {
				var item string
				if err := conn.QueryRow(ctx, "SELECT item FROM orders WHERE customer_id = $1 AND id = $2", k, k).Scan(&item); err != nil || item != fmt.Sprint("item ", k) {
					t.Fatalf("read of %d: %q %v", k, item, err)
				}
			}
			tag, err := conn.Exec(ctx, "UPDATE orders SET item = 'changed' WHERE customer_id = $1", from)
			if err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("update: %v %v", tag, err)
			}
			tag, err = conn.Exec(ctx, "DELETE FROM orders WHERE customer_id = $1", from)
			if err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("delete: %v %v", tag, err)
			}
		})
	}
	total := 0
	hash, _ := rib.MethodByName("hash")
	ks := r.table.Snapshot().Ownership.Keyspaces[0]
	for i, s := range servers(t) {
		conn, err := s.primary.ConnTo(ctxOf(t), "app", "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		var all, own int
		where := hash.Predicate([]string{"customer_id"}, ks.Types, ks.Ranges[i].From, ks.Ranges[i].To)
		if err := conn.QueryRow(ctxOf(t), "SELECT count(*), count(*) FILTER (WHERE "+where+") FROM orders").Scan(&all, &own); err != nil {
			t.Fatal(err)
		}
		if all != own || all == 0 {
			t.Errorf("shard %d holds %d rows, %d of them its own", i+1, all, own)
		}
		total += all
	}
	if want := len(allModes) * (rows - 1); total != want {
		t.Errorf("%d rows in all, want %d", total, want)
	}
}

// Reads go to the closest backend, and to the primary after the session's own write, until the replica was seen to have it.
func TestReadsGoToTheClosest(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	key := r.keyOn("shard_2", 1)
	// pg_is_in_recovery would do, but it is volatile and so never leaves the primary.
	const q = "SELECT inet_server_port() FROM (SELECT count(*) FROM orders WHERE customer_id = $1) x"
	onReplica := func(conn *pgx.Conn) bool {
		var port int
		if err := conn.QueryRow(ctx, q, key).Scan(&port); err != nil {
			t.Fatal(err)
		}
		return port == servers(t)[1].replica.Port()
	}
	conn := r.connect(pgx.QueryExecModeCacheStatement)
	if !onReplica(conn) {
		t.Error("a plain read did not go to the closest backend, the replica")
	}
	if _, err := conn.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", key); err == nil {
		t.Error("an INSERT without the key was routed: it cannot be known")
	}
	if _, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", key); err != nil {
		t.Fatal(err)
	}
	if onReplica(conn) {
		t.Error("a read right after the session's write went to a replica")
	}
	if !onReplica(r.connect(pgx.QueryExecModeCacheStatement)) {
		t.Error("another session's read did not go to the replica")
	}
	if err := servers(t)[1].replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	if onReplica(conn) {
		t.Error("a read went to a replica of which nothing is known")
	}
	r.looks(1)
	if !onReplica(conn) {
		t.Error("reads did not go back to the replica that has the write")
	}
	for sql, want := range map[string]bool{
		"SELECT inet_server_port() FROM orders WHERE customer_id = $1 FOR UPDATE":          false,
		"SELECT inet_server_port(), random() FROM orders WHERE customer_id = $1":           false,
		"SELECT inet_server_port(), now(), lower(item) FROM orders WHERE customer_id = $1": true,
	} {
		conn := r.connect(pgx.QueryExecModeExec)
		pgtest.Eventually(t, patience, func() error { // the replica may lag behind the INSERT
			rows, err := conn.Query(ctx, sql, key)
			if err != nil {
				return err
			}
			defer rows.Close()
			if !rows.Next() {
				return fmt.Errorf("no row: %v", rows.Err())
			}
			v, err := rows.Values()
			if err != nil {
				return err
			}
			if got := v[0] == int32(servers(t)[1].replica.Port()); got != want {
				t.Errorf("%s: on the replica: %v, want %v", sql, got, want)
			}
			return nil
		})
	}
	tx, err := r.connect(pgx.QueryExecModeExec).BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if err := tx.QueryRow(ctx, q, key).Scan(&port); err != nil || port != servers(t)[1].replica.Port() {
		t.Errorf("a READ ONLY transaction's read ran on port %d, %v", port, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Error(err)
	}
}

// pgErr runs sql and returns the error that the client got.
func pgErr(t *testing.T, conn *pgx.Conn, sql string, args ...any) *pgconn.PgError {
	t.Helper()
	_, err := conn.Exec(ctxOf(t), sql, args...)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		t.Fatalf("%s: got %v, want an error from the server", sql, err)
	}
	return pe
}

func TestTransactions(t *testing.T) {
	r := newRig(t, rigOptions{})
	k1, k2 := r.keyOn("shard_1", 1), int64(0)
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			ctx := ctxOf(t)
			k2 = r.keyOn("shard_2", k2+1) // one that no replica has ever had rows of
			conn := r.connect(mode)
			count := func(q interface {
				QueryRow(context.Context, string, ...any) pgx.Row
			}, key int64) (n int) {
				t.Helper()
				if err := q.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", key).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s := conn.PgConn().TxStatus(); s != 'T' {
				t.Fatalf("status %c after BEGIN", s)
			}
			var one int
			if err := tx.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil || one != 1 {
				t.Fatalf("SELECT 1 in a transaction that is open nowhere yet: %v", err)
			}
			if _, err := tx.Exec(ctx, "SAVEPOINT a"); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 7)", k2); err != nil {
				t.Fatal(err)
			}
			if n := count(tx, k2); n != 1 {
				t.Errorf("the transaction sees %d rows of its own", n)
			}
			if n := count(r.connect(mode), k2); n != 0 {
				t.Errorf("another session sees %d rows that are not committed", n)
			}
			if _, err := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT a"); err != nil {
				t.Fatal(err)
			}
			if n := count(tx, k2); n != 0 {
				t.Errorf("%d rows after ROLLBACK TO", n)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 8)", k2); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if n := count(conn, k2); n != 1 {
				t.Errorf("%d rows after COMMIT", n)
			}

			// A key of another shard: one transaction may read there, and an error fails it as a whole.
			tx, err = conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 9)", k2); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, "SELECT * FROM orders WHERE customer_id = $1", k1); err != nil {
				t.Error(err)
			}
			if pe := pgErr(t, conn, "SELECT 1/(customer_id - $1) FROM orders WHERE customer_id = $1", k2); pe.Code != "22012" {
				t.Errorf("%v: %s", pe.Code, pe.Message)
			}
			if pe := pgErr(t, conn, "SELECT 1"); pe.Code != "25P02" {
				t.Errorf("after that: %v %s", pe.Code, pe.Message)
			}
			if tag, err := conn.Exec(ctx, "COMMIT"); err != nil || tag.String() != "ROLLBACK" {
				t.Errorf("COMMIT of a failed transaction: %v %v", tag, err)
			}
			if n := count(conn, k2); n != 1 {
				t.Errorf("%d rows after the failed transaction", n)
			}

			// An error before the block is open anywhere fails it too.
			if _, err := conn.Exec(ctx, "START TRANSACTION"); err != nil {
				t.Fatal(err)
			}
			if pe := pgErr(t, conn, "INSERT INTO orders (id) VALUES (1)"); pe.Code != "0A000" || pe.Hint == "" {
				t.Errorf("no key: %v %s %q", pe.Code, pe.Message, pe.Hint)
			}
			if pe := pgErr(t, conn, "SELECT * FROM orders WHERE customer_id = 1"); pe.Code != "25P02" {
				t.Errorf("in a failed block: %v %s", pe.Code, pe.Message)
			}
			if tag, err := conn.Exec(ctx, "ROLLBACK"); err != nil || tag.String() != "ROLLBACK" {
				t.Errorf("%v %v", tag, err)
			}
			if s := conn.PgConn().TxStatus(); s != 'I' {
				t.Errorf("status %c after ROLLBACK", s)
			}
			if n := count(conn, k1); n != 0 {
				t.Errorf("%d rows on shard_1", n)
			}
		})
	}
}

// Named statements outlive the server connection that they were prepared on.
func TestPreparedStatements(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	ctx := ctxOf(t)
	a, b := r.connect(pgx.QueryExecModeCacheStatement), r.connect(pgx.QueryExecModeCacheStatement)
	for _, conn := range []*pgx.Conn{a, b} {
		if _, err := conn.Prepare(ctx, "get", "SELECT count(*) FROM orders WHERE customer_id = $1"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(40) {
		for _, conn := range []*pgx.Conn{a, b} {
			var n int
			if err := conn.QueryRow(ctx, "get", i).Scan(&n); err != nil || n != 0 {
				t.Fatalf("%d: %d %v", i, n, err)
			}
		}
	}
	if _, err := a.PgConn().Prepare(ctx, "get", "SELECT 1", nil); err == nil || !strings.Contains(err.Error(), "42P05") {
		t.Errorf("preparing a taken name: %v", err)
	}
	if err := a.Deallocate(ctx, "get"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.PgConn().ExecPrepared(ctx, "get", [][]byte{[]byte("1")}, nil, nil).Close(); err == nil || !strings.Contains(err.Error(), "26000") {
		t.Errorf("executing a closed statement: %v", err)
	}
	var n int
	if err := b.QueryRow(ctx, "get", int64(1)).Scan(&n); err != nil {
		t.Errorf("a's Close hit b's statement: %v", err)
	}
	if _, err := a.PgConn().Prepare(ctx, "bad", "SELECT nothing FROM nowhere", nil); err == nil || !strings.Contains(err.Error(), "42P01") {
		t.Errorf("preparing nonsense: %v", err)
	}
	if _, err := a.PgConn().Prepare(ctx, "bad", "SELECT 1", nil); err != nil {
		t.Errorf("the name of a statement that failed is taken: %v", err)
	}
}

// Many statements before one Sync: one transaction, so one shard.
func TestPipelines(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeExec)
	key := r.keyOn("shard_2", 100)
	var b pgx.Batch
	for i := range 500 {
		b.Queue("INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, repeat('x', 1000))", key, i)
	}
	b.Queue("SELECT count(*) FROM orders WHERE customer_id = $1", key)
	res := conn.SendBatch(ctx, &b)
	for range 500 {
		if _, err := res.Exec(); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := res.QueryRow().Scan(&n); err != nil || n != 500 {
		t.Fatalf("%d %v", n, err)
	}
	if err := res.Close(); err != nil {
		t.Fatal(err)
	}
	other := r.keyOn("shard_1", 1)
	b = pgx.Batch{}
	b.Queue("INSERT INTO orders (customer_id, id) VALUES ($1, 1000)", key)
	b.Queue("INSERT INTO orders (customer_id, id) VALUES ($1, 1000)", other)
	err := conn.SendBatch(ctx, &b).Close()
	if err == nil || !strings.Contains(err.Error(), "0A000") {
		t.Errorf("a pipeline over two shards: %v", err)
	}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", key).Scan(&n); err != nil || n != 500 {
		t.Errorf("%d rows after the refused pipeline, %v", n, err)
	}
	// An error in the middle: nothing after it runs, and the session goes on.
	b = pgx.Batch{}
	b.Queue("INSERT INTO orders (customer_id, id) VALUES ($1, 2000)", key)
	b.Queue("INSERT INTO orders (customer_id, id) VALUES ($1, 2000)", key)
	b.Queue("INSERT INTO orders (customer_id, id) VALUES ($1, 2001)", key)
	if err := conn.SendBatch(ctx, &b).Close(); err == nil || !strings.Contains(err.Error(), "23505") {
		t.Errorf("a pipeline with an error: %v", err)
	}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1 AND id >= 2000", key).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of the failed pipeline, %v", n, err)
	}
}

func TestCopy(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeCacheStatement)
	var rows [][]any
	for i := range 20000 {
		rows = append(rows, []any{int32(i), strings.Repeat("x", 100)})
	}
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"id", "body"}, pgx.CopyFromRows(rows))
	if err != nil || n != 20000 {
		t.Fatalf("%d %v", n, err)
	}
	var out strings.Builder
	tag, err := conn.PgConn().CopyTo(ctx, &out, "COPY notes TO STDOUT")
	if err != nil || tag.RowsAffected() != 20000 || strings.Count(out.String(), "\n") != 20000 {
		t.Fatalf("%v %v, %d lines", tag, err, strings.Count(out.String(), "\n"))
	}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"id", "body"}, pgx.CopyFromRows(rows)); err == nil || !strings.Contains(err.Error(), "23505") {
		t.Errorf("COPY of rows that are there: %v", err)
	}
	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("1\t1\tx\n"), "COPY orders FROM STDIN")
	if err == nil || !strings.Contains(err.Error(), "0A000") {
		t.Errorf("COPY into a sharded table: %v", err)
	}
	var one int
	if err := conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		t.Errorf("after COPY: %v", err)
	}
}

func TestCancel(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn, err := pgconn.Connect(ctxOf(t), r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(25)").ReadAll()
		done <- err
	}()
	// The request may arrive before the statement runs: then it cancels nothing, as with PostgreSQL itself.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "57014" {
				t.Fatalf("got %v", err)
			}
			if _, err := conn.Exec(ctxOf(t), "SELECT 1").ReadAll(); err != nil {
				t.Errorf("after the cancel: %v", err)
			}
			return
		case <-tick.C:
			if err := conn.CancelRequest(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Without a free connection a statement waits for its bound, no longer, and says so.
func TestPoolExhausted(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, wait: 200 * time.Millisecond})
	b, _ := r.exhausted()
	if pe := pgErr(t, b, "INSERT INTO notes VALUES (2, 'x')"); pe.Code != "53300" || pe.Hint == "" {
		t.Errorf("%s %s", pe.Code, pe.Message)
	}
}

// exhausted returns a client that finds the only connection to shard_1's primary taken, and the transaction that has it.
func (r *rig) exhausted() (*pgx.Conn, pgx.Tx) {
	r.t.Helper()
	a, b := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	tx, err := a.Begin(ctxOf(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := tx.Exec(ctxOf(r.t), "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		r.t.Fatal(err)
	}
	return b, tx
}

// A statement that waits gets the connection once it is free.
func TestPoolWaits(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	b, tx := r.exhausted()
	done := make(chan error, 1)
	go func() {
		_, err := b.Exec(context.Background(), "INSERT INTO notes VALUES (3, 'x')")
		done <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		for _, s := range r.pools.Stats() {
			if s.Waiting == 1 {
				return nil
			}
		}
		return errors.New("nobody waits")
	})
	if err := tx.Commit(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("a statement that waited for a connection that came free: %v", err)
	}
}
