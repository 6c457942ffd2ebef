package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/sqlkey"
)

// dependentTables is what two shards have alike.
const dependentTables = `
CREATE TABLE orders (customer_id bigint, id int, PRIMARY KEY (customer_id, id));
CREATE TABLE pp (id bigint, x int) PARTITION BY RANGE (id);
CREATE TABLE pp1 PARTITION OF pp FOR VALUES FROM (0) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE pp1a PARTITION OF pp1 FOR VALUES FROM (0) TO (500);
CREATE TABLE things (id bigint);
CREATE TABLE others () INHERITS (things);
CREATE TABLE kept (k bigint) INHERITS (things);
CREATE TABLE old_kept () INHERITS (kept);
CREATE TABLE settings (name text, value text);
CREATE VIEW vo AS SELECT * FROM orders;
CREATE SCHEMA app;
CREATE VIEW app.vvo AS SELECT count(*) AS n FROM vo, settings;
CREATE VIEW in_from AS SELECT name FROM settings WHERE EXISTS (SELECT FROM orders);
CREATE MATERIALIZED VIEW mv AS SELECT * FROM pp1a;
CREATE VIEW plain AS SELECT * FROM settings;
CREATE VIEW over_plain AS SELECT * FROM plain;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SCHEMA app TO app; GRANT ALL ON ALL TABLES IN SCHEMA app TO app`

