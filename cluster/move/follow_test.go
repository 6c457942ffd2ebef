package move

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestFollowTellsWhatIsLeft: what has changed while rows were compared counts as not compared.
func TestFollowTellsWhatIsLeft(t *testing.T) {
	for name, limit := range map[string]int{"there is room": maxChanged, "there is none": 100} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			r.fill(200)
			low, high := r.quarter()
			p := NewPostgres(r.config)
			t.Cleanup(p.Close)
			j := &Job{Move: rib.Move{ID: 7, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MovePrepare}, Keyspace: r.ks, Term: 1}
			var err error
			if j.Identity, err = p.Copy(t.Context(), j, func(Copied) {}); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Follow(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			source := r.at("shard_1").primary
			if err := source.Exec(t.Context(), "UPDATE orders SET note = 'x' WHERE "+r.where(low, high)); err != nil {
				t.Fatal(err)
			}
			locker, err := r.primary(t.Context(), "shard_1", "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { hangUp(locker) })
			if err := script(t.Context(), locker, "BEGIN", "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"); err != nil {
				t.Fatal(err)
			}
			tracker := p.links[7].tracker
			tracker.mu.Lock()
			tracker.limit = limit
			tracker.mu.Unlock()
			type answer struct {
				lag Lag
				err error
			}
			told := make(chan answer, 1)
			go func() {
				lag, err := p.Follow(t.Context(), j)
				told <- answer{lag, err}
			}()
			pgtest.Eventually(t, 10*time.Second, func() error {
				if n := r.query("shard_1", "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'rangefinder move 7'"); n != "1" {
					return errors.New("it does not compare yet")
				}
				return nil
			})
			if err := source.Exec(t.Context(), "INSERT INTO nothing SELECT c, 1 FROM generate_series(1, 20000) AS c WHERE "+strings.ReplaceAll(r.where(low, high), "customer_id", "c")); err != nil {
				t.Fatal(err)
			}
			inserted, err := strconv.Atoi(r.query("shard_1", "SELECT count(*)::text FROM nothing"))
			if err != nil || inserted < 1000 {
				t.Fatalf("%d rows, %v", inserted, err)
			}
			come := func() (n int) { // of them: what comes while Follow ends it cannot tell of
				tracker.mu.Lock()
				defer tracker.mu.Unlock()
				for table, rows := range tracker.changed {
					if strings.Contains(table, "nothing") {
						n += len(rows)
					}
				}
				return n
			}
			pgtest.Eventually(t, 10*time.Second, func() error {
				if n := come(); n < inserted && tracker.open() < limit {
					return fmt.Errorf("%d of %d rows have come", n, inserted)
				}
				return nil
			})
			if err := script(t.Context(), locker, "COMMIT"); err != nil {
				t.Fatal(err)
			}
			got := <-told
			if got.err != nil {
				t.Fatal(got.err)
			}
			if left := tracker.open(); left > got.lag.Unverified {
				t.Errorf("%d rows are left to compare, and Follow tells of %d", left, got.lag.Unverified)
			}
			j.Move.Phase = rib.MoveAborted
			if err := p.Clean(t.Context(), j, func(Copied) {}); err != nil {
				t.Fatal(err)
			}
			r.clean()
		})
	}
}

// holding are leases of which a node has a transaction on a frozen range until that is over.
type holding struct {
	everybody
	over atomic.Bool
}

func (h *holding) Undrained(uint64) []string {
	if h.over.Load() {
		return nil
	}
	return []string{"fra-1"}
}

// TestOpenTransactionIsWaitedFor: a transaction that has read one of the keyspace's tables and stays open keeps the range from being frozen until it has ended,
// and does not cost the copy. One on other tables does not.
func TestOpenTransactionIsWaitedFor(t *testing.T) {
	r := newRig(t, false)
	r.fill(200)
	low, high := r.quarter()
	if err := r.at("shard_1").primary.Exec(t.Context(), "CREATE TABLE elsewhere (x int)"); err != nil {
		t.Fatal(err)
	}
	begin := func(sql string) *pgx.Conn {
		t.Helper()
		conn, err := r.primary(t.Context(), "shard_1", "")
		if err == nil {
			t.Cleanup(func() { hangUp(conn) })
			err = script(t.Context(), conn, "BEGIN", sql)
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	begin("SELECT FROM elsewhere")
	open := begin(`SELECT count(*) FROM "Order Lines"`)
	// The copy of so few rows may be done in less time than a transaction takes to become one that is waited for.
	pgtest.Eventually(t, time.Minute, func() error {
		if old := r.query("shard_1", fmt.Sprintf("SELECT (clock_timestamp() - xact_start > interval '500ms')::text FROM pg_stat_activity WHERE pid = %d", open.PgConn().PID())); old != "true" {
			return errors.New("the transaction is young")
		}
		return nil
	})
	leases := &holding{}
	m := r.mover(func(c *Config) { c.Leases, c.Freeze = leases, time.Second })
	id := r.book.start(low, high, "shard_1", "shard_2")
	want := fmt.Sprintf("(process %d), and waits for its client", open.PgConn().PID())
	began := time.Now()
	pgtest.Eventually(t, time.Minute, func() error {
		list := m.Status()
		if len(list) != 1 || !strings.Contains(list[0].Problem, want) || list[0].Phase != rib.MovePrepare || time.Since(began) < 3*time.Second {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	leases.over.Store(true)
	if err := script(t.Context(), open, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	r.over(id, m)
	if got := fmt.Sprint(r.book.became()); got != "[flipped]" {
		t.Error(got)
	}
	r.clean()
}
