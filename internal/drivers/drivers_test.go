package drivers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// steps are what every driver does, in this order. A program prints "ok STEP" after each.
var steps = []string{
	"connect",                     // with verify-full; under another authority's certificate it must not
	"rows by key",                 // inserted, read back, changed and removed by their key, on both shards
	"transactions",                // committed, rolled back, failed in the middle, saved by a savepoint
	"a prepared statement",        // one name, 200 executions, keys of both shards
	"many prepared statements",    // 30 at once, in turn
	"batches",                     // the driver's own kind of pipeline, with an error in one
	"copy in",                     // 2000 rows with everything that the text format must escape
	"copy out",                    // the same rows
	"cancel",                      // the driver's own way; the session lives on
	"cancel through another node", // a balancer takes the request to the node that does not have the session
	"listen",                      // a notification from another session arrives with its payload
	"errors",                      // SQLSTATE, message, detail, hint, constraint and position as the driver shows them
	"binary results",              // integers, floats, timestamps, uuid, numeric, arrays, bytea
	"types of one's own",          // an enum, arrays of it and a composite, whose numbers differ between the shards
	"settings",                    // SET and search_path hold over transactions, and are not seen by others
	"large values",                // 1 MiB of text and of bytea, there and back
	"eight connections",           // at once, each with rows of its own
}

// script is a driver that is not Go's: a command that takes where to connect from libpq's environment variables.
type script struct {
	name    string
	command []string
	needs   func() error // nil error: it is installed
	lacks   []string     // steps that this driver cannot do
}

// keysEach is how many keys each driver has for itself: those from its place in the list times this.
const keysEach = 1_000_000

func TestDrivers(t *testing.T) {
	c := startCluster(t)
	t.Run("all", func(t *testing.T) { // which ends when all have ended
		base := 0
		run := func(name string, test func(*testing.T, *account)) {
			base += keysEach
			a := &account{cluster: c, name: name, base: base}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, a)
				if !*direct {
					c.inPlace(t, a)
				}
			})
		}
		for _, p := range programs(t) { // Java takes longest to begin
			run(p.name, p.run)
		}
		run("pgx", testPgx)
		run("pq", testPq)
		run("psql", testPsql)
		run("pgbench", testPgbench)
	})
	c.quiet(t)
}

// account is what one driver has for itself in the cluster.
type account struct {
	*cluster
	name string // table things_NAME is its own, on shard_1
	base int    // keys base to base+keysEach-1 of orders are its own
}

// dsn is where a Go driver connects; options are further parameters of the URL.
func (a *account) dsn(address string, options ...string) string {
	query := append([]string{"sslmode=verify-full", "sslrootcert=" + url.QueryEscape(a.root), "application_name=" + a.name}, options...)
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: address, Path: database, RawQuery: strings.Join(query, "&")}
	return u.String()
}

// eachStep runs a Go driver's steps in their order.
func eachStep(t *testing.T, tests map[string]func(*testing.T), lacks ...string) {
	for _, s := range steps {
		switch test := tests[s]; {
		case test != nil:
			t.Run(s, test)
		case !slices.Contains(lacks, s):
			t.Errorf("no step %q", s)
		}
	}
}

// awkward is a text with whatever COPY's text format has to escape; nil now and then.
func awkward(i int) *string {
	if i%10 == 9 {
		return nil
	}
	s := fmt.Sprintf("%d\ttab \\ back\\nslash \\. \r return \n line 'quote' \"double\", é 東 \U0001f600", i)
	return &s
}

// env is what a driver's program is told.
func (a *account) env(t *testing.T) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(a.nodes[0].postgres)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := filepath.Abs(filepath.Join("testdata", nodeModules))
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"NODE_PATH=" + modules,
		"PGHOST=" + host, "PGPORT=" + port, "PGUSER=" + user, "PGPASSWORD=" + password, "PGDATABASE=" + database,
		"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + a.root, "PGAPPNAME=" + a.name, "PSQLRC=/dev/null", "LC_ALL=C.UTF-8",
		"WRONG_ROOT=" + a.wrong, "BALANCER_PORT=" + a.balance(t), fmt.Sprint("BASE=", a.base), "NAME=" + a.name,
	}
}

