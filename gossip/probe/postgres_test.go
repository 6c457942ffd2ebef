package probe

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestRealServers follows a primary and its streaming replica through death, return and promotion.
func TestRealServers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	if err := primary.CreateUser(ctx, "prober", "pr0be", ""); err != nil { // no rights at all
		t.Fatal(err)
	}
	replica := pgtest.NewReplica(t, primary, pgtest.Options{})

	sink := newSeen()
	p := New(Config{
		Settings: Settings{
			Backends: []Target{
				{Name: "p", Shard: "shard_1", Region: "fra", Addr: primary.Addr()},
				{Name: "r", Shard: "shard_1", Region: "fra", Addr: replica.Addr()},
			},
			User: "prober", Password: "pr0be", Database: "postgres", Interval: 200 * time.Millisecond, Soft: 1, // the probes alone are as many
		},
		Sink: sink, Logger: quiet(), Recovered: sink.Recovered,
	})
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()

	got := sink.await(t, 0, "p", "the primary up", is(rib.Up))
	if got.Role != rib.Primary || got.Timeline != 1 || got.Lag != 0 || got.LagBytes != 0 || got.Load != rib.LoadBetween || got.Latency <= 0 || got.Latency > time.Second {
		t.Errorf("primary: %+v", got.Route)
	}
	got = sink.await(t, 0, "r", "the replica up", is(rib.Up))
	if got.Role != rib.Replica || got.Timeline != 1 {
		t.Errorf("replica: %+v", got.Route)
	}
	sink.await(t, 0, "r", "the replica at the head", func(r rib.Route) bool { return r.Lag == 0 })
	want := rib.Backend{Name: "r", Shard: "shard_1", Region: "fra", Addr: replica.Addr(), SystemID: primary.SystemID()}
	sink.until(t, "the replica's system identifier", func() bool {
		for _, b := range sink.announced {
			if b == want {
				return true
			}
		}
		return false
	})
	if sink.announced[0].SystemID != 0 {
		t.Errorf("first announcement %+v: want it before the server is reached", sink.announced[0])
	}

	// A replica that replays no more says how far it is behind: the age of the last commit that it has replayed.
	if err := primary.Exec(ctx, "CREATE TABLE before ()"); err != nil {
		t.Fatal(err)
	}
	if err := replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := replica.Exec(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	if err := primary.Exec(ctx, "CREATE TABLE t ()"); err != nil {
		t.Fatal(err)
	}
	sink.await(t, sink.mark(), "r", "a lag", func(r rib.Route) bool {
		return r.Lag > 0 && r.Lag < time.Minute && r.LagBytes > 0 && r.LagBytes < 1<<20
	})
	if err := replica.Exec(ctx, "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	sink.await(t, sink.mark(), "r", "no lag", func(r rib.Route) bool { return r.Lag == 0 && r.LagBytes == 0 })

	// SIGKILL: the kernel closes the kept connection and refuses the next. Seen by a prober, too, that is not due for long.
	slow := newSeen()
	lazy := New(Config{
		Settings: Settings{
			Backends: []Target{{Name: "p", Addr: primary.Addr()}},
			User:     "prober", Password: "pr0be", Database: "postgres", Interval: time.Minute,
		},
		Sink: slow, Logger: quiet(),
	})
	if err := lazy.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lazy.Close() }()
	slow.await(t, 0, "p", "the primary up", is(rib.Up))
	mark, killed := sink.mark(), time.Now()
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	got = sink.await(t, mark, "p", "the primary down", is(rib.Down))
	byEnd := slow.await(t, 0, "p", "the primary down", is(rib.Down))
	t.Logf("SIGKILL seen after %v, and %v by a prober that was not due", got.at.Sub(killed), byEnd.at.Sub(killed))
	if took := byEnd.at.Sub(killed); took > 5*time.Second { // on a busy machine; its next probe was a minute away
		t.Errorf("SIGKILL seen after %v", took)
	}
	if got.Role != rib.Primary {
		t.Errorf("a dead primary's last known role is %v", got.Role)
	}

	// Promotion: role and timeline change while the state does not.
	mark = sink.mark()
	if err := replica.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	got = sink.await(t, mark, "r", "the promoted replica", func(r rib.Route) bool { return r.Role == rib.Primary })
	if got.State != rib.Up || got.Timeline != 2 || got.Lag != 0 {
		t.Errorf("promoted: %+v", got.Route)
	}

	// The old primary returns: two good probes, and it still says that it is one, on the older timeline.
	mark = sink.mark()
	if err := primary.Start(ctx); err != nil {
		t.Fatal(err)
	}
	got = sink.await(t, mark, "p", "the old primary up", is(rib.Up))
	if got.Role != rib.Primary || got.Timeline != 1 {
		t.Errorf("returned: %+v", got.Route)
	}

	// SIGSTOP: nothing is closed or refused; it takes Fall probes that time out. Watched as a far backend would be.
	far := newSeen()
	q := New(Config{
		Settings: Settings{
			User: "prober", Password: "pr0be", Database: "postgres", Interval: 100 * time.Millisecond, Timeout: 200 * time.Millisecond,
		},
		Sink: far, Logger: quiet(), Recovered: far.Recovered,
	})
	if err := q.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	if err := primary.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := q.Watch(Target{Name: "p", Addr: primary.Addr()}); err != nil {
		t.Fatal(err)
	}
	sink.await(t, sink.mark(), "p", "the stopped primary down", is(rib.Down))
	far.mu.Lock()
	if len(far.recovered) != 0 {
		t.Error("a stopped server recovered")
	}
	far.mu.Unlock()
	if err := primary.Thaw(); err != nil {
		t.Fatal(err)
	}
	far.until(t, "recovery", func() bool { return len(far.recovered) == 1 && far.recovered[0] == "p" })
	if len(far.routes) != 0 || len(far.announced) != 0 {
		t.Errorf("watching a far backend told the sink: %+v %+v", far.announced, far.routes)
	}
}

