package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// sqlState is the SQLSTATE of an error, and its text with the hint.
func sqlState(err error) (code, text string) {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return "", fmt.Sprint(err)
	}
	return e.Code, e.Message + " | " + e.Detail + " | " + e.Hint
}

// everywhere runs statements on all shards' primaries.
func (c *testCluster) everywhere(t *testing.T, sql ...string) {
	t.Helper()
	for _, s := range c.servers {
		if err := s.ExecIn(t.Context(), "app", sql...); err != nil {
			t.Fatal(err)
		}
	}
}

// mustAdmin runs a command that must succeed and returns what it says.
func (n *testNode) mustAdmin(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := n.admin(args...)
	if code != 0 {
		t.Fatalf("%s: exit %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// TestKeysOnRealPostgreSQL: keys of every type and method, through nodes, as drivers send them; PostgreSQL itself says that each row
// lies where it belongs.
func TestKeysOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	t.Run("every type", func(t *testing.T) { testKeyTypes(t, c) })
	t.Run("several columns", func(t *testing.T) { testColumns(t, c) })
	t.Run("a list", func(t *testing.T) { testList(t, c) })
}

func testKeyTypes(t *testing.T, c *testCluster) {
	day := time.Date(2024, 2, 28, 23, 59, 59, 123456000, time.UTC)
	for typ, value := range map[string]func(i int) any{
		"smallint":    func(i int) any { return int16(i*7 - 300) },
		"varchar":     func(i int) any { return fmt.Sprint("käse ", i) },
		"bytea":       func(i int) any { return []byte{0, byte(i), 0xff, byte(i >> 3)} },
		"date":        func(i int) any { return day.AddDate(0, 0, i*31-2000).Truncate(24 * time.Hour) },
		"timestamptz": func(i int) any { return day.Add(time.Duration(i) * 1234567 * time.Microsecond) },
	} {
		for _, method := range []string{"hash", "range"} {
			t.Run(typ+" by "+method, func(t *testing.T) {
				table := typ + "_" + method
				c.everywhere(t, "CREATE TABLE "+table+" (k "+typ+" PRIMARY KEY, n int)", "GRANT ALL ON "+table+" TO app", "GRANT SELECT ON "+table+" TO probe")
				args := []string{"keyspace", "create", "app." + table, "--key", "k", "--type", typ, "--method", method}
				if method == "hash" {
					args = append(args, "--shards", "shard_1,shard_2,shard_3")
				} else {
					split := map[string]string{"smallint": "0", "varchar": "'käse 30'", "bytea": `\x0020`, "date": "2020-01-01", "timestamptz": "2024-02-29 00:00:30+00"}[typ]
					args = append(args, "--range", ".."+split+"=shard_1", "--range", split+"..=shard_3")
				}
				c.follower(t).mustAdmin(t, args...)
				ks := c.nodes[1].sees(t, "app."+table)
				conn := c.nodes[1].connect(t)
				const rows = 60
				for i := range rows {
					var err error
					switch i % 3 {
					case 0: // binary
						_, err = conn.Exec(t.Context(), "INSERT INTO "+table+" (k, n) VALUES ($1, $2)", value(i), i)
					case 1: // text parameters
						_, err = conn.Exec(t.Context(), "INSERT INTO "+table+" (k, n) VALUES ($1, $2)", pgx.QueryExecModeExec, value(i), i)
					case 2: // a constant
						_, err = conn.Exec(t.Context(), "INSERT INTO "+table+" (k, n) VALUES ($1, $2)", pgx.QueryExecModeSimpleProtocol, value(i), i)
					}
					if code, text := sqlState(err); err != nil {
						t.Fatalf("row %d: %s %s", i, code, text)
					}
				}
				for i := range rows {
					var n int
					mode := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}[(i+1)%3]
					if err := conn.QueryRow(t.Context(), "SELECT n FROM "+table+" WHERE k = $1", mode, value(i)).Scan(&n); err != nil || n != i {
						t.Fatalf("row %d is %d, %v", i, n, err)
					}
				}
				total, shards := 0, 0
				for shard := range c.servers {
					all, own := c.countOn(t, ks, table, "k", shard)
					if all != own {
						t.Errorf("shard_%d holds %d rows and owns %d of them", shard+1, all, own)
					}
					total += all
					if all > 0 {
						shards++
					}
				}
				if total != rows || shards < 2 {
					t.Errorf("%d rows on %d shards", total, shards)
				}
				_, err := conn.Exec(t.Context(), "INSERT INTO "+table+" (k, n) VALUES ($1, 1)", nil)
				if code, text := sqlState(err); code != "22004" {
					t.Errorf("NULL: %s %s", code, text)
				}
			})
		}
	}
}

func testColumns(t *testing.T, c *testCluster) {
	c.everywhere(t, "CREATE TABLE grid (day date, place varchar, n int, PRIMARY KEY (place, day))", "GRANT ALL ON grid TO app", "GRANT SELECT ON grid TO probe")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.grid", "--key", "place,day", "--type", "varchar,date", "--shards", "shard_1,shard_2,shard_3")
	for _, n := range c.nodes {
		n.sees(t, "app.grid")
	}
	ks, conn := n.sees(t, "app.grid"), n.connect(t)
	const rows = 60
	day := func(i int) time.Time { return time.Date(2024, 1, 1+i, 0, 0, 0, 0, time.UTC) }
	modes := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}
	for i := range rows { // of one place: the day alone spreads them
		if _, err := conn.Exec(t.Context(), "INSERT INTO grid (day, place, n) VALUES ($1, $2, $3)", modes[i%3], day(i), "here", i); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for shard := range c.servers {
		all, own := c.countOn(t, ks, "grid", "place,day", shard)
		if all != own || all < rows/6 {
			t.Errorf("shard_%d holds %d rows and owns %d of them", shard+1, all, own)
		}
		total += all
	}
	for i := range rows {
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT n FROM grid WHERE (place, day) = ($2, $1)", modes[(i+1)%3], day(i), "here").Scan(&n); err != nil || n != i {
			t.Fatalf("row %d is %d, %v", i, n, err)
		}
	}
	var found int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM grid WHERE place = $1", "here").Scan(&found); err != nil || found != rows || total != rows {
		t.Errorf("one column of two: %d of %d rows, %v", found, total, err)
	}
	_, err := conn.Exec(t.Context(), "UPDATE grid SET n = n WHERE place = $1", "here")
	if code, text := sqlState(err); code != "0A000" || !strings.Contains(text, "no condition says which day is meant") {
		t.Errorf("one column of two: %s %s", code, text)
	}
}

