package move

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/rib"
)

// scripted are servers on which every call works at once, and is written down.
type scripted struct {
	// guarded by mu
	mu    sync.Mutex
	calls []string

	fails  func(name string) error                   // nil: nothing does
	lag    func() Lag                                // nil: there never is one
	atWork func(ctx context.Context) ([]Work, error) // nil: nothing ever is
}

func (s *scripted) called(name string) error {
	s.mu.Lock()
	s.calls = append(s.calls, name)
	s.mu.Unlock()
	if s.fails != nil {
		return s.fails(name)
	}
	return nil
}

func (s *scripted) done() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, " ")
}

func (s *scripted) Check(context.Context, *Job) ([]Obstacle, error) { return nil, s.called("Check") }
func (s *scripted) Copy(context.Context, *Job, func(Copied)) (Identity, error) {
	return Identity{Source: Server{SystemID: 1}}, s.called("Copy")
}
func (s *scripted) Follow(context.Context, *Job) (lag Lag, err error) {
	if s.lag != nil {
		lag = s.lag()
	}
	return lag, s.called("Follow")
}
func (s *scripted) Behind(context.Context, *Job) (string, error)     { return "", nil }
func (s *scripted) Fence(context.Context, *Job) error                { return s.called("Fence") }
func (s *scripted) Complete(context.Context, *Job) error             { return s.called("Complete") }
func (s *scripted) Thaw(context.Context, *Job) error                 { return s.called("Thaw") }
func (s *scripted) Unfence(context.Context, *Job) error              { return s.called("Unfence") }
func (s *scripted) Clean(context.Context, *Job, func(Copied)) error  { return s.called("Clean") }
func (s *scripted) Detach(context.Context, *Job) error               { return s.called("Detach") }
func (s *scripted) Delete(context.Context, *Job, func(Copied)) error { return s.called("Delete") }
func (s *scripted) AtWork(ctx context.Context, _ *Job) (works []Work, err error) {
	if s.atWork != nil {
		works, err = s.atWork(ctx)
	}
	return works, err
}
func (s *scripted) RemoveFence(context.Context, *Job) error { return s.called("RemoveFence") }

// scene is a mover over scripted servers and a book, with one move as another leader has left it. It runs in a bubble of synctest.
func scene(t *testing.T, phase rib.MovePhase, noted []byte, with func(*Config)) (*book, *scripted) {
	t.Helper()
	b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
	id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
	if err := b.move("scene", id, func(_ *rib.Ownership, m *rib.Move) error {
		m.Phase, m.Note = phase, noted
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	servers := &scripted{}
	cfg := Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ledger: b, Leases: everybody{}, Servers: servers, Owners: b.owners, Leads: b.leads}
	if with != nil {
		with(&cfg)
	}
	m := New(cfg)
	m.Open()
	if err := sleep(t.Context(), time.Minute); err != nil { // of virtual time
		t.Fatal(err)
	}
	m.Close()
	return b, servers
}

// TestFlippedFromAnyStep: whatever step the note of a move that has flipped tells of, all that is left is removed. A recovery makes such
// moves, with a note of an earlier phase or none.
func TestFlippedFromAnyStep(t *testing.T) {
	for _, c := range []struct {
		at   step
		want string
	}{
		{stepCheck, "Detach Delete RemoveFence"}, {stepCopy, "Detach Delete RemoveFence"}, {stepFollow, "Detach Delete RemoveFence"}, {stepFence, "Detach Delete RemoveFence"},
		{stepClean, "Detach Delete RemoveFence"}, {"of another version", "Detach Delete RemoveFence"},
		{stepDetach, "Detach Delete RemoveFence"}, {stepDelete, "Delete RemoveFence"}, {stepWait, "RemoveFence"},
	} {
		t.Run(string(c.at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, servers := scene(t, rib.MoveFlipped, note{Step: c.at}.encode(), nil)
				if got := servers.done(); got != c.want || len(b.owners().Moves) != 0 {
					t.Fatalf("%s; %d moves are left", got, len(b.owners().Moves))
				}
			})
		})
	}
}

