package wire_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// ownSpread is a spread on servers of the test's own, of that many shards.
func ownSpread(t *testing.T, n int) *spread {
	t.Helper()
	shards := make([]shardServers, n)
	prepares := pgtest.Options{Params: map[string]string{"max_prepared_transactions": "20"}}
	for i := range shards {
		shards[i].primary = pgtest.NewPrimary(t, prepares)
		shards[i].replica = pgtest.NewReplica(t, shards[i].primary, prepares)
	}
	return newSpread(t, rigOptions{shards: shards, failover: patience})
}

// slowRow makes a view of the table orders. On replicas, its row of the second shard with id 13 takes for ever.
func (s *spread) slowRow() {
	s.t.Helper()
	for i, shard := range s.servers {
		key := []int64{s.one, s.two}[i]
		if err := shard.primary.ExecIn(s.ctx, "app", "ALTER TABLE orders RENAME TO base",
			fmt.Sprintf("CREATE VIEW orders AS SELECT customer_id, id, CASE WHEN pg_is_in_recovery() AND customer_id = %d AND id = 13 THEN (SELECT 'replica' FROM pg_sleep(600)) ELSE item END AS item FROM base", s.two),
			fmt.Sprintf("INSERT INTO base SELECT %d, i, repeat('x', CASE WHEN i < 13 THEN 10000 ELSE 1 END) FROM generate_series(1, 20) i", key),
			"GRANT ALL ON orders, base TO app"); err != nil {
			s.t.Fatal(err)
		}
		if err := shard.replica.CaughtUp(s.ctx); err != nil {
			s.t.Fatal(err)
		}
	}
}

// fanReads are reads of both shards of which nothing has reached the client when the second shard's replica is at the slow row, by how they are put
// together.
var fanReads = map[string]string{
	"as they come": "SELECT id FROM orders WHERE id IN (13, 14) AND item = 'x'",
	"merged":       "SELECT id, item FROM orders WHERE id = 13 ORDER BY id",
	"gathered":     "SELECT item, max(id), string_agg(id::text, ',' ORDER BY id) FROM orders WHERE id = 13 GROUP BY item ORDER BY item",
}

// answers runs reads at the same time, each on a connection of its own, and tells their ends by name.
func (s *spread) answers(reads map[string]string) <-chan named {
	ended := make(chan named, len(reads))
	for name, sql := range reads {
		conn := s.connect(pgx.QueryExecModeExec)
		go func() {
			rows, _ := conn.Query(s.ctx, sql)
			n := 0
			for rows.Next() {
				n++
			}
			ended <- named{name, n, rows.Err()}
		}()
	}
	return ended
}

type named struct {
	name string
	rows int
	err  error
}

// The replica that a shard's part of a read runs on dies, or is taken away: the part goes on at the primary, as long as no byte has reached the client.
func TestReplicaOfAFanOutIsLost(t *testing.T) {
	s := ownSpread(t, 2)
	s.slowRow()
	replica := s.servers[1].replica
	for _, way := range []string{"killed", "frozen"} {
		t.Run(way, func(t *testing.T) {
			ended := s.answers(fanReads)
			rows, begun := s.connect(pgx.QueryExecModeExec), make(chan error, 1)
			some := make(chan struct{})
			go func() {
				r, _ := rows.Query(s.ctx, "SELECT customer_id, item FROM orders")
				for seen := false; r.Next(); {
					values, err := r.Values()
					if of := err == nil && values[0] == s.two; of && !seen { // the other shard's may come first
						seen = true
						close(some)
					}
				}
				begun <- r.Err()
			}()
			wait(t, some)
			runs(t, replica, "SELECT", len(fanReads)+1)
			if way == "killed" {
				if err := replica.ExecIn(s.ctx, "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'"); err != nil {
					t.Fatal(err)
				}
			} else {
				freezes(t, replica)
				s.believe("shard_2-replica", rib.Down, rib.Replica, 0)
			}
			began := time.Now()
			for range fanReads {
				a := wait(t, ended)
				if want := map[string]int{"as they come": 4, "merged": 2, "gathered": 1}[a.name]; a.err != nil || a.rows != want {
					t.Errorf("%s: %d rows, want %d: %v", a.name, a.rows, want, a.err)
				}
			}
			if err := wait(t, begun); err == nil {
				t.Error("rows had reached the client, and the rest came all the same")
			}
			t.Logf("after %v", time.Since(began))
			s.busy(t, 0)
		})
	}
}

// wait takes what comes.
func wait[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("it still waits")
	}
	return v
}