func testList(t *testing.T, c *testCluster) {
	c.everywhere(t, "CREATE TABLE sales (country text, id int)", "GRANT ALL ON sales TO app", "GRANT SELECT ON sales TO probe")
	n := c.follower(t)
	out := n.mustAdmin(t, "keyspace", "create", "app.sales", "--key", "country", "--type", "text", "--method", "list", "--value", "de=shard_1", "--value", "fr=shard_2")
	if !strings.Contains(out, "keyspace app.sales is made: 2 values by list of text") {
		t.Error(out)
	}
	for _, n := range c.nodes {
		n.sees(t, "app.sales")
	}
	conn := n.connect(t)
	insert := func(country any) error {
		_, err := conn.Exec(t.Context(), "INSERT INTO sales (country, id) VALUES ($1, 1)", country)
		return err
	}
	for _, country := range []string{"de", "fr"} {
		if err := insert(country); err != nil {
			t.Fatal(err)
		}
	}
	for what, x := range map[string]struct {
		err        error
		code, text string
	}{
		"a value that is not listed": {insert("it"), "23514", "lists no shard for country = $1"},
		"its rows":                   {conn.QueryRow(t.Context(), "SELECT id FROM sales WHERE country = 'it'").Scan(new(int)), "0A000", "rangefinder keyspace add app.sales --value"},
		"NULL":                       {insert(nil), "22004", "belongs to none"},
	} {
		if code, text := sqlState(x.err); code != x.code || !strings.Contains(text, x.text) {
			t.Errorf("%s: %s %s", what, code, text)
		}
	}
	if out := n.mustAdmin(t, "route", "SELECT * FROM sales WHERE country = 'fr'"); !strings.Contains(out, "shard     shard_2, range fr, epoch") {
		t.Error(out)
	}
	if code, _, errs := n.admin("route", "SELECT * FROM sales WHERE country = 'it'"); code != 1 || !strings.Contains(errs, "lists no shard for country = 'it'") {
		t.Error(code, errs)
	}

	if out := n.mustAdmin(t, "route", "/* rangefinder: shard=shard_2 */ SELECT count(*) FROM sales"); !strings.Contains(out, "because   the hint says shard shard_2") || !strings.Contains(out, "shard     shard_2") {
		t.Error(out)
	}
	for hint, want := range map[string]string{"shard=shard_9": "names shard shard_9, which is not known", "key=it": "lists no shard for the hint key=it"} {
		if code, _, errs := n.admin("route", "/* rangefinder: "+hint+" */ SELECT count(*) FROM sales"); code != 1 || !strings.Contains(errs, want) {
			t.Error(code, errs)
		}
	}

	out = n.mustAdmin(t, "keyspace", "add", "app.sales", "--value", "it=shard_3", "--value", "a=b=shard_1")
	if !strings.Contains(out, "4 values by list") {
		t.Error(out)
	}
	pgtest.Eventually(t, 10*time.Second, func() error { return insert("it") })
	out = n.mustAdmin(t, "keyspace", "show", "app.sales")
	for _, want := range []string{"app.sales  app       list    text", "app.sales  other values      (none)", "app.sales  it                shard_3", "app.sales  'a=b'"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for _, x := range []struct{ args, want string }{
		{"app.sales --value it=shard_1", "value it belongs to shard shard_3 already"},
		{"app.nope --value it=shard_1", "there is no keyspace named app.nope"},
		{"app.sales --value uk=shard_9", "shard_9: no node has announced a backend of it"},
		{"app.sales --value uk", "names no shard"},
	} {
		if code, _, errs := n.admin(append([]string{"keyspace", "add"}, strings.Fields(x.args)...)...); code == 0 || !strings.Contains(errs, x.want) {
			t.Errorf("%s: exit %d %s", x.args, code, errs)
		}
	}
	if err := c.servers[0].ExecIn(t.Context(), "app", "INSERT INTO sales VALUES ('es', 1)"); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := n.admin("keyspace", "add", "app.sales", "--value", "es=shard_2"); code == 0 || !strings.Contains(errs, "1 of its rows would belong to another shard (1 to shard_2)") {
		t.Errorf("a row that lies wrong: exit %d %s", code, errs)
	}
	n.mustAdmin(t, "keyspace", "add", "app.sales", "--value", "es=shard_1") // where it lies

	c.everywhere(t, "CREATE TABLE visits (country text, id int)", "GRANT ALL ON visits TO app", "GRANT SELECT ON visits TO probe")
	n.mustAdmin(t, "keyspace", "create", "app.visits", "--key", "country", "--type", "text", "--method", "list", "--value", "de=shard_1", "--default", "shard_3")
	for _, n := range c.nodes {
		n.sees(t, "app.visits")
	}
	for _, country := range []string{"de", "xx", "yy"} {
		if _, err := conn.Exec(t.Context(), "INSERT INTO visits (country, id) VALUES ($1, 1)", country); err != nil {
			t.Fatal(err)
		}
	}
	ks := n.sees(t, "app.visits")
	for shard, want := range []int{1, 0, 2} {
		if all, own := c.countOn(t, ks, "visits", "country", shard); all != want || own != want {
			t.Errorf("shard_%d holds %d rows and owns %d, want %d", shard+1, all, own, want)
		}
	}
	if code, _, errs := n.admin("keyspace", "add", "app.visits", "--value", "zz=shard_2"); code == 0 || !strings.Contains(errs, "value zz belongs to the default shard shard_3 already") {
		t.Errorf("a value that would leave the default shard: exit %d %s", code, errs)
	}
	n.mustAdmin(t, "keyspace", "add", "app.visits", "--value", "zz=shard_3")
}