// TestFenceOutlastsWhatIsOnItsWay: the fence goes when what had been sent before the last node knew has had the time to come, and has ended. The time counts
// anew when the source has stood still.
func TestFenceOutlastsWhatIsOnItsWay(t *testing.T) {
	for name, c := range map[string]struct {
		late     time.Duration // 0: the default
		first    time.Duration // the source does not answer the first look for so long
		still    time.Duration // the source does not answer for so long, 5 s after the first look
		busy     time.Duration // something runs for so long
		back     time.Duration // the source's clock is set back by so much 5 s after the first look
		later    bool          // something new runs at each look
		far      time.Duration // each look takes so long
		from, to time.Duration // when the fence goes
	}{
		"nothing runs":              {from: 10 * time.Second, to: 11 * time.Second},
		"the time is another one":   {late: time.Second, from: time.Second, to: 2 * time.Second},
		"a statement runs":          {busy: 30 * time.Second, from: 30 * time.Second, to: 31 * time.Second},
		"the clock is set back":     {busy: 30 * time.Second, back: time.Hour, from: 30 * time.Second, to: 31 * time.Second},
		"others come":               {later: true, from: 10 * time.Second, to: 13 * time.Second},
		"and the clock is set back": {busy: 30 * time.Second, later: true, back: time.Hour, from: 30 * time.Second, to: 33 * time.Second},
		"the source stands still":   {still: 8 * time.Second, from: 23 * time.Second, to: 24 * time.Second},
		"it stands still at first":  {first: 12 * time.Second, from: 22 * time.Second, to: 24 * time.Second},
		"it never answers at first": {first: time.Hour, from: 40 * time.Second, to: 43 * time.Second},
		"the source is far away":    {late: time.Second, far: 600 * time.Millisecond, from: time.Second, to: 5 * time.Second},
		"it is slow, and no longer": {still: 2 * time.Second, from: 10 * time.Second, to: 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
				id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
				if err := b.move("scene", id, func(_ *rib.Ownership, m *rib.Move) error {
					m.Phase, m.Note = rib.MoveFlipped, note{Step: stepWait}.encode()
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				servers := &scripted{}
				stood := false
				asked := false
				since := began.String() // as the source had written it
				servers.atWork = func(ctx context.Context) (works []Work, err error) {
					if !asked {
						asked = true
						if err := sleep(ctx, c.first); err != nil {
							return nil, err
						}
					}
					_ = sleep(context.Background(), c.far)
					if c.still > 0 && !stood && time.Since(began) >= 5*time.Second {
						stood = true
						_ = sleep(context.Background(), c.still) // of virtual time
					}
					if time.Since(began) < c.busy {
						works = append(works, Work{Backend: "1", Statement: since})
					}
					if now := time.Now(); c.later {
						if now.Sub(began) >= 5*time.Second {
							now = now.Add(-c.back)
						}
						works = append(works, Work{Backend: "2", Statement: now.String()})
					}
					return works, nil
				}
				m := New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ledger: b, Leases: everybody{}, Servers: servers, Owners: b.owners, Leads: b.leads, Late: c.late})
				m.Open()
				defer m.Close()
				for len(b.owners().Moves) > 0 {
					if err := sleep(t.Context(), 50*time.Millisecond); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(began); took < c.from || took > c.to {
					t.Errorf("the fence went after %s, want %s to %s", took, c.from, c.to)
				}
			})
		})
	}
}

// TestAbortWithoutTheSource: while the source is away the target is cleaned up, and the move is not over before the source is.
func TestAbortWithoutTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("the source is away")
		servers := &scripted{fails: func(name string) error {
			if name == "Unfence" {
				return away
			}
			return nil
		}}
		b, _ := scene(t, rib.MoveAborted, note{Step: stepFollow, Touched: true}.encode(), func(c *Config) { c.Servers = servers })
		if got := servers.done(); !strings.HasPrefix(got, "Unfence Clean Unfence Clean") || len(b.owners().Moves) != 1 {
			t.Errorf("%s, %d moves", got, len(b.owners().Moves))
		}
	})
}

