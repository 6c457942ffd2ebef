package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// TB is what the helpers here need of a *testing.T or *testing.B. The demo is part of the binary, and should not bring the
// testing package into it.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// shared is the one farm of a test binary. It is package-level state on purpose: TestMain, which makes and closes it, and
// the tests that use it have nothing else in common. Nothing but tests uses it.
var shared struct {
	mu     sync.Mutex
	inMain bool
	farm   *Farm
	err    error
}

// Main is a package's TestMain: it runs the tests and closes the farm that Shared gave them, also when a test panics. It
// returns the exit code.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// With goleak: goleak.VerifyTestMain(pgtest.WithFarm(m)).
func Main(m interface{ Run() int }) int { return WithFarm(m).Run() }

// Runner runs a package's tests and then closes the shared farm.
type Runner struct {
	m interface{ Run() int }
}

// WithFarm wraps m for functions that take a TestMain's m by interface, such as goleak.VerifyTestMain.
func WithFarm(m interface{ Run() int }) *Runner { return &Runner{m} }

// Run runs the tests and closes the shared farm. If the process dies before, the kernel shuts the servers down and the next
// Open removes their folder.
func (r *Runner) Run() (code int) {
	shared.mu.Lock()
	shared.inMain = true
	shared.mu.Unlock()
	defer func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.inMain = false
		if shared.farm == nil {
			return
		}
		if err := shared.farm.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "close the PostgreSQL servers:", err)
			code = max(code, 1)
		}
		shared.farm, shared.err = nil, nil
	}()
	return r.m.Run()
}

// Shared returns the test binary's farm, opened by the first call. The package's TestMain must run Main.
func Shared(t TB) *Farm {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.inMain {
		t.Fatal("pgtest.Shared needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	}
	if shared.farm == nil && shared.err == nil {
		shared.farm, shared.err = Open(context.Background(), "")
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.farm
}

// NewPrimary makes a primary in the shared farm for one test, which fails if that does not work. The server is killed at
// the test's end.
func NewPrimary(t TB, o Options) *Server {
	t.Helper()
	farm := Shared(t)
	return forTest(t, 1, func(ctx context.Context, _ int) (*Server, error) { return farm.Primary(ctx, o) })[0]
}

// NewPrimaries makes several at once, as NewPrimary makes each.
func NewPrimaries(t TB, o ...Options) []*Server {
	t.Helper()
	farm := Shared(t)
	return forTest(t, len(o), func(ctx context.Context, i int) (*Server, error) { return farm.Primary(ctx, o[i]) })
}

// NewReplica makes a streaming replica in the shared farm for one test, as NewPrimary does.
func NewReplica(t TB, of *Server, o Options) *Server {
	t.Helper()
	farm := Shared(t)
	return forTest(t, 1, func(ctx context.Context, _ int) (*Server, error) { return farm.Replica(ctx, of, o) })[0]
}

// forTest makes n servers at once; those that were made are killed at the test's end also if another one was not.
func forTest(t TB, n int, create func(ctx context.Context, i int) (*Server, error)) []*Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	servers, errs := make([]*Server, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() { servers[i], errs[i] = create(ctx, i) })
	}
	wg.Wait()
	for i, s := range servers {
		if errs[i] == nil {
			t.Cleanup(func() { endOfTest(t, s) })
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return servers
}

func endOfTest(t TB, s *Server) {
	if err := s.Kill(); err != nil && !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("the end of %s's log:\n%s", s.Name(), s.logSince(0))
	}
}
