package wire_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// thaw lets the range go that is frozen.
func (r *rig) thaw() {
	r.own(func(o *rib.Ownership) { o.Moves[0].Phase, o.Moves[0].Epoch = rib.MovePrepare, o.Epoch })
}

// TestThawedRange: when a range is let go, who has waited goes on at the old owner, and counts when it is frozen again.
func TestThawedRange(t *testing.T) {
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{})
			k := r.keyOn("shard_1", 1)
			inside, waits, later := r.connect(mode), r.connect(mode), r.connect(mode)
			insert := func(conn *pgx.Conn, id int, item string) error {
				_, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, $3)", k, id, item)
				return err
			}
			r.prepare(k)
			mustExec(t, inside, "BEGIN")
			if err := insert(inside, 1, "inside"); err != nil {
				t.Fatal(err)
			}
			r.freeze()
			mustExec(t, waits, "BEGIN")
			done := make(chan error, 1)
			go func() { done <- insert(waits, 2, "waited") }()
			r.waiting(1)
			r.thaw()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := insert(later, 3, "later"); err != nil {
				t.Fatal(err)
			}
			r.freeze()
			mustExec(t, inside, "COMMIT")
			if said := r.moves.Say(); slices.Contains(said.Drained, testMove) {
				t.Error("drained, with a transaction on the range that has begun between two freezes")
			}
			mustExec(t, waits, "COMMIT")
			r.drained()
			go func() { done <- insert(later, 4, "moved") }()
			r.waiting(1)
			r.flip()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := r.itemsOf(0, k) + ";" + r.itemsOf(1, k); got != "inside,waited,later;moved" {
				t.Error(got)
			}
		})
	}
}

// chained are the ways to end a transaction with AND CHAIN.
var chained = []string{"COMMIT AND CHAIN", "ROLLBACK AND CHAIN"}

// TestChainLeavesTheRange: a session that ends each transaction with AND CHAIN leaves a frozen range with the first one, and its next statement there gets 40001.
func TestChainLeavesTheRange(t *testing.T) {
	for name, mode := range allModes {
		for _, chain := range chained {
			t.Run(name+" "+chain, func(t *testing.T) {
				r := newRig(t, rigOptions{})
				ctx, k := ctxOf(t), r.keyOn("shard_1", 1)
				conn := r.connect(mode)
				insert := func(id int) error {
					_, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, $2)", k, id)
					return err
				}
				r.prepare(k)
				mustExec(t, conn, "BEGIN")
				for id := range 3 { // as long as the range is not frozen they go on
					if err := insert(id); err != nil {
						t.Fatal(err)
					}
					mustExec(t, conn, chain)
				}
				if err := insert(3); err != nil {
					t.Fatal(err)
				}
				r.freeze()
				if said := r.moves.Say(); slices.Contains(said.Drained, testMove) {
					t.Error("drained, with a transaction on the range")
				}
				if err := insert(4); err != nil { // it is on the range
					t.Fatal(err)
				}
				mustExec(t, conn, chain)
				r.drained()
				wantCode(t, insert(5), pg.CodeSerializationFailure)
				mustExec(t, conn, "ROLLBACK")
				r.abort()
				if err := insert(6); err != nil {
					t.Fatal(err)
				}
				want := 6
				if chain != chained[0] {
					want = 1
				}
				var n int
				if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", k).Scan(&n); err != nil || n != want {
					t.Errorf("%d rows, want %d: %v", n, want, err)
				}
			})
		}
	}
}

