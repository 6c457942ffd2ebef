package move

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/rib"
)

var errAway = errors.New("the server is away")

// TestThaw: a range that cannot be handed over in the time that statements may wait is let go, its copy kept, and it is frozen again later, each time later. What
// cannot come to a good end ends the move.
func TestThaw(t *testing.T) {
	since := func(d time.Duration, names ...string) func(name string, at time.Duration) error { // some calls fail for so long
		return func(name string, at time.Duration) error {
			if at < d && strings.Contains(strings.Join(names, " "), name) {
				return errAway
			}
			return nil
		}
	}
	thawed := func(n int) (list []string) {
		for range n {
			list = append(list, "thawed: the range was frozen for 4s")
		}
		return list
	}
	seconds := func(list ...int) (at []time.Duration) {
		for _, s := range list {
			at = append(at, time.Duration(s)*time.Second)
		}
		return at
	}
	for name, c := range map[string]struct {
		fails  func(name string, at time.Duration) error // at: since the first freeze
		told   []string
		frozen []time.Duration // when, since the first time
		calls  string          // some of them, in their order
	}{
		"back within the freeze":         {since(3*time.Second, "Fence"), []string{"flipped"}, seconds(0), "Follow Fence Fence Complete Detach"},
		"the source is away":             {since(7*time.Second, "Fence", "Thaw", "Follow"), append(thawed(1), "flipped"), seconds(0, 9), "Fence Thaw Thaw Follow Fence Complete Detach"},
		"the target is away":             {since(7*time.Second, "Complete", "Follow"), append(thawed(1), "flipped"), seconds(0, 9), "Fence Complete Thaw Thaw Follow Fence Complete Detach"},
		"for long":                       {since(40*time.Second, "Complete"), append(thawed(3), "flipped"), seconds(0, 9, 23, 47), "Complete Thaw Thaw Follow Fence Complete Thaw Thaw Follow Fence Complete Detach"},
		"for longer than a copy is kept": {since(time.Hour, "Fence", "Thaw"), append(thawed(1), "aborted: the server is away"), seconds(0), "Fence Thaw Thaw Unfence Clean"},
		"never in time": {since(time.Hour, "Complete"), append(thawed(5), "aborted: the range was frozen 6 times, and could not be handed over in time. The last time: the range was frozen for 4s"),
			seconds(0, 9, 23, 47, 91, 175), "Thaw Thaw Follow Fence Complete Unfence Clean"},
		"the target may have others' rows": {func(name string, _ time.Duration) error {
			return map[string]error{"Complete": errAway, "Thaw": ErrFilled}[name]
		}, []string{"aborted: the range was frozen for 4s"}, seconds(0), "Complete Thaw Unfence Clean"},
		"that is found out later": {func(name string, at time.Duration) error {
			if name == "Thaw" && at > 5*time.Second {
				return ErrFilled
			}
			return map[string]error{"Complete": errAway, "Thaw": errAway}[name]
		}, append(thawed(1), "aborted: "+ErrFilled.Error()), seconds(0), "Complete Thaw Thaw Unfence Clean"},
		"the rows differ": {func(name string, _ time.Duration) error { return map[string]error{"Complete": ErrDiffers}[name] }, []string{"aborted: " + ErrDiffers.Error()}, seconds(0), "Complete Unfence Clean"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
				id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
				if err := b.NoteMove(t.Context(), id, note{Step: stepFollow, Touched: true}.encode()); err != nil {
					t.Fatal(err)
				}
				var first time.Time
				var frozen []time.Duration
				b.refuse = func(what string) error {
					if what == "advance frozen" {
						if first.IsZero() {
							first = time.Now()
						}
						frozen = append(frozen, time.Since(first))
					}
					return nil
				}
				servers := &scripted{fails: func(name string) error {
					if first.IsZero() {
						return nil
					}
					return c.fails(name, time.Since(first))
				}}
				m := New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ledger: b, Leases: everybody{}, Servers: servers, Owners: b.owners, Leads: b.leads})
				m.Open()
				defer m.Close()
				most, named := 0, false
				for len(b.owners().Moves) > 0 {
					if err := sleep(t.Context(), 50*time.Millisecond); err != nil {
						t.Fatal(err)
					}
					for _, p := range m.Status() {
						most = max(most, p.Thawed)
						named = named || strings.Contains(p.Problem, "could not be handed over in time: the range was frozen for 4s") && strings.Contains(p.Problem, "It is frozen again in ")
					}
				}
				told := b.became()
				for i, got := range told {
					if i >= len(c.told) || !strings.HasPrefix(got, c.told[i]) || len(told) != len(c.told) {
						t.Fatalf("%q, want %q", told, c.told)
					}
				}
				for i, at := range frozen {
					if len(frozen) != len(c.frozen) || at < c.frozen[i] || at > c.frozen[i]+time.Duration(2*i+1)*500*time.Millisecond {
						t.Fatalf("frozen at %v, want %v", frozen, c.frozen)
					}
				}
				if most != strings.Count(strings.Join(c.told, " "), "thawed") {
					t.Errorf("the status tells of %d freezes in vain", most)
				}
				if goesOn := len(c.told) > 1 && c.told[1] != "aborted: the server is away" && c.told[1] != "aborted: "+ErrFilled.Error(); named != goesOn {
					t.Errorf("the status tells what was in the way, and when the range is frozen again: %v", named)
				}
				calls := servers.done()
				if strings.Contains(calls, "Copy") {
					t.Errorf("copied again: %s", calls)
				}
				rest := calls
				for _, want := range strings.Fields(c.calls) {
					var found bool
					if _, rest, found = strings.Cut(rest, want); !found {
						t.Fatalf("%s, want among them %s", calls, c.calls)
					}
				}
			})
		})
	}
}

