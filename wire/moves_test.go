package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/pg"
)

// own installs the next table of owners, changed by edit, and waits until statements go by it.
func (r *rig) own(edit func(o *rib.Ownership)) {
	r.t.Helper()
	o := *r.table.Owners().Get()
	o.Epoch.Index++
	o.Keyspaces, o.Moves = slices.Clone(o.Keyspaces), slices.Clone(o.Moves)
	edit(&o)
	r.table.Owners().Set(&o)
	pgtest.Eventually(r.t, patience, func() error {
		if said := r.moves.Say(); said.Applied != o.Epoch {
			return fmt.Errorf("at %v, want %v", said.Applied, o.Epoch)
		}
		return nil
	})
}

// oneKey is the range that holds a customer and nobody else.
func oneKey(t *testing.T, customer int64) (low, high rib.Key) {
	t.Helper()
	m, err := rib.MethodByName("hash")
	if err != nil {
		t.Fatal(err)
	}
	low, err = m.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: customer})
	if err != nil {
		t.Fatal(err)
	}
	high = slices.Clone(low)
	for i := len(high) - 1; ; i-- {
		if high[i]++; high[i] != 0 {
			return low, high
		}
	}
}

const testMove = 77

// prepare begins the move of one customer from shard_1 to shard_2.
func (r *rig) prepare(customer int64) {
	r.own(func(o *rib.Ownership) {
		low, high := oneKey(r.t, customer)
		o.Moves = append(o.Moves, rib.Move{ID: testMove, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MovePrepare, Epoch: o.Epoch})
	})
}

func (r *rig) freeze() {
	r.own(func(o *rib.Ownership) { o.Moves[0].Phase, o.Moves[0].Epoch = rib.MoveFrozen, o.Epoch })
}

func (r *rig) flip() {
	r.own(func(o *rib.Ownership) {
		m := &o.Moves[0]
		m.Phase, m.Epoch = rib.MoveFlipped, o.Epoch
		var ranges []rib.Range
		for _, x := range o.Keyspaces[0].Ranges {
			if !m.Meets(x.From, x.To) {
				ranges = append(ranges, x)
				continue
			}
			ranges = append(ranges, rib.Range{From: x.From, To: m.Low, Shard: x.Shard, Epoch: x.Epoch}, rib.Range{From: m.Low, To: m.High, Shard: m.To, Epoch: o.Epoch},
				rib.Range{From: m.High, To: x.To, Shard: x.Shard, Epoch: x.Epoch})
		}
		o.Keyspaces[0].Ranges = ranges
	})
}

func (r *rig) abort() { r.own(func(o *rib.Ownership) { o.Moves = nil }) }

// drained waits until the node says so, or reports that it does not.
func (r *rig) drained() {
	r.t.Helper()
	pgtest.Eventually(r.t, patience, func() error {
		if said := r.moves.Say(); !slices.Contains(said.Drained, testMove) {
			return fmt.Errorf("not drained: %+v", said)
		}
		return nil
	})
}

