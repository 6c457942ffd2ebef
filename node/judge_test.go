package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// who tells the primary from its replica, which has no memory left.
const who = `
CREATE FUNCTION no_memory() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of memory' USING ERRCODE = '53200'; END $$;
CREATE VIEW who AS SELECT CASE WHEN pg_is_in_recovery() THEN no_memory() ELSE 'primary' END AS who;
GRANT SELECT ON who TO app`

// A replica beside the node and the primary far away: reads go to the replica, unless it answers badly or the database prefers
// another region.
func TestWhereReadsGo(t *testing.T) {
	ctx := t.Context()
	primary := pgtest.NewPrimary(t, pgtest.Options{Name: "shard_1", Auth: "scram-sha-256"})
	if err := errors.Join(
		primary.CreateUser(ctx, "app", appPassword, ""), primary.CreateUser(ctx, "probe", probePassword, ""),
		primary.Exec(ctx, "CREATE DATABASE app OWNER app"), primary.ExecIn(ctx, "app", who), primary.Exec(ctx, "CREATE DATABASE reports TEMPLATE app"),
	); err != nil {
		t.Fatal(err)
	}
	replica := pgtest.NewReplica(t, primary, pgtest.Options{})
	if err := replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "fra")
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}, {Name: "reports", Shard: "shard_1", Regions: []string{"iad"}}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Backends = []Backend{{Name: "near", Shard: "shard_1", Address: replica.Addr()}, {Name: "far", Shard: "shard_1", Address: primary.Addr(), Region: "iad"}}
	cfg.Reads.EjectTime, cfg.Reads.WarmUp = Duration{2 * time.Second}, Duration{time.Second}
	cfg.Pool.Connect, cfg.Limits.StartupTimeout = Duration{time.Minute}, Duration{time.Minute}
	wanted, env := cfg, clusterEnv()
	n := newNodeWith(t, cfg, Options{
		Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok },
		Load:   func() (Config, error) { return wanted, nil },
	}).open(t)
	n.settled(t, 1, 1)
	connect := func(database string) *pgx.Conn {
		conn, err := pgx.Connect(ctx, strings.Replace(n.dsn(appPassword), "/app?", "/"+database+"?", 1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
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
	app, reports := connect("app"), connect("reports")
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

	answers(app, "primary") // the replica is ejected after some errors
	logged(t, n, `"a backend is ejected: it gets no reads from here" backend=near`)
	if c := first("app"); c.Backend != "far" {
		t.Errorf("explained as %+v", c)
	}
	if _, metrics := n.get(t, "/metrics"); !strings.Contains(metrics, `rangefinder_backend_ejections_total{backend="near"} 1`) {
		t.Error("the ejection is not counted")
	}
	answers(app, "53200") // and tried again later
	logged(t, n, `"an ejection is over" backend=near`)

	wanted.Databases = []Listing{{Name: "app", Shard: "shard_1", Regions: []string{"iad"}, Pinned: true}, {Name: "reports", Shard: "shard_1"}}
	wanted.Reads.EjectTime = Duration{} // never again
	if _, err := n.Reload("test"); err != nil {
		t.Fatal(err)
	}
	answers(app, "primary")
	answers(reports, "53200")
	if c := first("reports"); c.Backend != "near" {
		t.Errorf("explained as %+v", c)
	}
	wanted.Databases[0].Regions = []string{"syd"} // pinned to where nothing is
	if _, err := n.Reload("test"); err != nil {
		t.Fatal(err)
	}
	answers(app, "57P03")
	a, err := n.Route(ctx, RouteQuery{SQL: "SELECT who FROM who", Database: "app", User: "app"})
	if err != nil || a.Error == nil || !strings.Contains(a.Error.Detail, "pinned to syd") {
		t.Errorf("%+v, %v", a, err)
	}
}
