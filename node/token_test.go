package node

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// besides starts a second node, in another region, with the same backends, of which so many serve reads.
func (f *followed) besides(reads int) *testNode {
	f.t.Helper()
	cfg := testConfig(f.t, "iad", f.port().Addr())
	cfg.ClusterKeyEnv = f.next.ClusterKeyEnv
	cfg.Databases, cfg.Users, cfg.Probe, cfg.Pool, cfg.Limits = f.next.Databases, f.next.Users, f.next.Probe, f.next.Pool, f.next.Limits
	n := newNode(f.t, cfg, clusterEnv()).open(f.t)
	pgtest.Eventually(f.t, 30*time.Second, func() error {
		if s := n.fib.Load().Slot("shard_1"); s == nil || len(s.Candidates().Reads) != reads || len(s.Candidates().Writes) != 1 {
			return errors.New("not all backends are known yet")
		}
		return nil
	})
	return n
}

// connectNoting connects, and keeps what the node notes.
func (n *testNode) connectNoting(t *testing.T, notices *[]*pgconn.Notice) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(n.dsn(appPassword))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, x *pgconn.Notice) { *notices = append(*notices, x) }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func showToken(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var token string
	if err := conn.QueryRow(t.Context(), "SHOW rangefinder.lsn").Scan(&token); err != nil {
		t.Fatal(err)
	}
	return token
}

func setToken(t *testing.T, conn *pgx.Conn, token string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "SET rangefinder.lsn = '"+token+"'"); err != nil {
		t.Fatal(err)
	}
}

// inRegion has a node's reads prefer a region.
func inRegion(region string) func(*Config) {
	return func(cfg *Config) {
		for i := range cfg.Databases {
			cfg.Databases[i].Regions = []string{region}
		}
	}
}