// A primary freezes under what might write on several shards: nothing of it takes effect, and its client hears so.
func TestPrimaryOfSeveralFreezes(t *testing.T) {
	s := ownSpread(t, 2)
	primary := s.servers[1].primary
	if err := primary.ExecIn(s.ctx, "app",
		"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.item = 'slow') EXECUTE FUNCTION slow()"); err != nil {
		t.Fatal(err)
	}
	at := func(conn *pgx.Conn, sql string) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := conn.Exec(s.ctx, sql)
			ended <- err
		}()
		return ended
	}
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 14, 'x'), ($2, 14, 'x'), ($2, 15, 'x')", s.one, s.two)
	block, commit := s.connect(pgx.QueryExecModeExec), s.connect(pgx.QueryExecModeExec)
	insert := fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, $1, $2)", s.two)
	for id, conn := range []*pgx.Conn{block, commit} {
		if _, err := conn.Exec(s.ctx, "BEGIN"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(s.ctx, fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, $1, 'new')", s.one), 100+id); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(s.ctx, insert, 100+id, []string{"new", "slow"}[id]); err != nil {
			t.Fatal(err)
		}
	}
	alone := at(s.conn, "UPDATE orders SET item = (SELECT 'done' FROM pg_sleep(600)) WHERE id = 14")
	inBlock := at(block, fmt.Sprintf("UPDATE orders SET item = (SELECT 'done' FROM pg_sleep(600)) WHERE customer_id = %d AND id = 15", s.two))
	committing := at(commit, "COMMIT")
	runs(t, primary, "UPDATE", 2)
	runs(t, primary, "SELECT CASE", 1) // and PREPARE
	freezes(t, primary)
	s.believe("shard_2-primary", rib.Down, rib.Primary, 0)
	began := time.Now()
	for what, ended := range map[string]<-chan error{"alone": alone, "in a transaction": inBlock} {
		if e := wantCode(t, wait(t, ended), pg.CodeConnectionFailure); !strings.Contains(e.Hint, "try it again") || !strings.Contains(e.Detail, "does not answer") {
			t.Errorf("%s: %+v", what, e)
		}
	}
	wantCode(t, wait(t, committing), pg.CodeSerializationFailure)
	t.Logf("after %v", time.Since(began))
	if tag, err := block.Exec(s.ctx, "ROLLBACK"); err != nil || tag.String() != "ROLLBACK" {
		t.Errorf("%v, %v", tag, err)
	}
	if err := primary.Thaw(); err != nil {
		t.Fatal(err)
	}
	s.busy(t, 0)
	s.believe("shard_2-primary", rib.Up, rib.Primary, 0)
	pgtest.Eventually(t, patience, func() error {
		var got string
		if err := s.conn.QueryRow(s.ctx, "SELECT coalesce(string_agg(item, ','), '') FROM orders WHERE id >= 100 OR item = 'done'").Scan(&got); err != nil || got != "" {
			return fmt.Errorf("there are %s, %w", got, err)
		}
		return nil
	})
}

// The first error of a shard is told at once, and ends what the others are at.
func TestFirstErrorEndsAll(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	const fails = "CASE WHEN customer_id = %d THEN (SELECT 1 FROM pg_sleep(600)) ELSE 1/(id - id) END"
	for _, slow := range []int64{s.one, s.two} {
		for _, form := range []string{
			"SELECT " + fails + " FROM orders", "SELECT " + fails + " AS x FROM orders ORDER BY x", "SELECT " + fails + " AS x, count(*) FROM orders GROUP BY x ORDER BY 2",
			"UPDATE orders SET item = (" + fails + ")::text",
		} {
			for _, block := range []bool{false, true} {
				if block {
					s.exec("BEGIN")
					s.read("SELECT id FROM orders")
				}
				sql := fmt.Sprintf(form, slow)
				wantCode(t, wait(t, s.begin(sql)), "22012")
				if block {
					s.exec("ROLLBACK")
				}
				s.busy(t, 0)
			}
		}
	}
	s.sleeps(0)
}

// Reads of several shards that stand in line for each other's connections all get their turn.
func TestReadsDoNotWaitForEachOther(t *testing.T) {
	s := newSpread(t, rigOptions{poolSize: 1, wait: 20 * time.Second})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	s.caughtUp()
	var all sync.WaitGroup
	for i := range 6 {
		conn := s.connect(pgx.QueryExecModeExec)
		all.Go(func() {
			for range 60 {
				var rows []int64
				got, err := conn.Query(s.ctx, []string{"SELECT id FROM orders ORDER BY id", "SELECT id FROM orders", "SELECT max(id) FROM orders GROUP BY item"}[i%3])
				if err == nil {
					rows, err = pgx.CollectRows(got, pgx.RowTo[int64])
				}
				if err != nil || len(rows) != 2 {
					t.Errorf("%v, %v", rows, err)
					return
				}
			}
		})
	}
	all.Wait()
	s.busy(t, 0)
}