// TestPausedMoveFollows: a paused move goes on to follow, under a new leader too: else its slot holds back the source's log for as long as it
// is paused. It is not frozen.
func TestPausedMoveFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, servers := scene(t, rib.MovePrepare, note{Step: stepFollow, Touched: true, Paused: true}.encode(), nil)
		if got := servers.done(); !strings.HasPrefix(got, "Follow Follow") || strings.Contains(got, "Fence") || b.owners().Moves[0].Phase != rib.MovePrepare {
			t.Fatalf("%q, %s", got, b.owners().Moves[0].Phase)
		}
	})
}

// TestPausedAtOnce: whoever pauses a move that this node has just taken up does not take its step from it.
func TestPausedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
		id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
		was := note{Step: stepFollow, Touched: true, Identity: Identity{Source: Server{SystemID: 1}}}
		if err := b.NoteMove(t.Context(), id, was.encode()); err != nil {
			t.Fatal(err)
		}
		m := New(Config{Ledger: b, Leases: everybody{}, Servers: &scripted{}, Owners: b.owners, Leads: b.leads})
		defer m.Close()
		w := newWorker(m, b.owners().Move(id), 1)
		defer w.cancel()
		if err := w.change(t.Context(), func(n *note) { n.Paused = true }); err != nil {
			t.Fatal(err)
		}
		was.Paused = true
		if got := decodeNote(b.owners().Move(id).Note); got != was {
			t.Fatalf("%+v", got)
		}
	})
}

// unaware are leases of which some node does not know a move for a while.
type unaware struct {
	everybody
	until time.Time
}

func (u *unaware) Unaware(uint64) []string {
	if time.Now().Before(u.until) {
		return []string{"fra-1"}
	}
	return nil
}

// TestNobodyMeetsCopies: no row is copied before every node knows of the move, whoever began it.
func TestNobodyMeetsCopies(t *testing.T) {
	for _, at := range []step{stepCheck, stepCopy} {
		t.Run(string(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leases := &unaware{until: time.Now().Add(2 * time.Minute)}
				_, servers := scene(t, rib.MovePrepare, note{Step: at}.encode(), func(c *Config) { c.Leases = leases })
				if got := servers.done(); strings.Contains(got, "Copy") {
					t.Errorf("copied while a node does not know: %s", got)
				}
				leases.until = time.Time{}
				b, servers := scene(t, rib.MovePrepare, note{Step: at}.encode(), func(c *Config) { c.Leases = leases })
				if got := servers.done(); !strings.Contains(got, "Copy") || len(b.owners().Moves) != 0 {
					t.Errorf("when all know: %s", got)
				}
			})
		})
	}
}

// undrained are leases of which a node has something at work on a frozen range for a while.
type undrained struct {
	everybody
	until time.Time
}

func (u *undrained) Undrained(uint64) []string {
	if time.Now().Before(u.until) {
		return []string{"fra-1"}
	}
	return nil
}