func TestDependentsOnRealPostgreSQL(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var servers []*pgtest.Server
	cfg := testConfig(t, "iad")
	for i := range 2 {
		s := pgtest.NewPrimary(t, pgtest.Options{Name: fmt.Sprintf("shard_%d", i+1)})
		if err := errors.Join(
			s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""),
			s.Exec(ctx, "CREATE DATABASE app OWNER app"), s.ExecIn(ctx, "app", dependentTables, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO probe"),
		); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
		cfg.Backends = append(cfg.Backends, Backend{Name: fmt.Sprintf("iad-db-%d", i+1), Shard: fmt.Sprintf("shard_%d", i+1), Address: s.Addr()})
	}
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	n := newNode(t, cfg, clusterEnv()).open(t)
	n.settled(t, 1, 2)
	conn := n.connect(t)
	if _, err := conn.Exec(ctx, "SELECT FROM vo", pgx.QueryExecModeExec); err != nil {
		t.Fatalf("a view in a database without a keyspace: %v", err)
	}
	for _, c := range []struct {
		args     []string
		warnings int
		warning  string
	}{
		{[]string{"app.orders", "--key", "customer_id", "--table", "app.pp:id"}, 6, "warning: table public.pp1a is a partition of public.pp: statements"},
		{[]string{"app.kept", "--key", "k"}, 2, "warning: table public.things is inherited by public.kept: statements"},
	} {
		code, out, errs := n.admin(append([]string{"keyspace", "create", "--type", "bigint", "--shards", "shard_1,shard_2"}, c.args...)...)
		if code != 0 || strings.Count(out, "statements that name it are refused") != c.warnings || !strings.Contains(out, c.warning) {
			t.Fatalf("exit %d, want %d warnings: %s%s", code, c.warnings, out, errs)
		}
	}

	// refused waits until a statement is refused in every way that it can be sent.
	refused := func(t *testing.T, n *testNode, conn *pgx.Conn, sql, detail string) {
		t.Helper()
		within := dependentsEvery + dependentsAsk // beyond that, the node has missed it
		pgtest.Eventually(t, within, func() error {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				for _, how := range []string{"", "EXPLAIN ", "PREPARE p AS "} {
					_, err := conn.Exec(ctx, how+sql, mode)
					var pe *pgconn.PgError
					if !errors.As(err, &pe) || pe.Code != "0A000" || !strings.HasPrefix(pe.Detail, detail) || pe.Hint == "" {
						_, _ = conn.Exec(ctx, "DEALLOCATE ALL")
						return fmt.Errorf("%s%s: %#v", how, sql, err)
					}
				}
			}
			if code, out, errs := n.admin("route", sql); code != 1 || !strings.Contains(out+errs, "0A000") || !strings.Contains(out+errs, detail) {
				return fmt.Errorf("route %s: exit %d\n%s%s", sql, code, out, errs)
			}
			return nil
		})
	}
	everyone := func(t *testing.T, n *testNode, conn *pgx.Conn) {
		t.Helper()
		for sql, detail := range map[string]string{
			"SELECT count(*) FROM vo":                "View public.vo reads public.orders, which is sharded by keyspace app.orders",
			"SELECT * FROM vo WHERE customer_id = 1": "View public.vo reads public.orders",
			"SELECT n FROM app.vvo":                  "View app.vvo reads public.orders",
			"SELECT * FROM in_from":                  "View public.in_from reads public.orders",
			"SELECT * FROM mv":                       "Materialized view public.mv reads public.pp",
			"INSERT INTO pp1 (id, x) VALUES (1, 2)":  "Table public.pp1 is a partition of public.pp",
			"SELECT * FROM pp1a WHERE id = 1":        "Table public.pp1a is a partition of public.pp",
			"SELECT * FROM things":                   "Table public.things is inherited by public.kept",
			"DELETE FROM old_kept WHERE k = 1":       "Table public.old_kept inherits from public.kept",
		} {
			refused(t, n, conn, sql, detail)
		}
		for _, sql := range []string{
			"SELECT * FROM plain", "SELECT * FROM over_plain", "SELECT * FROM settings", "SELECT * FROM others", "SELECT * FROM pp WHERE id = 1",
			"INSERT INTO kept (k) VALUES (3)", "WITH vo AS (SELECT 1) SELECT * FROM vo",
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	t.Run("a keyspace is made", func(t *testing.T) { everyone(t, n, conn) })

	t.Run("a view is made later", func(t *testing.T) {
		if err := servers[0].ExecIn(ctx, "app", "CREATE VIEW late AS SELECT * FROM app.vvo; GRANT SELECT ON late TO app"); err != nil {
			t.Fatal(err)
		}
		const sql = "SELECT * FROM late"
		other := n.connect(t)
		_, early := other.Prepare(ctx, "early", sql) // it fails only if the view was seen at once
		refused(t, n, conn, sql, "View public.late reads public.orders")
		var pe *pgconn.PgError
		if _, err := other.Exec(ctx, "early"); early == nil && (!errors.As(err, &pe) || pe.Code != "0A000") {
			t.Errorf("what was prepared before: %v", err)
		}
	})

	t.Run("nobody answers: what was seen stays", func(t *testing.T) {
		relations := func() (found int) {
			for _, d := range n.dependents.get()["app"] {
				if !d.None() {
					found++
				}
			}
			return found
		}
		known := relations()
		bounded, stop := context.WithCancel(ctx)
		stop()
		if n.lookAtDependents(bounded) || relations() != known || known != 9 {
			t.Errorf("%d relations are known, before it were %d", relations(), known)
		}
		if a := n.View().Alarms; !strings.Contains(strings.Join(a, "\n"), "views and partitions of sharded tables in database app are those last seen") {
			t.Errorf("alarms %q", a)
		}
	})

	t.Run("a node that starts knows them before its first client", func(t *testing.T) {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		again := newNode(t, cfg, clusterEnv()).open(t)
		var pe *pgconn.PgError
		if _, err := again.connect(t).Exec(ctx, "SELECT FROM vo"); !errors.As(err, &pe) || pe.Code != "0A000" {
			t.Errorf("its first statement: %v", err)
		}
	})
}

// TestSchemaIsKnownAtOnce: what a client makes through a node, this node plans by from its next statement on, and the others within a moment.
func TestSchemaIsKnownAtOnce(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "DROP TABLE orders, order_lines", "GRANT ALL ON SCHEMA public TO app", "GRANT app TO probe", "GRANT CREATE ON DATABASE app TO probe")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.orders", "--planned", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_3", "--table", "app.order_lines")
	var conns []*pgx.Conn
	for _, node := range c.nodes {
		node.sees(t, "app.orders")
		conn := node.connect(t)
		if _, err := conn.Exec(t.Context(), "SET rangefinder.cross_shard_writes = '2pc'"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}
	run := func(mode pgx.QueryExecMode, sql ...string) {
		t.Helper()
		for _, one := range sql {
			if _, err := conns[0].Exec(t.Context(), one, mode); err != nil {
				t.Fatalf("%s: %v", one, err)
			}
		}
	}
	refused := func(i int, sql string) error {
		_, err := conns[i].Exec(t.Context(), sql)
		if code, text := sqlState(err); code != "0A000" || !strings.Contains(text, "depends on a sharded table") {
			return fmt.Errorf("%s through %s: %s %s", sql, c.nodes[i].cfg.Name, code, text)
		}
		return nil
	}
	for round, mode := range modes {
		name := fmt.Sprintf("seen_%d", round)
		run(mode, "CREATE TABLE orders (customer_id bigint, id int, PRIMARY KEY (customer_id, id))", "INSERT INTO orders VALUES (1, 1), (2, 1), (3, 1), (4, 1)",
			"ALTER TABLE orders ADD COLUMN note text DEFAULT 'none'")
		for i, conn := range conns {
			var notes int
			if err := conn.QueryRow(t.Context(), "SELECT count(note) FROM orders").Scan(&notes); err != nil || notes != 4 {
				t.Errorf("through node %d: %d notes, %v", i, notes, err)
			}
		}
		run(mode, "CREATE VIEW "+name+" AS SELECT * FROM orders")
		if err := refused(0, "SELECT * FROM "+name); err != nil { // and not answered by one shard
			t.Error(err)
		}
		run(mode, "CREATE VIEW over_"+name+" AS SELECT count(*) FROM "+name)
		if err := refused(0, "SELECT * FROM over_"+name); err != nil {
			t.Error(err)
		}
		run(mode, "BEGIN", "ALTER VIEW "+name+" RENAME TO other_"+name, "CREATE MATERIALIZED VIEW part_"+name+" AS SELECT id FROM orders", "COMMIT")
		for _, what := range []string{"other_" + name, "part_" + name} {
			if err := refused(0, "SELECT * FROM "+what); err != nil {
				t.Error(err)
			}
			for i := range conns {
				pgtest.Eventually(t, 3*time.Second, func() error { return refused(i, "SELECT * FROM "+what) }) // far less than until they look by themselves
			}
		}
		run(mode, "DROP TABLE orders CASCADE")
	}
}