// Of transactions that wait for each other's connections the youngest ends, and says why; the others go on.
func TestTransactionsThatWaitForConnections(t *testing.T) {
	s := newSpread(t, rigOptions{poolSize: 1, wait: patience})
	conns := []*pgx.Conn{s.conn, s.connect(pgx.QueryExecModeExec)}
	keys := []int64{s.one, s.two}
	for i, conn := range conns {
		for _, sql := range []string{"BEGIN", fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", keys[i])} {
			if _, err := conn.Exec(s.ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := make(chan error, 1) // which has no connection at all, and goes after them
	third := s.connect(pgx.QueryExecModeExec)
	go func() {
		_, err := third.Exec(s.ctx, "SELECT id FROM orders WHERE customer_id = $1 FOR SHARE", s.one)
		read <- err
	}()
	errs := make([]error, 2)
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			if _, errs[i] = conn.Exec(s.ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 2)", keys[1-i]); errs[i] == nil {
				_, errs[i] = conn.Exec(s.ctx, "COMMIT")
			} else if _, err := conn.Exec(s.ctx, "ROLLBACK"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	done := slices.Index(errs, nil)
	if done < 0 {
		t.Fatalf("both have failed: %v", errs)
	}
	if e := wantCode(t, errs[1-done], pg.CodeDeadlockDetected); !strings.Contains(e.Hint, "pool.size") {
		t.Errorf("%+v", e)
	}
	if err := wait(t, read); err != nil {
		t.Error(err)
	}
	s.caughtUp() // who reads may have written nothing that its copies would have to wait for
	if got := s.read("SELECT id::text FROM orders ORDER BY id"); got != "1,2" {
		t.Errorf("rows %s", got)
	}
	s.busy(t, 0)
}

// A server's idle_in_transaction_session_timeout is for clients: a branch on which a transaction does nothing for a while is not ended by it, and one
// whose client does nothing is.
func TestIdleBranchesOfALiveTransaction(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("SET idle_in_transaction_session_timeout = '2s'")
	s.exec("BEGIN")
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1)", s.one)
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 2)", s.two)
	s.exec("SELECT pg_sleep(5) FROM orders WHERE customer_id = $1", s.one)
	for range 3 { // and with pauses that are none
		s.exec("SELECT pg_sleep(0.9) FROM orders WHERE customer_id = $1", s.one)
	}
	s.exec("SAVEPOINT a")
	if got := s.read("SELECT id::text FROM orders ORDER BY id"); got != "1,2" {
		t.Errorf("rows %s", got)
	}
	for _, server := range s.servers { // until both are ended
		pgtest.Eventually(t, patience, func() error {
			conn, err := server.primary.Conn(s.ctx)
			if err != nil {
				return err
			}
			defer conn.Close(context.Background())
			var n int
			if err := conn.QueryRow(s.ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND usename = 'app'").Scan(&n); err != nil || n > 0 {
				return fmt.Errorf("%d are idle in a transaction, %w", n, err)
			}
			return nil
		})
	}
	if _, err := s.conn.Exec(s.ctx, "SELECT id FROM orders"); err == nil {
		t.Error("a client that did nothing has kept its transaction")
	}
	s.exec("ROLLBACK")
	s.busy(t, 0)
}

// A row that is larger than what a statement may keep is refused before it is read.
func TestHugeRowsOfSeveralShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.live.QueryMemory = 8 << 20
	s.server.Reload(s.live)
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, repeat('x', 1 << 20)), ($2, 2, repeat('x', 20 << 20))", s.one, s.two)
	for _, sql := range []string{
		"SELECT item FROM orders", "SELECT item FROM orders ORDER BY id", "SELECT item, count(*) FROM orders GROUP BY item",
		"SELECT string_agg(item, ',') FROM (SELECT repeat(item, 5) AS item FROM orders WHERE id = 1) x",
	} {
		for _, block := range []bool{false, true} {
			if block {
				s.exec("BEGIN")
			}
			_, err := s.conn.Exec(s.ctx, sql)
			if e := wantCode(t, err, pg.CodeOutOfMemory); !strings.Contains(e.Hint, "scatter.query_memory") {
				t.Errorf("%s: %+v", sql, e)
			}
			if block {
				s.exec("ROLLBACK")
			}
			s.busy(t, 0)
		}
	}
	// Rows that fit come, one after the other, and are not counted any more when they have been sent.
	s.exec("DELETE FROM orders WHERE id = 2")
	s.exec("INSERT INTO orders (customer_id, id, item) SELECT $1, i, repeat('x', 1 << 20) FROM generate_series(11, 40) i", s.one)
	s.exec("INSERT INTO orders (customer_id, id, item) SELECT $1, i, repeat('x', 1 << 20) FROM generate_series(11, 40) i", s.two)
	for _, sql := range []string{"SELECT id, item FROM orders", "SELECT id, item FROM orders ORDER BY id"} {
		if tag, err := s.conn.Exec(s.ctx, sql); err != nil || tag.String() != "SELECT 61" {
			t.Errorf("%s: %v, %v", sql, tag, err)
		}
	}
}

// The same is so of the branch that a transaction over several shards has begun with.
func TestFirstBranchOfALiveTransaction(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1)", s.two)
	s.exec("SET idle_in_transaction_session_timeout = '2s'")
	s.exec("BEGIN")
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 2)", s.one)
	s.exec("SELECT pg_sleep(4) FROM orders WHERE customer_id = $1", s.two)
	if got := s.read("SELECT id::text FROM orders ORDER BY id"); got != "1,2" {
		t.Errorf("rows %s", got)
	}
	s.exec("COMMIT")
	s.busy(t, 0)
}