// TestNoFreezeInVain: while a transaction is open that would outlast a freeze nothing is frozen, and the status says whose it is. Not for ever, for it may be on
// another range. A pause is no part of that time.
func TestNoFreezeInVain(t *testing.T) {
	for name, c := range map[string]struct {
		open, paused time.Duration // from the beginning
		age          time.Duration // of the transaction, when the move begins
		frozen       time.Duration // when the range is, from the beginning
		told         string        // what becomes of the move
	}{
		"no transaction":        {frozen: 0, told: "flipped"},
		"a short one":           {open: time.Second, frozen: 0, told: "flipped"},
		"one of a minute":       {open: time.Minute, age: time.Hour, frozen: time.Minute, told: "flipped"},
		"one that does not end": {open: time.Hour, age: time.Hour, frozen: 5 * time.Minute, told: "aborted: the range was frozen 6 times, and could not be handed over in time. The last time: the range was frozen for 4s, which is as long as statements may wait: not every node has said that nothing runs on the range any more: fra-1 has not"},
		"after a pause":         {open: 23 * time.Minute, age: time.Hour, paused: 20 * time.Minute, frozen: 23 * time.Minute, told: "flipped"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook(&rib.Keyspace{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})})
				began := time.Now()
				id := b.start(nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}, "shard_1", "shard_2")
				if err := b.NoteMove(t.Context(), id, note{Step: stepFollow, Touched: true, Paused: c.paused > 0}.encode()); err != nil {
					t.Fatal(err)
				}
				var frozen time.Duration
				b.refuse = func(what string) error {
					if what == "advance "+rib.MoveFrozen.String() && frozen == 0 {
						frozen = time.Since(began)
					}
					return nil
				}
				servers := &scripted{lag: func() (lag Lag) {
					if time.Since(began) < c.open {
						lag.Open, lag.Whose = c.age+time.Since(began), "a transaction of user app has been open"
					}
					return lag
				}}
				m := New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ledger: b, Leases: &undrained{until: began.Add(c.open)}, Servers: servers, Owners: b.owners, Leads: b.leads})
				m.Open()
				defer m.Close()
				if c.paused > 0 {
					if err := sleep(t.Context(), c.paused); err != nil {
						t.Fatal(err)
					}
					if err := m.Pause(t.Context(), id, false, func(ctx context.Context, note []byte) error { return b.NoteMove(ctx, id, note) }); err != nil {
						t.Fatal(err)
					}
				}
				named := false
				for len(b.owners().Moves) > 0 {
					if err := sleep(t.Context(), 50*time.Millisecond); err != nil {
						t.Fatal(err)
					}
					for _, p := range m.Status() {
						named = named || strings.Contains(p.Problem, "on shard shard_1 a transaction of user app has been open")
					}
				}
				if told := b.became(); !strings.HasPrefix(told[len(told)-1], c.told) || len(told) > 1 && c.told == "flipped" {
					t.Errorf("%q, want %q", told, c.told)
				}
				if frozen < c.frozen || frozen > c.frozen+2*time.Second {
					t.Errorf("frozen after %s, want %s", frozen, c.frozen)
				}
				if named != (c.frozen > 0) {
					t.Errorf("the status tells whose it is: %v", named)
				}
			})
		})
	}
}

// TestProgressIsWholeBehindTheCopy: what comes behind the rows that are copied, or removed, has no measure, and does not count as nothing done.
func TestProgressIsWholeBehindTheCopy(t *testing.T) {
	w := &worker{}
	for _, c := range []struct {
		at   step
		part float64
	}{{stepCopy, 0}, {stepFollow, 1}, {stepFence, 1}, {stepThaw, 1}, {stepDetach, 0}, {stepDelete, 0}, {stepWait, 1}, {stepClean, 0}} {
		w.begin(c.at)
		var p Progress
		if w.describe(&p); p.Part != c.part || p.LeftMS != 0 {
			t.Errorf("%s: %v done, %d ms left", c.at, p.Part, p.LeftMS)
		}
	}
}

// TestEstimateIsOfThePace: what a step has waited before it came some way, or a try that has failed, does not count as copying.
func TestEstimateIsOfThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &worker{}
		w.begin(stepCopy)
		after := func(d time.Duration, part float64, want int64) {
			t.Helper()
			if err := sleep(t.Context(), d); err != nil { // of virtual time
				t.Fatal(err)
			}
			w.report(Copied{Part: part})
			var p Progress
			if w.describe(&p); max(p.LeftMS-want, want-p.LeftMS) > 1 {
				t.Errorf("%d ms are left, and not %d", p.LeftMS, want)
			}
		}
		after(0, 0, 0)
		after(time.Minute, 0, 0)
		after(time.Minute, 0.1, 0)
		after(time.Second, 0.2, 8000)
		after(time.Second, 0.2, 16000)
		after(time.Second, 0.5, 3750)
		after(time.Minute, 0.05, 0)
		after(time.Second, 0.15, 8500)
	})
}

// TestStatusTellsWhatIsWaitedForNow: why the last try has failed stands behind what this one waits for.
func TestStatusTellsWhatIsWaitedForNow(t *testing.T) {
	w := &worker{log: slog.New(slog.DiscardHandler)}
	tells := func(want string) {
		t.Helper()
		var p Progress
		if w.describe(&p); p.Problem != want {
			t.Errorf("%q and not %q", p.Problem, want)
		}
	}
	w.fail(errors.New("first"))
	tells("first")
	w.report(Copied{Waits: "somebody"})
	tells("somebody")
	w.fail(errors.New("second"))
	tells("second")
}