// After a promotion the other replica is told to follow the new primary. Who may see what it receives sees that at once. Who may not is told so,
// and sees it when the replica has put on its disk something of the new timeline: here, as a file has to go; else within minutes.
func TestReplicaThatFollowsThePromoted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{})
	for _, user := range []string{"stats", "plain"} {
		if err := primary.CreateUser(ctx, user, user, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := primary.Exec(ctx, "GRANT pg_read_all_stats TO stats"); err != nil {
		t.Fatal(err)
	}
	next, other := pgtest.NewReplica(t, primary, pgtest.Options{}), pgtest.NewReplica(t, primary, pgtest.Options{})
	type eyes struct {
		*seen
		prober *Prober
		log    *bytes.Buffer // complete once the prober is closed
	}
	look := func(user string) eyes {
		e := eyes{seen: newSeen(), log: &bytes.Buffer{}}
		e.prober = New(Config{
			Settings: Settings{Backends: []Target{{Name: "r", Addr: other.Addr()}}, User: user, Password: user, Database: "postgres", Interval: 100 * time.Millisecond},
			Sink:     e, Logger: slog.New(slog.NewTextHandler(e.log, nil)),
		})
		if err := e.prober.Open(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.prober.Close() })
		return e
	}
	stats, plain := look("stats"), look("plain")
	for _, e := range []eyes{stats, plain} {
		e.await(t, 0, "r", "the replica on timeline 1", func(r rib.Route) bool { return r.Role == rib.Replica && r.Timeline == 1 })
	}
	for _, s := range []*pgtest.Server{next, other} {
		if err := s.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := next.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	if err := other.Follow(next); err != nil {
		t.Fatal(err)
	}
	second := func(r rib.Route) bool { return r.Timeline == 2 }
	stats.await(t, 0, "r", "the replica on timeline 2", second)
	if err := next.Exec(ctx, "CREATE TABLE t (i int)", "DROP TABLE t"); err != nil {
		t.Fatal(err)
	}
	plain.await(t, 0, "r", "the replica on timeline 2, on its disk", second)

	for _, x := range []struct {
		eyes
		want int
	}{{stats, 0}, {plain, 1}} {
		if err := x.prober.Close(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(x.log.String(), "GRANT pg_read_all_stats"); n != x.want {
			t.Errorf("told %d times what to grant, want %d:\n%s", n, x.want, x.log)
		}
	}
}

// What a primary says of its commits: they wait for a replica, unless its settings have them not wait for some role or database.
func TestWhetherCommitsWait(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{})
	if err := primary.CreateUser(ctx, "prober", "pr0be", ""); err != nil {
		t.Fatal(err)
	}
	conn, err := primary.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SET ROLE prober"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sql  []string
		want bool
	}{
		{nil, false},
		{[]string{"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'"}, true},
		{[]string{"ALTER SYSTEM SET synchronous_commit = 'local'"}, false},
		{[]string{"ALTER SYSTEM SET synchronous_commit = 'remote_write'"}, true},
		{[]string{"ALTER SYSTEM RESET synchronous_commit", "ALTER ROLE prober SET synchronous_commit = 'off'"}, false},
		{[]string{"ALTER ROLE prober SET synchronous_commit = 'remote_apply'"}, true},
		{[]string{"ALTER ROLE prober RESET ALL", "ALTER DATABASE postgres SET synchronous_commit = FALSE"}, false},
		{[]string{"ALTER DATABASE postgres RESET ALL"}, true},
	} {
		// The server has no replica, so nothing here may wait for one.
		if err := primary.Exec(ctx, append(append([]string{"SET synchronous_commit = local"}, c.sql...), "SELECT pg_reload_conf()")...); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 10*time.Second, func() error {
			results, err := conn.PgConn().Exec(ctx, query).ReadAll()
			if err != nil {
				return err
			}
			a, err := parse(results[0].Rows[0])
			if err != nil || a.sync != c.want {
				return fmt.Errorf("after %q commits wait: %v, %v; want %v", c.sql, a.sync, err, c.want)
			}
			return nil
		})
	}
}

// A replica whose own file has transactions serializable takes none that do not say otherwise. It is up all the same.
func TestReplicaThatIsSerializable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{})
	if err := primary.Exec(ctx, "ALTER ROLE postgres SET default_transaction_isolation = 'read committed'"); err != nil { // who starts the replica
		t.Fatal(err)
	}
	if err := primary.CreateUser(ctx, "prober", "pr0be", ""); err != nil {
		t.Fatal(err)
	}
	replica := pgtest.NewReplica(t, primary, pgtest.Options{Params: map[string]string{"default_transaction_isolation": "serializable"}})
	sink := newSeen()
	p := New(Config{
		Settings: Settings{
			Backends: []Target{{Name: "r", Shard: "shard_1", Region: "fra", Addr: replica.Addr()}},
			User:     "prober", Password: "pr0be", Database: "postgres", Interval: 200 * time.Millisecond,
		},
		Sink: sink, Logger: quiet(), Recovered: sink.Recovered,
	})
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if got := sink.await(t, 0, "r", "the replica up", is(rib.Up)); got.Role != rib.Replica {
		t.Errorf("%+v", got.Route)
	}
}