// run runs the program and looks at what it says it has done.
func (p *script) run(t *testing.T, a *account) {
	if err := p.needs(); err != nil {
		t.Fatalf("%s is not installed (make drivers): %v", p.name, err)
	}
	out := a.command(t, p.command...)
	var done []string
	for line := range strings.Lines(out) {
		if step, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			done = append(done, step)
		}
	}
	var want []string
	for _, s := range steps {
		if !slices.Contains(p.lacks, s) {
			want = append(want, s)
		}
	}
	if !slices.Equal(done, want) {
		t.Errorf("steps done:\n%s\nwant:\n%s", strings.Join(done, "\n"), strings.Join(want, "\n"))
	}
	if t.Failed() {
		t.Logf("the program said:\n%s", out)
	}
}

// command runs argv with the account's environment. The test fails if that takes over two minutes or exits with anything but 0.
func (a *account) command(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), a.env(t)...)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v", strings.Join(argv, " "), errors.Join(err, ctx.Err()))
	}
	return out.String()
}

// inPlace looks at both shards: the driver's rows are there, each where its key belongs.
func (c *cluster) inPlace(t *testing.T, a *account) {
	t.Helper()
	for i, owns := range []string{"hashint8extended(customer_id, 0) >= 0", "hashint8extended(customer_id, 0) < 0"} { // halves of the unsigned positions
		conn, err := c.shards[i].ConnTo(t.Context(), database, "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		var all, own int
		sql := fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE %s) FROM orders WHERE customer_id >= %d AND customer_id < %d", owns, a.base, a.base+keysEach)
		if err := conn.QueryRow(t.Context(), sql).Scan(&all, &own); err != nil || all == 0 || all != own {
			t.Errorf("shard_%d has %d rows of %s and owns %d of them (%v)", i+1, all, a.name, own, err)
		}
	}
}

// quiet waits until no client has left a transaction or a statement behind on a shard.
func (c *cluster) quiet(t *testing.T) {
	t.Helper()
	for _, s := range c.shards {
		conn, err := s.ConnTo(t.Context(), database, "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		pgtest.Eventually(t, 10*time.Second, func() error {
			var left string
			err := conn.QueryRow(t.Context(), `SELECT coalesce(string_agg(state || ': ' || query, E'\n'), '') FROM pg_stat_activity
				WHERE usename = 'app' AND (state LIKE 'idle in transaction%' OR state = 'active' AND query !~ 'pg_is_in_recovery')`).Scan(&left)
			if err == nil && left != "" {
				err = fmt.Errorf("left behind on %s: %s", s.Name(), left)
			}
			return err
		})
	}
}

// jdbcJar is where Debian has the driver.
const jdbcJar = "/usr/share/java/postgresql.jar"

// nodeModules is where make drivers puts npm's packages, seen from testdata.
const nodeModules = "../../../bin/drivers/node_modules"

func programs(t *testing.T) []script {
	t.Helper()
	file := func(name string) string {
		path, err := filepath.Abs(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Debian's own Python: another one in PATH does not have its packages.
	const python = "/usr/bin/python3"
	imports := func(module string) func() error {
		return func() error { return exec.Command(python, "-c", "import "+module).Run() }
	}
	// The versions in the lock file, and no others that somebody may have installed.
	requires := func(packages ...string) func() error {
		return func() error {
			for _, p := range packages {
				if _, err := os.Stat(filepath.Join(file(nodeModules), p)); err != nil {
					return err
				}
			}
			return exec.Command("node", "--version").Run()
		}
	}
	java := func() error {
		if _, err := os.Stat(jdbcJar); err != nil {
			return err
		}
		return exec.Command("javac", "-version").Run() // a runtime alone cannot run a source file
	}
	return []script{
		{name: "psycopg", command: []string{python, file("psycopg3.py")}, needs: imports("psycopg")},
		{name: "asyncpg", command: []string{python, file("asyncpg_pool.py")}, needs: imports("asyncpg")},
		{
			name: "sqlalchemy", command: []string{python, file("sqlalchemy_orm.py")}, needs: imports("psycopg2, sqlalchemy"),
			lacks: []string{"binary results", "types of one's own"},
		},
		{name: "node_postgres", command: []string{"node", file("node/pg.js")}, needs: requires("pg", "pg-copy-streams", "pg-cursor")},
		{name: "postgres_js", command: []string{"node", file("node/postgresjs.js")}, needs: requires("postgres"), lacks: []string{"binary results", "types of one's own"}},
		{name: "jdbc", command: []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", jdbcJar, file("Jdbc.java")}, needs: java},
	}
}