func mustExec(t *testing.T, conn *pgx.Conn, list ...string) {
	t.Helper()
	for _, sql := range list {
		if _, err := conn.Exec(ctxOf(t), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// itemsOf are the items of a customer on a shard, in the order of their ids, as the server itself has them.
func (r *rig) itemsOf(shard int, customer int64) string {
	r.t.Helper()
	conn, err := r.servers[shard].primary.ConnTo(ctxOf(r.t), "app", "")
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var items string
	if err := conn.QueryRow(ctxOf(r.t), "SELECT coalesce(string_agg(item, ',' ORDER BY id), '') FROM orders WHERE customer_id = $1", customer).Scan(&items); err != nil {
		r.t.Fatal(err)
	}
	return items
}

// TestFrozenRange: a transaction that is on the range goes on, new ones wait and run at the new owner (or the old one, if the move is aborted), what is
// open and comes to it late gets 40001, and nothing else notices.
func TestFrozenRange(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		for _, aborted := range []bool{false, true} {
			t.Run(fmt.Sprintf("buffered=%v aborted=%v", buffered, aborted), func(t *testing.T) {
				r := newRig(t, rigOptions{buffered: buffered})
				ctx := ctxOf(t)
				k := r.keyOn("shard_1", 1)
				other := r.keyOn("shard_1", k+1)
				inside, outside, begun := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeExec)
				r.prepare(k)
				mustExec(t, inside, "BEGIN", fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'inside')", k))
				mustExec(t, outside, "BEGIN", fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'outside')", other))
				mustExec(t, begun, "BEGIN") // nothing of it has run: it is a new one
				r.freeze()

				if said := r.moves.Say(); slices.Contains(said.Drained, testMove) {
					t.Error("drained, with a transaction on the range")
				}
				if _, err := outside.Exec(ctx, fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", k)); sqlstate(err) != pg.CodeSerializationFailure {
					t.Errorf("who comes late: %v", err)
				}
				mustExec(t, outside, "ROLLBACK")

				var waiters []func(context.Context) error
				for _, mode := range allModes {
					conn := r.connect(mode)
					id := 10 + len(waiters)
					waiters = append(waiters, func(ctx context.Context) error {
						_, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, 'new')", k, id)
						return err
					})
					reads := r.connect(mode)
					waiters = append(waiters, func(ctx context.Context) error {
						var n int
						return reads.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", k).Scan(&n)
					})
				}
				waiters = append(waiters, func(ctx context.Context) error {
					if _, err := begun.Exec(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, 40, 'begun')", k); err != nil {
						return err
					}
					_, err := begun.Exec(ctx, "COMMIT")
					return err
				})
				lists := r.connect(pgx.QueryExecModeCacheStatement)
				waiters = append(waiters, func(ctx context.Context) error {
					var n int
					return lists.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id IN ($1, $2)", k, other).Scan(&n)
				})
				batches := r.connect(pgx.QueryExecModeCacheStatement)
				waiters = append(waiters, func(ctx context.Context) error {
					b := &pgx.Batch{}
					b.Queue("INSERT INTO orders (customer_id, id, item) VALUES ($1, 50, 'batch')", k)
					b.Queue("INSERT INTO orders (customer_id, id, item) VALUES ($1, 51, 'batch')", k)
					return batches.SendBatch(ctx, b).Close()
				})
				executes := r.connect(pgx.QueryExecModeSimpleProtocol)
				mustExec(t, executes, "PREPARE p (bigint) AS INSERT INTO orders (customer_id, id, item) VALUES ($1, 60, 'execute')")
				waiters = append(waiters, func(ctx context.Context) error {
					_, err := executes.Exec(ctx, fmt.Sprintf("EXECUTE p(%d)", k))
					return err
				})
				done := make(chan error, len(waiters))
				for _, w := range waiters {
					go func() { done <- w(ctx) }()
				}
				pgtest.Eventually(t, patience, func() error { // some first ask a server what their statement is
					if n, _ := r.moves.Waiting(); n != int64(len(waiters)) {
						return fmt.Errorf("%d wait, want %d", n, len(waiters))
					}
					return nil
				})

				mustExec(t, r.connect(pgx.QueryExecModeExec), fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 2, 'free')", other))
				mustExec(t, inside, fmt.Sprintf("UPDATE orders SET item = 'inside still' WHERE customer_id = %d", k), "COMMIT")
				r.drained()
				shard := 1
				if aborted {
					shard = 0
					r.abort()
				} else {
					r.flip()
				}
				for range waiters {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				items := r.itemsOf(shard, k)
				if aborted != strings.HasPrefix(items, "inside still,") {
					t.Errorf("on the owner: %s", items)
				}
				for what, n := range map[string]int{"new": len(allModes), "begun": 1, "batch": 2, "execute": 1} {
					if strings.Count(items, what) != n {
						t.Errorf("%d times %q on the owner, want %d: %s", strings.Count(items, what), what, n, items)
					}
				}
				if !aborted && r.itemsOf(0, k) != "inside still" {
					t.Errorf("on the source: %s", r.itemsOf(0, k))
				}
			})
		}
	}
}