// TestChainWithinARequest: a request that ends a transaction with AND CHAIN, and goes on with the next one, does not begin that on a frozen range: the range is never
// said to be left while something of it runs.
func TestChainWithinARequest(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx, k := ctxOf(t), r.keyOn("shard_1", 1)
	insert := func(id int) string {
		return fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, %d, 'item')", k, id)
	}
	for what, ask := range map[string]func(conn *pgx.Conn, list ...string) error{
		"a text": func(conn *pgx.Conn, list ...string) error {
			text := ""
			for _, sql := range list {
				text += sql + "; "
			}
			_, err := conn.PgConn().Exec(ctx, text).ReadAll()
			return err
		},
		"a batch": func(conn *pgx.Conn, list ...string) error {
			b := &pgx.Batch{}
			for _, sql := range list {
				b.Queue(sql)
			}
			return conn.SendBatch(ctx, b).Close()
		},
	} {
		t.Run(what, func(t *testing.T) {
			conn := r.connect(pgx.QueryExecModeExec)
			mustExec(t, conn, fmt.Sprintf("DELETE FROM orders WHERE customer_id = %d", k))
			r.prepare(k)
			defer r.abort()
			mustExec(t, conn, "BEGIN", insert(1))
			if err := ask(conn, chained[0], insert(2)); err != nil {
				t.Fatal(err)
			}
			r.freeze()
			if said := r.moves.Say(); slices.Contains(said.Drained, testMove) {
				t.Error("drained, with a transaction on the range")
			}
			wantCode(t, ask(conn, insert(3), chained[0], insert(4)), pg.CodeSerializationFailure)
			mustExec(t, conn, "ROLLBACK")
			r.drained()
			r.thaw()
			if err := ask(conn, "BEGIN", insert(5), chained[0]); err != nil {
				t.Fatal(err)
			}
			r.freeze()
			r.drained() // what it has begun by that is on no range
			mustExec(t, conn, "ROLLBACK")
			if got := r.itemsOf(0, k); got != "item,item" {
				t.Errorf("%s on the shard", got)
			}
		})
	}
}

// TestChainedBeforeAMove: a session that was at work when a move became known has nothing of before at work when its transaction has ended with AND CHAIN.
func TestChainedBeforeAMove(t *testing.T) {
	r := newRig(t, rigOptions{})
	k := r.keyOn("shard_1", 1)
	conn := r.connect(pgx.QueryExecModeExec)
	mustExec(t, conn, "BEGIN", fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", k))
	r.prepare(k)
	if said := r.moves.Say(); slices.Contains(said.Aware, testMove) {
		t.Error("a transaction of before is at work")
	}
	mustExec(t, conn, "COMMIT AND CHAIN", fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 2)", k))
	pgtest.Eventually(t, patience, func() error {
		if said := r.moves.Say(); !slices.Contains(said.Aware, testMove) {
			return fmt.Errorf("%+v", said)
		}
		return nil
	})
	r.freeze()
	if said := r.moves.Say(); slices.Contains(said.Drained, testMove) {
		t.Error("drained, with a transaction on the range")
	}
	mustExec(t, conn, "COMMIT")
	r.drained()
}

// TestOldSnapshotHinted: a transaction whose one snapshot of a shard is older than what that shard has got since gets 40001 also for a statement of which nothing but
// the shard is known; one to the shard that had the rows sees what it saw.
func TestOldSnapshotHinted(t *testing.T) {
	const strict, loose = "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN"
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{across: true, poolSize: 40})
			ctx := ctxOf(t)
			k, there := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
			other := r.keyOn("shard_1", k+1)
			mustExec(t, r.connect(mode), fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'one'), (%d, 2, 'two'), (%d, 3, 'there')", k, k, there))
			r.prepare(k)
			type open struct {
				conn              *pgx.Conn
				begin, what, hint string
				set               string
				want              string // the rows, or a SQLSTATE
			}
			var list []open
			for _, begin := range []string{strict, loose} {
				for what, first := range map[string][]int64{"one shard": {there}, "two shards": {there, other}} {
					late := pg.CodeSerializationFailure
					if begin == loose {
						late = "2"
					}
					for _, o := range []open{
						{hint: "/* rangefinder: shard=shard_2 */ ", want: late}, {set: "SET rangefinder.shard = 'shard_2'", want: late},
						{hint: "/* rangefinder: shard=shard_1 */ ", want: "2"},
					} {
						o.conn, o.begin, o.what = r.connect(mode), begin, what
						mustExec(t, o.conn, begin)
						for _, key := range first {
							if _, err := o.conn.Exec(ctx, "SELECT * FROM orders WHERE customer_id = $1", key); err != nil {
								t.Fatal(err)
							}
						}
						if o.set != "" {
							mustExec(t, o.conn, o.set)
						}
						list = append(list, o)
					}
				}
			}
			r.moved(k)
			r.freeze()
			r.drained()
			r.flip()
			for _, o := range list {
				var n int
				err := o.conn.QueryRow(context.Background(), o.hint+"SELECT count(*) FROM orders WHERE id IN (1, 2)").Scan(&n)
				got := fmt.Sprint(n)
				if err != nil {
					got = sqlstate(err)
				}
				if got != o.want {
					t.Errorf("%s, %s, %s%s: %s (%v), want %s", o.begin, o.what, o.hint, o.set, got, err, o.want)
				}
				mustExec(t, o.conn, "ROLLBACK")
			}
		})
	}
}
