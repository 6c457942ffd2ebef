package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// who tells the primary from its replica, which has no memory left.
const who = `
CREATE FUNCTION no_memory() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of memory' USING ERRCODE = '53200'; END $$;
CREATE VIEW who AS SELECT CASE WHEN pg_is_in_recovery() THEN no_memory() ELSE 'primary' END AS who;`

// readsRig is one node, shard_1's replica beside it ("near"), and its primary ("far"). On both the view who is made by view, and there
// are the databases app and reports.
type readsRig struct {
	*testNode
	wanted Config // what a reload finds
}

func newReadsRig(t *testing.T, view string, change func(*Config)) *readsRig {
	t.Helper()
	ctx := t.Context()
	primary := pgtest.NewPrimary(t, pgtest.Options{Name: "shard_1", Auth: "scram-sha-256"})
	if err := errors.Join(
		primary.CreateUser(ctx, "app", appPassword, ""), primary.CreateUser(ctx, "probe", probePassword, ""),
		primary.Exec(ctx, "CREATE DATABASE app OWNER app"), primary.ExecIn(ctx, "app", view+"; GRANT SELECT ON who TO app"),
		primary.Exec(ctx, "CREATE DATABASE reports TEMPLATE app"),
	); err != nil {
		t.Fatal(err)
	}
	replica := pgtest.NewReplica(t, primary, pgtest.Options{})
	if err := replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "fra")
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}, {Name: "reports", Shard: "shard_1"}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Backends = []Backend{{Name: "near", Shard: "shard_1", Address: replica.Addr()}, {Name: "far", Shard: "shard_1", Address: primary.Addr(), Region: "iad"}}
	cfg.Pool.Connect, cfg.Limits.StartupTimeout = Duration{time.Minute}, Duration{time.Minute}
	change(&cfg)
	r, env := &readsRig{wanted: cfg}, clusterEnv()
	r.testNode = newNodeWith(t, cfg, Options{
		Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok },
		Load:   func() (Config, error) { return r.wanted, nil },
	}).open(t)
	r.settled(t, 1, 1)
	return r
}