// TestFrozenRangeWaitEnds: the wait ends with 40001 when it has taken too long, with 57014 when it is canceled, and with its client.
func TestFrozenRangeWaitEnds(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	k := r.keyOn("shard_1", 1)
	r.prepare(k)
	r.freeze()
	r.drained()
	write := fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'x')", k)

	patient, canceled, gone := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	done := make(chan error, 2)
	go func() {
		began := time.Now()
		_, err := patient.Exec(ctx, write)
		if took := time.Since(began); took < 4*time.Second {
			err = fmt.Errorf("after %v: %w", took, err)
		}
		done <- err
	}()
	go func() { _, err := gone.Exec(ctx, write); _ = err }()
	go func() { _, err := canceled.Exec(ctx, write); done <- err }()
	r.waiting(3)
	if err := canceled.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; sqlstate(err) != pg.CodeQueryCanceled {
		t.Errorf("canceled: %v", err)
	}
	gone.PgConn().Conn().Close()
	r.waiting(1)
	err := <-done
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != pg.CodeSerializationFailure || !strings.Contains(e.Detail, "shard_2") || e.Hint == "" {
		t.Errorf("too long: %v", err)
	}
	if _, err := patient.Exec(ctx, "SELECT 1"); err != nil {
		t.Errorf("the session goes on: %v", err)
	}
}

// fence has a shard refuse writes to a customer, as a move's fence does.
func (r *rig) fence(shard int, customer int64) {
	r.t.Helper()
	err := r.servers[shard].primary.ExecIn(ctxOf(r.t), "app",
		"CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the range is fenced' USING ERRCODE = 'RF001'; END $$",
		fmt.Sprintf("CREATE TRIGGER fence BEFORE INSERT OR UPDATE ON orders FOR EACH ROW WHEN (NEW.customer_id = %d) EXECUTE FUNCTION fence()", customer))
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestFencedStatement: a node that has missed a move hears of it from the shard. Alone a statement is run again where the row belongs by then;
// within a transaction it is an error that says to run that again.
func TestFencedStatement(t *testing.T) {
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{})
			ctx := ctxOf(t)
			k := r.keyOn("shard_1", 1)
			r.fence(0, k)
			within, alone, batch := r.connect(mode), r.connect(mode), r.connect(mode)
			mustExec(t, within, "BEGIN")
			_, err := within.Exec(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'within')", k)
			var e *pgconn.PgError
			if !errors.As(err, &e) || e.Code != pg.CodeSerializationFailure || e.Hint == "" {
				t.Errorf("within a transaction: %v", err)
			}
			if within.PgConn().TxStatus() != 'E' {
				t.Errorf("status %c", within.PgConn().TxStatus())
			}
			mustExec(t, within, "ROLLBACK")
			if r.fenced.Load() == 0 {
				t.Error("nobody asks for a newer table")
			}

			done := make(chan error, 2)
			go func() {
				var item string
				err := alone.QueryRow(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, 2, 'alone') RETURNING item", k).Scan(&item)
				if err == nil && item != "alone" {
					err = fmt.Errorf("it answered %q", item)
				}
				done <- err
			}()
			go func() {
				b := &pgx.Batch{}
				b.Queue("INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'batch')", k)
				b.Queue("INSERT INTO orders (customer_id, id, item) VALUES ($1, 4, 'batch')", k)
				done <- batch.SendBatch(ctx, b).Close()
			}()
			r.waiting(2)
			r.prepare(k)
			r.freeze()
			r.flip()
			for range 2 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if items := r.itemsOf(1, k); items != "alone,batch,batch" {
				t.Errorf("at the new owner: %q", items)
			}
			if items := r.itemsOf(0, k); items != "" {
				t.Errorf("at the old owner: %q", items)
			}
		})
	}
}

// TestFencedProcedure: a procedure or a block of code may have committed before a shard refuses a row, so it is not run again.
func TestFencedProcedure(t *testing.T) {
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{})
			k := r.keyOn("shard_1", 1)
			r.fence(0, k)
			body := fmt.Sprintf("BEGIN INSERT INTO notes SELECT count(*) FROM notes; COMMIT; INSERT INTO orders (customer_id, id) VALUES (%d, 1); END", k)
			if err := r.servers[0].primary.ExecIn(ctxOf(t), "app", "CREATE PROCEDURE batches() LANGUAGE plpgsql AS $$ "+body+" $$"); err != nil {
				t.Fatal(err)
			}
			direct, err := r.servers[0].primary.ConnTo(ctxOf(t), "app", "") // a replica may not have it yet
			if err != nil {
				t.Fatal(err)
			}
			defer direct.Close(context.Background())
			for i, sql := range []string{"CALL batches()", "DO $$ " + body + " $$"} {
				_, err := r.connect(mode).Exec(ctxOf(t), "/* rangefinder: shard=shard_1 */ "+sql)
				if e := wantCode(t, err, "40003"); e.Hint == "" || e.Detail == "" {
					t.Errorf("%s: %+v", sql, e)
				}
				var n int
				if err := direct.QueryRow(ctxOf(t), "SELECT count(*) FROM notes").Scan(&n); err != nil || n != i+1 {
					t.Errorf("%s: %d notes, %v", sql, n, err)
				}
			}
		})
	}
}