// Domains that are known are those that keep what the type below them makes of a value.
// News of schemas without end, be they true or made up, do not have a node ask the shards' catalogs without end; and what changed last is known.
func TestFloodOfSchemaNews(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := pgtest.NewPrimary(t, pgtest.Options{})
	if err := errors.Join(
		s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""),
		s.Exec(ctx, "CREATE DATABASE app OWNER app"), s.ExecIn(ctx, "app", "CREATE TABLE orders (id bigint PRIMARY KEY); GRANT SELECT ON orders TO probe"),
	); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "iad")
	cfg.Backends = []Backend{{Name: "db", Shard: "shard_1", Address: s.Addr()}}
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	n := newNode(t, cfg, clusterEnv()).open(t)
	n.settled(t, 1, 1)
	n.mustAdmin(t, "keyspace", "create", "app.orders", "--key", "id", "--type", "bigint", "--shards", "shard_1")
	asked := func() (count int) {
		t.Helper()
		if err := s.Ask(ctx, func(c *pgx.Conn) error {
			return c.QueryRow(ctx, "SELECT xact_commit FROM pg_stat_database WHERE datname = 'app'").Scan(&count)
		}); err != nil {
			t.Fatal(err)
		}
		return count
	}
	before, flood := asked(), time.Now()
	for time.Since(flood) < 5*time.Second {
		n.stirDependents()
	}
	queries := asked() - before
	if queries > 40 {
		t.Errorf("%d queries of catalogs in 5 s of news without end", queries)
	}
	if err := s.ExecIn(ctx, "app", "CREATE VIEW seen AS SELECT * FROM orders"); err != nil {
		t.Fatal(err)
	}
	n.stirDependents()
	pgtest.Eventually(t, 3*time.Second, func() error {
		if list := n.dependents.get()["app"]; !slices.ContainsFunc(list, func(d sqlkey.Dependent) bool { return d.Name == "seen" }) {
			return fmt.Errorf("what was made last is not known: %+v", list)
		}
		return nil
	})
}

