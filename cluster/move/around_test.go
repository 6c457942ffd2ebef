package move

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/rib"
)

// moment is in the middle of what is called on the servers, or of the command that thaws ("ledger"), for the how manieth time.
type moment struct {
	call string
	nth  int
}

func (m moment) String() string { return fmt.Sprint(m.call, " ", m.nth) }

// aroundThaw are the moments around a freeze that comes to nothing.
func aroundThaw() []moment {
	return []moment{{"Follow", 1}, {"Fence", 1}, {"Complete", 1}, {"Thaw", 1}, {"ledger", 1}, {"Thaw", 2}, {"Follow", 2}, {"Fence", 2}, {"Complete", 2}}
}

// frozenInVain carries out a move whose first freeze comes to nothing, and does something at a moment of that, which is what the call answers. It returns what became of the move, and what was called.
func frozenInVain(t *testing.T, at moment, do func(b *book, m *Mover, id uint64) error) (told []string, calls string) {
	t.Helper()
	b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
	id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
	if err := b.NoteMove(t.Context(), id, note{Step: stepFollow, Touched: true}.encode()); err != nil {
		t.Fatal(err)
	}
	var m *Mover
	seen, thawed, reached := map[string]int{}, false, false
	comes := func(name string) error {
		if seen[name]++; name == at.call && seen[name] == at.nth {
			reached = true
			return do(b, m, id)
		}
		return nil
	}
	servers := &scripted{}
	servers.fails = func(name string) error {
		if err := comes(name); err != nil {
			return err
		}
		if name == "Complete" && !thawed {
			return errLate
		}
		return nil
	}
	ledger := &deaf{book: b, thaw: func(thaw func() error) error {
		_ = comes("ledger")
		err := thaw()
		thawed = thawed || err == nil
		return err
	}}
	m = New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ledger: ledger, Leases: everybody{}, Servers: servers, Owners: b.owners, Leads: b.leads})
	m.Open()
	defer m.Close()
	for range 1200 { // a minute
		if len(b.owners().Moves) == 0 {
			break
		}
		if err := sleep(t.Context(), 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.owners().Moves); n > 0 || !reached {
		t.Errorf("%d moves are left; the moment has come: %v", n, reached)
	}
	return b.became(), servers.done()
}

// TestAbortAroundAThaw: whenever a move is aborted while its range is frozen, let go or frozen again, the source takes writes again, all is removed, and nothing of the move is
// begun any more.
func TestAbortAroundAThaw(t *testing.T) {
	for _, at := range aroundThaw() {
		t.Run(at.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told, calls := frozenInVain(t, at, func(_ *book, m *Mover, id uint64) error {
					if err := m.Abort(context.Background(), id, "by hand"); err != nil {
						t.Error(err)
					}
					return context.Canceled // as of a call that is given up
				})
				if told[len(told)-1] != "aborted: by hand" || strings.Count(strings.Join(told, " "), "aborted") != 1 {
					t.Errorf("%q", told)
				}
				if !strings.HasSuffix(calls, "Unfence Clean") || at.call != "ledger" && !strings.HasSuffix(calls, at.call+" Unfence Clean") {
					t.Errorf("%s", calls)
				}
			})
		})
	}
}

// TestAnotherLeaderAroundAThaw: whichever moment of that a leader is deposed at, the next one carries the move to its end, and never follows with a fence that may be shut.
func TestAnotherLeaderAroundAThaw(t *testing.T) {
	for _, at := range aroundThaw() {
		t.Run(at.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told, calls := frozenInVain(t, at, func(b *book, _ *Mover, _ uint64) error {
					b.mu.Lock()
					b.leader = 2
					b.mu.Unlock()
					return sleep(context.Background(), time.Second) // until it knows
				})
				if told[len(told)-1] != "flipped" || strings.Count(strings.Join(told, " "), "thawed") != 1 || len(told) != 2 {
					t.Errorf("%q: %s", told, calls)
				}
				for _, wrong := range []string{"Fence Follow", "Complete Follow", "Copy", "Unfence", "Clean"} {
					if strings.Contains(calls, wrong) {
						t.Errorf("%q in %s", wrong, calls)
					}
				}
				if !strings.HasSuffix(calls, "Fence Complete Detach Delete RemoveFence") {
					t.Errorf("%s", calls)
				}
			})
		})
	}
}
