package move

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
			pgtest.Eventually(t, 10*time.Second, func() error {
				if n := tracker.open(); n < min(limit, 1000) {
					return fmt.Errorf("%d rows have come", n)
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