// TestThawedLeader: whatever a leader has left of a freeze that came to nothing, the next one opens the fence before it follows, and waits before it freezes again.
func TestThawedLeader(t *testing.T) {
	for _, at := range []step{stepThaw, stepFence} {
		t.Run(string(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, servers := scene(t, rib.MovePrepare, note{Step: at, Touched: true, Thawed: 2, Problem: "before"}.encode(), nil)
				if got := servers.done(); !strings.HasPrefix(got, "Thaw Follow ") || strings.Count(got, "Thaw") != 1 || strings.Count(got, "Follow") < 20 || !strings.HasSuffix(got, "Fence Complete Detach Delete RemoveFence") {
					t.Errorf("%s", got)
				}
				if len(b.owners().Moves) != 0 {
					t.Errorf("%+v", b.owners().Moves)
				}
			})
		})
	}
}

// TestThawUnheard: a leader does not hear whether the range is let go. Whatever is so, the fence is open before it follows, and the freeze counts once.
func TestThawUnheard(t *testing.T) {
	for _, done := range []bool{true, false} {
		t.Run(fmt.Sprint(done), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
				id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
				if err := b.NoteMove(t.Context(), id, note{Step: stepFollow, Touched: true}.encode()); err != nil {
					t.Fatal(err)
				}
				began, unheard := time.Now(), 0
				ledger := &deaf{book: b, thaw: func(thaw func() error) error {
					if unheard++; unheard > 1 {
						return thaw()
					}
					if done {
						if err := thaw(); err != nil {
							t.Error(err)
						}
					}
					return errors.New("nobody answers")
				}}
				servers := &scripted{fails: func(name string) error {
					if name == "Complete" && time.Since(began) < 10*time.Second {
						return errAway
					}
					return nil
				}}
				m := New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ledger: ledger, Leases: everybody{}, Servers: servers, Owners: b.owners, Leads: b.leads})
				m.Open()
				defer m.Close()
				most := 0
				for len(b.owners().Moves) > 0 {
					if err := sleep(t.Context(), 50*time.Millisecond); err != nil {
						t.Fatal(err)
					}
					for _, p := range m.Status() {
						most = max(most, p.Thawed)
					}
				}
				calls := servers.done()
				if told := strings.Join(b.became(), " "); !strings.HasSuffix(told, " flipped") || !strings.HasPrefix(told, "thawed: ") || strings.Count(told, "thawed") != 1 || most != 1 {
					t.Errorf("%s; %d freezes in vain", told, most)
				}
				if _, after, _ := strings.Cut(calls, "Complete"); !strings.Contains(calls, "Thaw Follow") || strings.Contains(after, "Complete Follow") {
					t.Errorf("%s", calls)
				}
			})
		})
	}
}

// deaf is a book of which a mover does not hear all.
type deaf struct {
	*book
	thaw func(thaw func() error) error
}

// ThawMove is the book's, if that is told.
func (d *deaf) ThawMove(ctx context.Context, id uint64, reason string, note []byte) error {
	return d.thaw(func() error { return d.book.ThawMove(ctx, id, reason, note) })
}
