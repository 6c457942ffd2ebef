package probe

import (
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// seen is a Sink that remembers everything, with times.
type seen struct {
	mu        sync.Mutex
	announced []rib.Backend
	routes    []sighting
	withdrawn []string
	recovered []string
	lost      map[string]string // by backend: why
	positions []rib.Position
	late      func() rib.Delay     // what is said of each position; nil: nothing
	quiet     map[string]time.Time // by backend, of those that are: since when
	changed   chan struct{}        // capacity 1
}

func (s *seen) Saw(p rib.Position) rib.Delay {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.positions = append(s.positions, p)
	if s.late == nil {
		return rib.Delay{}
	}
	return s.late()
}

// forksOf is what its last answer came with.
func (s *seen) forksOf(backend string) (forks []rib.Fork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.positions {
		if p.Backend == backend {
			forks = p.Forks
		}
	}
	return forks
}

func (s *seen) Quiet(name string, quiet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.quiet, name)
	if quiet {
		s.quiet[name] = time.Now()
	}
}

// quietAt is since when a backend is quiet; zero: it is not.
func (s *seen) quietAt(name string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quiet[name]
}

type sighting struct {
	rib.Route
	at time.Time
}

func newSeen() *seen {
	return &seen{lost: map[string]string{}, quiet: map[string]time.Time{}, changed: make(chan struct{}, 1)}
}

func (s *seen) Announce(b rib.Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced = append(s.announced, b)
	s.ring()
}

func (s *seen) Observe(r rib.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes = append(s.routes, sighting{r, time.Now()})
	s.ring()
}

func (s *seen) Withdraw(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdrawn = append(s.withdrawn, name)
	s.ring()
}

func (s *seen) Lost(name, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost[name] = why
	s.ring()
}

func (s *seen) Recovered(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recovered = append(s.recovered, name)
	s.ring()
}

func (s *seen) ring() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// mark is where the next wait begins.
func (s *seen) mark() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.routes)
}

// all is what was seen so far.
func (s *seen) all() []sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.routes)
}

// await waits for a sighting of the backend after mark that fits.
func (s *seen) await(t *testing.T, mark int, backend, what string, fits func(rib.Route) bool) sighting {
	t.Helper()
	var found sighting
	s.until(t, what, func() bool {
		for _, r := range s.routes[min(mark, len(s.routes)):] {
			if r.Backend == backend && fits(r.Route) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// until waits for a condition, which is called with mu held.
func (s *seen) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.changed:
		case <-limit.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("not seen: %s; announced %+v, last routes %+v, recovered %v", what, s.announced, s.routes[max(0, len(s.routes)-3):], s.recovered)
		}
	}
}

func is(state rib.State) func(rib.Route) bool {
	return func(r rib.Route) bool { return r.State == state }
}