// TestUnknownFreeze: a node that hears of a frozen move for the first time does not say that it is drained before what was at work is over.
func TestUnknownFreeze(t *testing.T) {
	r := newRig(t, rigOptions{})
	k := r.keyOn("shard_1", 1)
	conn, idle := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	mustExec(t, conn, "BEGIN", fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'before')", k))
	mustExec(t, idle, "SELECT 1", "BEGIN") // on no server
	r.own(func(o *rib.Ownership) {
		low, high := oneKey(t, k)
		o.Moves = append(o.Moves, rib.Move{ID: testMove, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MoveFrozen, Epoch: o.Epoch})
	})
	if said := r.moves.Say(); len(said.Drained) != 0 {
		t.Errorf("drained with a transaction of before: %+v", said)
	}
	if _, err := conn.Exec(ctxOf(t), fmt.Sprintf("UPDATE orders SET item = 'y' WHERE customer_id = %d", k)); sqlstate(err) != pg.CodeSerializationFailure {
		t.Errorf("it was not counted, so it may not go on: %v", err)
	}
	mustExec(t, conn, "ROLLBACK")
	r.drained()
}

// TestIsolated: what a node without a lease does, by database.
func TestIsolated(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	k := r.keyOn("shard_1", 1)
	var notices []string
	cfg, err := pgx.ParseConfig(r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+" "+n.Message) }
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	read, write := fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d", k), fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'x') ON CONFLICT DO NOTHING", k)
	for _, test := range []struct {
		policy      wire.Isolated
		read, write string // SQLSTATE
	}{{wire.IsolatedServe, "", ""}, {wire.IsolatedRefuseWrites, "", pg.CodeCannotConnectNow}, {wire.IsolatedRefuse, pg.CodeCannotConnectNow, pg.CodeCannotConnectNow}} {
		r.live.Isolated = map[string]wire.Isolated{"app": test.policy}
		r.server.Reload(r.live)
		for _, lonely := range []bool{false, true} {
			r.lonely.Store(lonely)
			for sql, want := range map[string]string{read: test.read, write: test.write, "SELECT count(*) FROM notes": ""} {
				if !lonely {
					want = ""
				}
				got := ""
				if _, err := conn.Exec(ctx, sql); err != nil {
					got = sqlstate(err)
				}
				if got != want {
					t.Errorf("%v, without a lease: %v: %s: %q, want %q", test.policy, lonely, sql, got, want)
				}
			}
		}
	}
	r.live.Isolated = map[string]wire.Isolated{"app": wire.IsolatedRefuseWrites}
	r.server.Reload(r.live)
	locks := fmt.Sprintf("SELECT * FROM orders WHERE customer_id = %d FOR UPDATE", k)
	for sql, want := range map[string]string{
		"COPY orders TO STDOUT": "", "COPY (" + read + ") TO STDOUT": "", "COPY (SELECT * FROM orders) TO STDOUT": "", read + "; " + read: "", "BEGIN; " + read + "; COMMIT": "",
		"SET statement_timeout = '1min'; " + read: "", "BEGIN; SET LOCAL work_mem = '5MB'; SELECT count(*) FROM notes; " + read + "; ROLLBACK": "",
		"COPY (" + write + " RETURNING *) TO STDOUT": pg.CodeCannotConnectNow, "COPY (" + locks + ") TO STDOUT": pg.CodeCannotConnectNow, read + "; " + write: pg.CodeCannotConnectNow,
		"BEGIN; " + read + "; " + write + "; COMMIT": pg.CodeCannotConnectNow, "BEGIN; " + locks + "; COMMIT": pg.CodeCannotConnectNow,
		"SET statement_timeout = '1min'; " + write: pg.CodeCannotConnectNow, "COPY orders FROM STDIN": pg.CodeCannotConnectNow,
	} {
		var err error
		switch {
		case strings.HasSuffix(sql, "FROM STDIN"):
			_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader(""), sql)
		case strings.HasPrefix(sql, "COPY"):
			_, err = conn.PgConn().CopyTo(ctx, io.Discard, sql)
		default:
			_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
		}
		got := ""
		if err != nil {
			got = sqlstate(err)
		}
		if got != want {
			t.Errorf("%s: %q, want %q: %v", sql, got, want, err)
		}
	}
	if len(notices) == 0 || !strings.HasPrefix(notices[0], "WARNING this node has lost the cluster") || len(notices) > 2 {
		t.Errorf("told: %q", notices)
	}

	// Who is alone reads what it knows of a frozen range, and does not write.
	r.live.Isolated = nil
	r.server.Reload(r.live)
	r.prepare(k)
	r.freeze()
	r.lonely.Store(true)
	mustExec(t, conn, read)
	if said := r.moves.Say(); !slices.Contains(said.Drained, testMove) {
		t.Errorf("nobody waits for such a read: %+v", said)
	}
}