func (r *readsRig) to(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), strings.Replace(r.dsn(appPassword), "/app?", "/"+database+"?", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// A replica beside the node and the primary far away: reads go to the replica, unless it answers badly or the database prefers
// another region.
func TestWhereReadsGo(t *testing.T) {
	ctx := t.Context()
	n := newReadsRig(t, who, func(cfg *Config) {
		cfg.Databases[1].Regions = []string{"iad"}
		cfg.Reads.EjectTime, cfg.Reads.WarmUp = Duration{2 * time.Second}, Duration{time.Second}
	})
	ask := func(conn *pgx.Conn) string {
		var answer string
		err := conn.QueryRow(ctx, "SELECT who FROM who", pgx.QueryExecModeSimpleProtocol).Scan(&answer)
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			return pe.Code
		}
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	app, reports := n.to(t, "app"), n.to(t, "reports")
	answers := func(conn *pgx.Conn, want string) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, func() error {
			if got := ask(conn); got != want {
				return fmt.Errorf("the answer is %q, want %q", got, want)
			}
			return nil
		})
	}
	first := func(database string) CandidateView {
		t.Helper()
		a, err := n.Route(ctx, RouteQuery{SQL: "SELECT who FROM who", Database: database, User: "app"})
		if err != nil || len(a.Candidates) == 0 {
			t.Fatalf("%+v, %v", a, err)
		}
		return a.Candidates[0]
	}

	if got := ask(app); got != "53200" {
		t.Fatalf("the replica answers %q", got)
	}
	if got := ask(reports); got != "primary" {
		t.Errorf("a database that prefers iad is answered with %q", got)
	}
	if c := first("reports"); c.Backend != "far" || !strings.HasPrefix(c.Reason, "preferred: ") {
		t.Errorf("explained as %+v", c)
	}

	if a, err := n.Route(ctx, RouteQuery{SQL: "SELECT who FROM who", Database: "reports", User: "app"}); err != nil || !strings.Contains(a.Reason, "reads of database reports are first to iad, then by distance") {
		t.Errorf("%+v, %v", a, err)
	}

	answers(app, "primary") // the replica is ejected after some errors
	logged(t, n.testNode, `"a backend is ejected: it gets no reads from here" backend=near`)
	if c := first("app"); c.Backend != "far" {
		t.Errorf("explained as %+v", c)
	}
	if _, metrics := n.get(t, "/metrics"); !strings.Contains(metrics, `rangefinder_backend_ejections_total{backend="near"} 1`) {
		t.Error("the ejection is not counted")
	}
	answers(app, "53200") // and tried again later
	logged(t, n.testNode, `"an ejection is over" backend=near`)

	n.wanted.Databases = []Listing{{Name: "app", Shard: "shard_1", Regions: []string{"iad"}, Pinned: true}, {Name: "reports", Shard: "shard_1"}}
	n.wanted.Reads.EjectTime = Duration{} // never again
	if _, err := n.Reload("test"); err != nil {
		t.Fatal(err)
	}
	answers(app, "primary")
	answers(reports, "53200")
	if c := first("reports"); c.Backend != "near" {
		t.Errorf("explained as %+v", c)
	}
	n.wanted.Databases[0].Regions = []string{"syd"} // pinned to where nothing is
	if _, err := n.Reload("test"); err != nil {
		t.Fatal(err)
	}
	answers(app, "57P03")
	var refused *pgconn.PgError
	if _, err := app.Exec(ctx, "SELECT who FROM who"); !errors.As(err, &refused) || !strings.Contains(refused.Hint, "Reads of database app are pinned to its regions") {
		t.Errorf("a read where nothing is: %+v", err)
	}
	a, err := n.Route(ctx, RouteQuery{SQL: "SELECT who FROM who", Database: "app", User: "app"})
	if err != nil || a.Error == nil || !strings.Contains(a.Error.Detail, "pinned to syd") {
		t.Errorf("%+v, %v", a, err)
	}
}

// A replica and the primary as close as each other, and the replica is slow: it is ejected by what its reads take beside the other's.
func TestASlowBackendIsEjected(t *testing.T) {
	n := newReadsRig(t, "CREATE VIEW who AS SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT 'replica' FROM pg_sleep(0.05)) ELSE 'primary' END AS who", func(cfg *Config) {
		cfg.Backends[1].Region = ""
		cfg.Reads.EjectTime, cfg.Reads.EjectMax = Duration{10 * time.Minute}, Duration{}
	})
	var stop atomic.Bool
	var wg sync.WaitGroup
	var sinceThen, byReplica atomic.Int64 // reads after the ejection, and those that the replica has answered
	var ejected atomic.Bool
	for range 8 {
		conn := n.to(t, "app")
		wg.Go(func() {
			for !stop.Load() {
				late := ejected.Load()
				var answer string
				if err := conn.QueryRow(context.Background(), "SELECT who FROM who").Scan(&answer); err != nil {
					t.Error(err)
					return
				}
				if late {
					sinceThen.Add(1)
					if answer == "replica" {
						byReplica.Add(1)
					}
				}
			}
		})
	}
	defer func() { stop.Store(true); wg.Wait() }()
	pgtest.Eventually(t, 60*time.Second, func() error {
		reads := n.fib.Load().Slot("shard_1").Candidates().Reads
		if len(reads) != 2 || reads[0].Backend.Name != "far" || reads[1].Healthy {
			return fmt.Errorf("not ejected: %+v", n.View().Backends)
		}
		ejected.Store(true)
		return nil
	})
	pgtest.Eventually(t, 60*time.Second, func() error {
		if sinceThen.Load() < 500 {
			return errors.New("few reads since")
		}
		return nil
	})
	if got := byReplica.Load(); got > 0 {
		t.Errorf("of %d reads after the ejection the replica has answered %d", sinceThen.Load(), got)
	}
	logged(t, n.testNode, "its reads take over ")
}
