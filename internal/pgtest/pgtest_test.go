package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

// count returns what a one-number query gives.
func count(t *testing.T, s *pgtest.Server, sql string) int {
	t.Helper()
	conn, err := s.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var n int
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A primary and two replicas: rows stream; a killed primary comes back and both follow it again; a replica is promoted.
func TestReplication(t *testing.T) {
	ctx := t.Context()
	begin := time.Now()
	primary := pgtest.NewPrimary(t, pgtest.Options{})
	t.Logf("primary: %v", time.Since(begin))
	begin = time.Now()
	replicas := []*pgtest.Server{pgtest.NewReplica(t, primary, pgtest.Options{}), pgtest.NewReplica(t, primary, pgtest.Options{Bind: "127.0.2.1"})}
	t.Logf("two replicas: %v", time.Since(begin))

	must(t, primary.Exec(ctx, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 1000)"))
	for _, r := range replicas {
		must(t, r.CaughtUp(ctx))
		if n := count(t, r, "SELECT count(*) FROM t"); n != 1000 {
			t.Errorf("%s has %d rows, want 1000", r.Name(), n)
		}
		if r.SystemID() != primary.SystemID() || r.SystemID() == 0 {
			t.Errorf("%s has system identifier %d, its primary %d", r.Name(), r.SystemID(), primary.SystemID())
		}
	}
	if !strings.HasPrefix(replicas[1].Addr(), "127.0.2.1:") {
		t.Errorf("asked for 127.0.2.1, got %s", replicas[1].Addr())
	}

	begin = time.Now()
	must(t, primary.Kill())
	t.Logf("kill: %v", time.Since(begin))
	if err := primary.Exec(ctx, "SELECT 1"); err == nil {
		t.Error("a killed server answers")
	}
	if err := primary.Kill(); !errors.Is(err, pgtest.ErrNotRunning) {
		t.Errorf("second kill: %v", err)
	}
	begin = time.Now()
	must(t, primary.Start(ctx))
	t.Logf("start after a kill: %v", time.Since(begin))
	must(t, primary.Exec(ctx, "INSERT INTO t VALUES (1001)"))
	for _, r := range replicas {
		must(t, r.CaughtUp(ctx))
		if n := count(t, r, "SELECT count(*) FROM t"); n != 1001 {
			t.Errorf("%s has %d rows after its primary's crash, want 1001", r.Name(), n)
		}
	}

	must(t, primary.Stop(ctx))
	begin = time.Now()
	must(t, replicas[0].Promote(ctx))
	t.Logf("promote: %v", time.Since(begin))
	must(t, replicas[0].Exec(ctx, "INSERT INTO t VALUES (1002)"))
	if n := count(t, replicas[0], "SELECT timeline_id FROM pg_control_checkpoint()"); n < 1 {
		t.Errorf("timeline %d", n)
	}
	must(t, replicas[1].Restart(ctx))
	if err := replicas[1].Exec(ctx, "INSERT INTO t VALUES (1003)"); err == nil {
		t.Error("the other replica took a write")
	}
}

// Shards are told apart by their system identifiers, also those made at the same time, and whether they are copies or come from an initdb of
// their own. Each server says the one that it was given, and so does what it has written to its disk.
func TestSystemIdentifiersDiffer(t *testing.T) {
	options := []pgtest.Options{{}, {}, {}, {Password: "its own"}}
	servers, errs := make([]*pgtest.Server, len(options)), make([]error, len(options))
	farm, err := pgtest.Open(t.Context(), "")
	must(t, err)
	defer func() { must(t, farm.Close()) }()
	var wg sync.WaitGroup
	for i, o := range options {
		wg.Go(func() { servers[i], errs[i] = farm.Primary(t.Context(), o) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	names := map[uint64]string{}
	for _, s := range servers {
		if other, taken := names[s.SystemID()]; taken {
			t.Errorf("%s and %s share the system identifier %d", other, s.Name(), s.SystemID())
		}
		names[s.SystemID()] = s.Name()
		must(t, s.Exec(t.Context(), "CREATE DATABASE app", "CHECKPOINT"))
		must(t, s.Restart(t.Context())) // reads what it has written
		if now := count(t, s, "SELECT system_identifier FROM pg_control_system()"); uint64(now) != s.SystemID() {
			t.Errorf("%s is %d after a restart, was %d", s.Name(), now, s.SystemID())
		}
	}
}

// A frozen server keeps its connections, answers nobody, and goes on where it was.
// Two servers' programs stand at the same address, where each would have had one of its own.
func TestFixedAddresses(t *testing.T) {
	farm, err := pgtest.Open(t.Context(), "")
	must(t, err)
	defer func() { must(t, farm.Close()) }()
	must(t, farm.FixedAddresses())
	var first []string
	for range 2 {
		s, err := farm.Primary(t.Context(), pgtest.Options{})
		must(t, err)
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", s.PID()))
		must(t, err)
		from, _, _ := strings.Cut(string(maps), "-")
		first = append(first, from)
	}
	if first[0] == "" || first[0] != first[1] {
		t.Errorf("the servers' programs begin at %v", first)
	}
}

func TestFreeze(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{})
	conn, err := s.Conn(t.Context())
	must(t, err)
	defer func() { _ = conn.Close(context.Background()) }()

	must(t, s.Freeze())
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT 1")
		answer <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen server answered a new connection: %v", err)
	}
	select {
	case err := <-answer:
		t.Errorf("a frozen server answered: %v", err)
	default:
	}
	if err := s.Stop(t.Context()); err == nil {
		t.Error("a frozen server was stopped")
	}
	must(t, s.Thaw())
	must(t, <-answer)
	must(t, s.Freeze()) // and a kill works on a frozen one
	must(t, s.Kill())
}

func TestAuthentication(t *testing.T) {
	for _, auth := range []string{"scram-sha-256", "md5", "password"} {
		t.Run(auth, func(t *testing.T) {
			s := pgtest.NewPrimary(t, pgtest.Options{Auth: auth, Password: `it's a "secret\`})
			must(t, s.CreateUser(t.Context(), "app", "pass'word", ""))
			conn, err := s.ConnTo(t.Context(), "postgres", "app")
			must(t, err)
			must(t, conn.Close(t.Context()))
			var method string
			super, err := s.Conn(t.Context())
			must(t, err)
			must(t, super.QueryRow(t.Context(), "SELECT auth_method FROM pg_hba_file_rules LIMIT 1").Scan(&method))
			must(t, super.Close(t.Context()))
			if method != auth {
				t.Errorf("authentication is %s", method)
			}
			if err := s.CreateUser(t.Context(), "app", "x", ""); err == nil {
				t.Error("a user was made twice")
			}
			if auth == "scram-sha-256" {
				r := pgtest.NewReplica(t, s, pgtest.Options{})
				conn, err := r.ConnTo(t.Context(), "postgres", "app")
				must(t, err)
				must(t, conn.Close(t.Context()))
			}
		})
	}
}

// Close leaves no process, no folder and no server that answers; Open removes what a dead process left.
func TestCloseAndSweep(t *testing.T) {
	dir, err := os.MkdirTemp("", "pgtest-test-")
	must(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	must(t, os.Chmod(dir, 0o755))

	stale := filepath.Join(dir, "rangefinder-pg-of-the-dead")
	must(t, os.MkdirAll(filepath.Join(stale, "1-primary", "data"), 0o700))
	farm, err := pgtest.Open(t.Context(), dir)
	must(t, err)
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a dead process's folder is still there: %v", err)
	}
	other, err := pgtest.Open(t.Context(), dir) // must not sweep the living
	must(t, err)
	must(t, other.Close())

	primary, err := farm.Primary(t.Context(), pgtest.Options{})
	must(t, err)
	replica, err := farm.Replica(t.Context(), primary, pgtest.Options{})
	must(t, err)
	must(t, replica.Freeze())
	before := inside(t, farm.Dir())
	if len(before) < 8 {
		t.Errorf("only %d processes stand in the farm's folder: does the check below see any?", len(before))
	}
	must(t, farm.Close())
	must(t, farm.Close())
	if left := inside(t, farm.Dir()); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	if _, err := os.Stat(farm.Dir()); !os.IsNotExist(err) {
		t.Errorf("folder left: %v", err)
	}
	if _, err := farm.Primary(t.Context(), pgtest.Options{}); !errors.Is(err, pgtest.ErrClosed) {
		t.Errorf("a closed farm made a server: %v", err)
	}
}

// inside returns the processes whose working folder is below dir.
func inside(t *testing.T, dir string) (pids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	must(t, err)
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			pids = append(pids, link)
		}
	}
	return pids
}

// A start that fails says what PostgreSQL said.
func TestBadSettingIsNamed(t *testing.T) {
	_, err := pgtest.Shared(t).Primary(t.Context(), pgtest.Options{Params: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("error does not name the setting: %v", err)
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{})
	_, err := pgtest.Shared(t).Primary(t.Context(), pgtest.Options{Port: s.Port()})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(s.Port())) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error does not name the port: %v", err)
	}
}