// TestRekeyIsOnTheRange: an UPDATE of the key counts for the range of the rows' new keys, which it writes to at the end.
func TestRekeyIsOnTheRange(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	k := r.keyOn("shard_1", 1)
	for what, from := range map[string]int64{"on another shard": r.keyOn("shard_2", 1), "on the same": r.keyOn("shard_1", k+1)} {
		for how, value := range map[string]string{"known": fmt.Sprint(k), "of the row": fmt.Sprintf("customer_id + (%d)", k-from)} {
			t.Run(what+" "+how, func(t *testing.T) {
				conn, late := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
				mustExec(t, conn, "DELETE FROM orders", fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'early'), (%d, 2, 'late')", from, from))
				r.prepare(k)
				update := fmt.Sprintf("UPDATE orders SET customer_id = %s WHERE customer_id = %d AND id = ", value, from)
				mustExec(t, conn, "BEGIN", update+"1")
				r.freeze()
				if said := r.moves.Say(); slices.Contains(said.Drained, testMove) {
					t.Error("drained, with a row on its way to the range")
				}
				done := make(chan error, 1)
				go func() {
					_, err := late.Exec(ctx, update+"2")
					done <- err
				}()
				r.waiting(1)
				mustExec(t, conn, "COMMIT")
				r.drained()
				r.abort()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if got := r.itemsOf(0, k); got != "early,late" {
					t.Errorf("at the owner: %q", got)
				}
			})
		}
	}
}

// TestNeverConnected: a transaction that has failed because it got no connection is on no range.
func TestNeverConnected(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, wait: 100 * time.Millisecond})
	k := r.keyOn("shard_1", 1)
	other := r.keyOn("shard_1", k+1)
	holds, failed := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	r.prepare(k)
	mustExec(t, holds, "BEGIN", fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", other))
	mustExec(t, failed, "BEGIN")
	_, err := failed.Exec(ctxOf(t), fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", k))
	wantCode(t, err, pg.CodeTooManyConnections)
	if status := failed.PgConn().TxStatus(); status != 'E' {
		t.Errorf("status %c", status)
	}
	r.freeze()
	r.drained()
	mustExec(t, failed, "ROLLBACK")
}

// TestMoveEndsInFailover: a statement that waits for its shard's next primary goes on when the move that its range was in is over meanwhile, as a failover aborts it.
func TestMoveEndsInFailover(t *testing.T) {
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{failover: patience})
			k := r.keyOn("shard_1", 1)
			conn := r.connect(mode)
			if _, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, 'before')", k, 1); err != nil {
				t.Fatal(err)
			}
			r.prepare(k)
			r.believe("shard_1-primary", rib.Up, rib.Replica, 0)
			pgtest.Eventually(t, patience, func() error {
				if len(r.handle.Load().Slot("shard_1").Candidates().Writes) > 0 {
					return errors.New("it has a primary")
				}
				return nil
			})
			done := make(chan error, 1)
			go func() {
				_, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, 'after')", k, 2)
				done <- err
			}()
			r.waiting(1)
			r.abort()
			r.promoted("shard_1-primary", 1)
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got := r.itemsOf(0, k); got != "before,after" {
				t.Error(got)
			}
		})
	}
}