func TestColumnsOnRealPostgreSQL(t *testing.T) {
	ctx := context.Background()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	if err := server.Exec(ctx, `
		CREATE TABLE orders (customer_id bigint, gone int, "a, ""b""" text, id int); ALTER TABLE orders DROP COLUMN gone; CREATE TABLE areas (id int, name text);
		CREATE TABLE others (id int)`); err != nil {
		t.Fatal(err)
	}
	conn, err := server.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	a := asked{schemas: []string{"public", "public", "public"}, names: []string{"orders", "orders", "nosuch"}, columns: []string{"customer_id", "id", "id"}, types: []string{"bigint", "integer", "bigint"}}
	a.copies.schemas, a.copies.names = []string{"public"}, []string{"areas"}
	list, err := readDependents(ctx, conn, nil, a)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, d := range list {
		if d.Kind == sqlkey.DependsColumns && d.None() {
			found[d.Name] = d.OfName
		}
	}
	if len(found) != 2 || found["areas"] != `["id", "name"]` || found["orders"] != `["customer_id", "a, \"b\"", "id"]` {
		t.Errorf("%q", found)
	}
}

func TestDomainsOnRealPostgreSQL(t *testing.T) {
	ctx := context.Background()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	if err := server.Exec(ctx, `
		CREATE SCHEMA app; CREATE SCHEMA other;
		CREATE DOMAIN app.number AS bigint CHECK (VALUE > 0); CREATE DOMAIN other.favored AS app.number NOT NULL; CREATE DOMAIN login AS text; CREATE DOMAIN name_v AS varchar;
		CREATE DOMAIN cut AS varchar(3); CREATE DOMAIN under_cut AS cut; CREATE DOMAIN collated AS text COLLATE "C"; CREATE DOMAIN over_collated AS collated;
		CREATE DOMAIN padded AS bpchar; CREATE DOMAIN price AS numeric; CREATE DOMAIN twice AS int; CREATE TABLE other.twice (); CREATE DOMAIN list AS bigint[];
		CREATE DOMAIN at AS timestamptz; CREATE DOMAIN at_second AS timestamptz(0); CREATE DOMAIN pg_temp.own AS int; CREATE DOMAIN text AS bytea`); err != nil {
		t.Fatal(err)
	}
	conn, err := server.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	list, err := readDependents(ctx, conn, nil, asked{})
	if err != nil {
		t.Fatal(err)
	}
	want := "[app.number int8, other.favored int8, public.at timestamptz, public.login text, public.name_v varchar]"
	var found []string
	for _, d := range list {
		if d.Kind != sqlkey.DependsDomain || !d.None() {
			t.Errorf("%+v", d)
		}
		found = append(found, d.Schema+"."+d.Name+" "+d.OfSchema)
	}
	if got := "[" + strings.Join(found, ", ") + "]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestImmutableFunctionsOnRealPostgreSQL(t *testing.T) {
	ctx := context.Background()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	if err := server.Exec(ctx, `
		CREATE SCHEMA other;
		CREATE FUNCTION one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION other.one(text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION two(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2'; CREATE FUNCTION other.two(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 2';
		CREATE FUNCTION lower(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3'; CREATE FUNCTION four(int) RETURNS int LANGUAGE sql AS 'SELECT 4';
		CREATE AGGREGATE five(int) (SFUNC = int4pl, STYPE = int)`); err != nil {
		t.Fatal(err)
	}
	conn, err := server.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	list, err := readDependents(ctx, conn, nil, asked{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []sqlkey.Dependent{{Name: "one", Kind: sqlkey.DependsFunction}}; !slices.Equal(list, want) || !list[0].None() {
		t.Errorf("%+v, want %+v", list, want)
	}
}
