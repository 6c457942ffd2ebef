package move

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// load is clients that write to customers of the moving range, each statement to the shard that they last heard to be the owner. They know
// of nothing but what the shards say: RF001 means the other one.
type load struct {
	r         *rig
	customers []int64
	stop      context.CancelFunc
	done      sync.WaitGroup

	// atomic
	owner   atomic.Pointer[string]
	refused atomic.Int64
	failed  atomic.Int64

	// guarded by mu
	mu      sync.Mutex
	wrote   map[string]bool // notes of acknowledged orders
	maybe   map[string]bool // the same, of which nobody knows
	longest time.Duration
}

func (r *rig) load(clients int, where string) *load {
	r.t.Helper()
	l := &load{r: r, wrote: map[string]bool{}, maybe: map[string]bool{}}
	conn, err := r.at(*r.book.owner.Load()).primary.Conn(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(r.t.Context())
	rows, err := conn.Query(r.t.Context(), "SELECT DISTINCT customer_id FROM orders WHERE "+where)
	if err == nil {
		l.customers, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if err != nil || len(l.customers) == 0 {
		r.t.Fatal("no customers in the range: ", err)
	}
	l.owner.Store(r.book.owner.Load())
	ctx, stop := context.WithCancel(r.t.Context())
	l.stop = stop
	for n := range clients {
		l.done.Go(func() { l.client(ctx, n) })
	}
	r.t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// client writes orders, changes and removes lines, in all isolation levels, until ctx ends.
func (l *load) client(ctx context.Context, n int) {
	var conn *pgx.Conn
	var at string
	defer func() { hangUp(conn) }()
	for i := 0; ctx.Err() == nil; i++ {
		note, began := fmt.Sprintf("client %d order %d", n, i), time.Now()
		for ctx.Err() == nil {
			owner := *l.owner.Load()
			if conn == nil || conn.IsClosed() || at != owner {
				hangUp(conn)
				var err error
				if conn, err = l.r.primary(ctx, owner, ""); err != nil {
					conn = nil
					_ = sleep(ctx, 5*time.Millisecond)
					continue
				}
				at = owner
			}
			committing, err := l.write(ctx, conn, l.customers[rand.IntN(len(l.customers))], note, i)
			if err == nil {
				l.took(note, time.Since(began))
				_ = sleep(ctx, 5*time.Millisecond)
				break
			}
			var pe *pgconn.PgError
			switch {
			case errors.As(err, &pe) && (pe.Code == "RF001" || pe.Code == "40001" || pe.Code == "40P01"):
				l.refused.Add(1)
				if conn.PgConn().TxStatus() != 'I' {
					_, _ = conn.Exec(ctx, "ROLLBACK")
				}
				l.owner.Store(l.r.book.owner.Load())
				_ = sleep(ctx, time.Millisecond)
			case committing:
				l.mu.Lock()
				l.maybe[note] = true
				l.mu.Unlock()
				hangUp(conn)
				conn = nil
				note += " again"
			default:
				if ctx.Err() == nil {
					l.failed.Add(1)
				}
				hangUp(conn)
				conn = nil
			}
		}
	}
}

func (l *load) took(note string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrote[note], l.longest = true, max(l.longest, d)
}

func (l *load) write(ctx context.Context, conn *pgx.Conn, customer int64, note string, i int) (committing bool, err error) {
	level := []string{"READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}[i%4]
	if err := script(ctx, conn, "BEGIN ISOLATION LEVEL "+level); err != nil {
		return false, err
	}
	var id int64
	if err := conn.QueryRow(ctx, "INSERT INTO orders (customer_id, note, amount) VALUES ($1, $2, 1) RETURNING id", customer, note).Scan(&id); err != nil {
		return false, err
	}
	if _, err := conn.Exec(ctx, `INSERT INTO "Order Lines" VALUES ($1, $2, 1, 'a', 0.1), ($1, $2, 2, 'b', 'NaN')`, customer, id); err != nil {
		return false, err
	}
	if _, err := conn.Exec(ctx, "UPDATE orders SET amount = amount + 1 WHERE (customer_id, id) IN (SELECT customer_id, id FROM orders WHERE customer_id = $1 LIMIT 5)", customer); err != nil {
		return false, err
	}
	if _, err := conn.Exec(ctx, `DELETE FROM "Order Lines" WHERE customer_id = $1 AND order_id = $2 AND line = 2`, customer, id); err != nil {
		return false, err
	}
	_, err = conn.Exec(ctx, "COMMIT")
	return true, err
}

// check holds what was acknowledged against what is on the two shards.
func (l *load) check() {
	t := l.r.t
	t.Helper()
	owner := *l.r.book.owner.Load()
	found := map[string]int{}
	for name := range l.r.shards {
		conn, err := l.r.at(name).primary.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "SELECT o.note, (SELECT count(*) FROM \"Order Lines\" AS l WHERE l.customer_id = o.customer_id AND l.order_id = o.id) FROM orders AS o WHERE note LIKE 'client %'")
		if err != nil {
			t.Fatal(err)
		}
		var note string
		var lines int
		if _, err := pgx.ForEachRow(rows, []any{&note, &lines}, func() error {
			found[note]++
			if name != owner {
				t.Errorf("%q is on %s", note, name)
			}
			if lines != 1 {
				t.Errorf("%q has %d lines", note, lines)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		conn.Close(t.Context())
	}
	lost := 0
	for note := range l.wrote {
		if found[note] == 0 {
			lost++
		}
	}
	for note, n := range found {
		if n > 1 || !l.wrote[note] && !l.maybe[note] {
			t.Errorf("%q is there %d times, acknowledged: %v", note, n, l.wrote[note])
		}
	}
	if lost > 0 || len(l.wrote) == 0 {
		t.Errorf("%d of %d acknowledged orders are lost", lost, len(l.wrote))
	}
	t.Logf("%d orders, %d refusals, %d unknown, longest %s", len(l.wrote), l.refused.Load(), len(l.maybe), l.longest)
}

// busy waits until the clients have written some more.
func (l *load) busy() {
	l.r.t.Helper()
	l.mu.Lock()
	from := len(l.wrote)
	l.mu.Unlock()
	pgtest.Eventually(l.r.t, time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.wrote) < from+50 {
			return fmt.Errorf("only %d orders were written", len(l.wrote)-from)
		}
		return nil
	})
}

func TestMoveUnderLoad(t *testing.T) {
	r := newRig(t, true)
	r.fill(3000)
	low, high := r.quarter()
	l := r.load(4, r.where(low, high))
	l.busy()
	m := r.mover(nil)
	id := r.book.start(low, high, "shard_1", "shard_2")
	r.over(id, m)
	l.busy()
	l.end()
	if got := fmt.Sprint(r.book.became()); got != "[flipped]" {
		t.Fatal(got)
	}
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d statements failed", n)
	}
	l.check()
	r.clean()
}