// A token has another session, on another node, see what a session wrote, and takes nothing from those who have none.
func TestTokenCarriesWritesToAnotherNode(t *testing.T) {
	f := startFollowed(t, inRegion("fra"))
	other := f.besides(2)
	writer, reader, careless := f.connect(t), other.connect(t), other.connect(t)
	if token := showToken(t, writer); token != "" {
		t.Errorf("who has written nothing has the token %q", token)
	}
	if _, here := f.read(reader); !here {
		t.Fatal("the other node's reads do not go to the replica")
	}
	f.write(writer, 1)
	began := time.Now()
	token := showToken(t, writer)
	t.Logf("token %s after %v", token, time.Since(began))
	parsed, err := rib.ParseToken(token)
	if err != nil || len(parsed) != 1 || parsed[0].Shard != "shard_1" || parsed[0].Timeline != 1 {
		t.Fatalf("the token is %q: %v", token, err)
	}
	if again := showToken(t, writer); again != token {
		t.Errorf("shown again it is %s, not %s", again, token)
	}
	setToken(t, reader, token)
	if got := showToken(t, reader); got != token {
		t.Errorf("who was given it shows %q", got)
	}
	f.sees(reader, 1)

	f.replay("pause")
	f.write(writer, 2)
	token = showToken(t, writer)
	setToken(t, reader, token)
	for range 20 {
		if got, here := f.read(reader); got != 2 || here {
			t.Fatalf("STALE: read %d with the token of 2, by the replica: %v", got, here)
		}
	}
	if got, here := f.read(careless); got != 1 || !here {
		t.Errorf("who has no token reads %d, by the replica: %v", got, here)
	}
	// One in the startup packet holds from the first statement on, and comes back with RESET.
	cfg, err := pgx.ParseConfig(reader.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // DISCARD ALL would take its statements away
	cfg.RuntimeParams["options"] = "-c rangefinder.lsn=" + token
	started, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close(t.Context())
	setToken(t, started, "")
	if got, here := f.read(started); got != 1 || !here {
		t.Errorf("with an empty token: read %d, by the replica: %v", got, here)
	}
	for _, sql := range []string{"RESET rangefinder.lsn", "DISCARD ALL"} {
		if _, err := started.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if got := showToken(t, started); got != token {
			t.Errorf("after %s the token is %q", sql, got)
		}
		if got, here := f.read(started); got != 2 || here {
			t.Fatalf("STALE: read %d with the token of 2 from the startup packet, by the replica: %v", got, here)
		}
	}
	f.replay("resume")
	f.sees(reader, 2)
	f.sees(started, 2)
}

// What a token may not be, and that it changes nothing.
func TestTokenRefused(t *testing.T) {
	f := startFollowed(t, nil)
	conn := f.connect(t)
	f.write(conn, 1)
	token := showToken(t, conn)
	for text, detail := range map[string]string{
		"nonsense":                          `"nonsense" is not of the form shard/timeline/LSN.`,
		"shard_9/1/0/5000":                  "Shard shard_9 is not known to this node.",
		"shard_1/1/FFFFFFFF/0":              "Shard shard_1 is at ",
		"shard_1/1234567/0/5000":            "Shard shard_1 is on timeline 1, and cannot have come to 1234567.",
		"shard_1/1/0/1,shard_1/1/0/2":       "Shard shard_1 is there twice.",
		strings.Repeat("x", rib.MaxToken+1): "It has 65537 bytes, and may have 65536.",
	} {
		_, err := conn.Exec(t.Context(), "SET rangefinder.lsn = '"+text+"'")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "22023" || !strings.HasPrefix(pe.Detail, detail) || pe.Hint == "" {
			t.Errorf("%.60q: %v, detail %q, hint %q", text, err, pe.Detail, pe.Hint)
		}
		if got := showToken(t, conn); got != token {
			t.Errorf("%.60q: the token is %q now", text, got)
		}
	}
	cfg, err := pgx.ParseConfig(conn.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["rangefinder.lsn"] = "nonsense"
	var pe *pgconn.PgError
	if _, err := pgx.ConnectConfig(t.Context(), cfg); !errors.As(err, &pe) || pe.Code != "22023" {
		t.Errorf("a startup packet with nonsense: %v", err)
	}
}

// SHOW is answered wherever a client may ask it, by whatever protocol, and tells of what has been committed.
func TestTokenIsShownAnywhere(t *testing.T) {
	f := startFollowed(t, nil)
	for name, mode := range map[string]pgx.QueryExecMode{
		"simple": pgx.QueryExecModeSimpleProtocol, "extended": pgx.QueryExecModeExec, "described": pgx.QueryExecModeDescribeExec, "prepared": pgx.QueryExecModeCacheStatement,
	} {
		t.Run(name, func(t *testing.T) {
			conn := f.connect(t)
			show := func() (token string) {
				t.Helper()
				if err := conn.QueryRow(t.Context(), "SHOW rangefinder.lsn", mode).Scan(&token); err != nil {
					t.Fatal(err)
				}
				return token
			}
			if got := show(); got != "" {
				t.Errorf("nothing was written: %q", got)
			}
			f.write(conn, 1)
			first := show()
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "UPDATE counter SET n = n + 1"); err != nil {
				t.Fatal(err)
			}
			if got := show(); got != first {
				t.Errorf("in a transaction that has not committed: %q, want %q", got, first)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			before, _ := rib.ParseToken(first)
			after, err := rib.ParseToken(show())
			if err != nil || len(after) != 1 || after[0].LSN <= before[0].LSN {
				t.Errorf("after the commit it is %v, before it was %v", after, before)
			}
		})
	}
	conn := f.connect(t)
	var batch pgx.Batch // one Sync
	batch.Queue("SHOW rangefinder.lsn")
	batch.Queue("SET rangefinder.read_consistency = 'primary'")
	batch.Queue("SELECT n FROM counter")
	batch.Queue("SHOW rangefinder.read_consistency")
	f.write(conn, 5)
	results := conn.SendBatch(t.Context(), &batch)
	var token, consistency string
	var n int
	_, setErr := func() (int, error) { err := results.QueryRow().Scan(&token); return 0, err }()
	_, execErr := results.Exec()
	if err := errors.Join(setErr, execErr, results.QueryRow().Scan(&n), results.QueryRow().Scan(&consistency), results.Close()); err != nil {
		t.Fatal(err)
	}
	if token == "" || n != 5 || consistency != "primary" {
		t.Errorf("in a pipeline: %q, %d, %q", token, n, consistency)
	}
	psql, err := exec.Command("psql", conn.Config().ConnString(), "-XAtc", "UPDATE counter SET n = 7", "-c", "SHOW rangefinder.lsn").CombinedOutput()
	if lines := strings.Fields(string(psql)); err != nil || len(lines) != 3 || !strings.HasPrefix(lines[2], "shard_1/1/0/") {
		t.Errorf("psql says %q, %v", psql, err)
	}
}

// reads one number by a session, with the SQLSTATE if there is an error.
func (f *followed) tryRead(conn *pgx.Conn) (n int, code string) {
	f.t.Helper()
	err := conn.QueryRow(f.t.Context(), "SELECT n FROM counter").Scan(&n)
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return 0, pe.Code
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return n, ""
}

// A failover that has lost writes is told to who must see them, once, and to nobody else; a token from before the point at which the
// timelines parted holds on the new one.
func TestTokenAcrossTimelines(t *testing.T) {
	for _, privilege := range []string{"", "REPLICATION"} {
		t.Run(strings.TrimSpace("the probe's user "+privilege), func(t *testing.T) {
			f := startFollowed(t, nil)
			kept, lost, silent := f.connect(t), f.connect(t), f.connect(t)
			if privilege != "" {
				if err := f.primary.Exec(t.Context(), "ALTER ROLE probe "+privilege); err != nil {
					t.Fatal(err)
				}
			}
			f.write(kept, 1)
			keptToken := showToken(t, kept)
			f.sees(kept, 1)
			if err := f.replica.Exec(t.Context(), "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"); err != nil {
				t.Fatal(err)
			}
			pgtest.Eventually(t, 30*time.Second, func() error { return cutOff(t, f.replica) })
			f.write(lost, 2)
			lostToken := showToken(t, lost)
			f.write(silent, 3)
			if err := f.primary.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := f.replica.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The sessions themselves.
			if n, code := f.tryRead(kept); n != 1 || code != "" {
				t.Errorf("whose write is there reads %d, %s", n, code)
			}
			for name, conn := range map[string]*pgx.Conn{"one with a token": lost, "one that never showed its": silent} {
				if n, code := f.tryRead(conn); code != "55000" {
					t.Errorf("%s reads %d, %q after a failover that lost its write", name, n, code)
				}
				if n, code := f.tryRead(conn); n != 1 || code != "" {
					t.Errorf("%s, once told, reads %d, %q", name, n, code)
				}
			}
			// Tokens, in sessions that know nothing.
			conn := f.connect(t)
			setToken(t, conn, keptToken)
			if n, code := f.tryRead(conn); n != 1 || code != "" {
				t.Errorf("with the token of what is there: %d, %s", n, code)
			}
			got := showToken(t, conn)
			if want := strings.Replace(keptToken, "shard_1/1/", "shard_1/2/", 1); got != want && got != keptToken {
				t.Errorf("that token is %s on the new timeline, was %s", got, keptToken)
			}
			_, err := conn.Exec(t.Context(), "SET rangefinder.lsn = '"+lostToken+"'")
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "55000" || !strings.Contains(pe.Detail, "Timeline 2 began at 0/") || !strings.Contains(pe.Hint, "token is not taken") {
				t.Errorf("the token of what is lost: %v, detail %q", err, pe.Detail)
			} else {
				t.Log(pe.Message, pe.Detail, pe.Hint)
			}
			if after := showToken(t, conn); after != got {
				t.Errorf("the refused token has made %q of %q", after, got)
			}
			// A node that has not seen the failover knows what PostgreSQL tells it.
			var notices []*pgconn.Notice
			late := f.besides(1).connectNoting(t, &notices)
			latest := func() error {
				_, err := late.Exec(t.Context(), "SET rangefinder.lsn = '"+keptToken+"'")
				return err
			}
			if privilege == "" {
				if err := latest(); err != nil || len(notices) != 1 || notices[0].Severity != "WARNING" || !strings.Contains(notices[0].Hint, "REPLICATION") {
					t.Errorf("of what is there, a node that cannot know says %v and %+v", err, notices)
				}
			} else {
				pgtest.Eventually(t, 30*time.Second, func() error {
					notices = nil
					if err := latest(); err != nil || len(notices) > 0 {
						return fmt.Errorf("of what is there, a node that may ask says %v and %+v", err, notices)
					}
					return nil
				})
				if _, err := late.Exec(t.Context(), "SET rangefinder.lsn = '"+lostToken+"'"); !errors.As(err, &pe) || pe.Code != "55000" || !strings.Contains(pe.Detail, "Timeline 2 began at 0/") {
					t.Errorf("of what is lost it says %v, %q", err, pe.Detail)
				}
			}
			if n, code := f.tryRead(late); n != 1 || code != "" {
				t.Errorf("there it is read as %d, %s", n, code)
			}
			// And what is written now is told by the new timeline.
			f.write(lost, 9)
			if token := showToken(t, lost); !strings.HasPrefix(token, "shard_1/2/0/") {
				t.Errorf("a write on the new timeline has the token %s", token)
			}
		})
	}
}

// cutOff reports whether a replica has no receiver.
func cutOff(t *testing.T, s *pgtest.Server) error {
	conn, err := s.Conn(t.Context())
	if err != nil {
		return err
	}
	defer conn.Close(t.Context())
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_wal_receiver").Scan(&n); err != nil {
		return err
	}
	if n != 0 {
		return fmt.Errorf("it still receives")
	}
	return nil
}
