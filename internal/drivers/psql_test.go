package drivers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// psqlDriver is libpq's psql. Its statements are simple queries, and it gets text alone.
type psqlDriver struct {
	*account
	env []string
}

func testPsql(t *testing.T, a *account) {
	d := psqlDriver{a, a.env(t)}
	eachStep(t, map[string]func(*testing.T){
		"connect": d.connects, "rows by key": d.rows, "transactions": d.transactions, "a prepared statement": d.prepared,
		"many prepared statements": d.manyPrepared, "batches": d.batches, "copy in": d.copyIn, "copy out": d.copyOut,
		"cancel":                      func(t *testing.T) { d.cancel(t) },
		"cancel through another node": func(t *testing.T) { d.cancel(t, "PGPORT="+d.balance(t)) },
		"listen":                      d.listen, "errors": d.errors, "settings": d.settings, "large values": d.large, "eight connections": d.eight,
	}, "binary results", "types of one's own")
}

func (d psqlDriver) command(ctx context.Context, script io.Reader, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "psql"), "-XAtq")
	cmd.Stdin, cmd.WaitDelay = script, 5*time.Second
	cmd.Env = append(append(os.Environ(), d.env...), env...)
	return cmd
}

// run runs a script and returns what it prints.
func (d psqlDriver) run(t *testing.T, script string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := d.command(ctx, strings.NewReader(script), env...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("psql: %v", errors.Join(err, ctx.Err()))
	}
	return string(out)
}

// want fails the test unless the script, in which {k}, {k+1} and {k+2} are keys of the driver's own, prints this.
func (d psqlDriver) want(t *testing.T, script, want string, env ...string) {
	t.Helper()
	k := strings.NewReplacer("{k}", fmt.Sprint(d.base), "{k+1}", fmt.Sprint(d.base+1), "{k+2}", fmt.Sprint(d.base+2))
	if got, want := d.run(t, k.Replace(script), env...), k.Replace(want); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%.2000s\nprints:\n%.2000s\nwant:\n%.2000s", script, got, want)
	}
}

func (d psqlDriver) connects(t *testing.T) {
	d.want(t, "SELECT 42;", "42", "PGCHANNELBINDING=require")
	if out := d.run(t, "SELECT 42;", "PGSSLROOTCERT="+d.wrong); !strings.Contains(out, "certificate verify failed") {
		t.Error(out)
	}
	if out := d.run(t, "SELECT 42;", "PGPASSWORD=wrong"); !strings.Contains(out, `FATAL:  password authentication failed for user "app"`) {
		t.Error(out)
	}
	if out := d.run(t, "SELECT 42;", "PGSSLMODE=disable"); !strings.Contains(out, "TLS") {
		t.Error(out)
	}
}

func (d psqlDriver) rows(t *testing.T) {
	var insert, read, want strings.Builder
	for k := d.base; k < d.base+40; k++ {
		fmt.Fprintf(&insert, "INSERT INTO orders (customer_id, id, note) VALUES (%d, 1, 'note %d');\n", k, k)
		fmt.Fprintf(&read, "SELECT note FROM orders WHERE customer_id = %d;\n", k)
		fmt.Fprintf(&want, "note %d\n", k)
	}
	d.want(t, "CREATE TABLE things_psql (id int PRIMARY KEY, name text);\n"+insert.String()+read.String(), want.String())
	d.want(t, `UPDATE orders SET note = 'changed' WHERE customer_id = {k} RETURNING id;
		\set next {k+1}
		DELETE FROM orders WHERE customer_id = :next;
		\echo :ROW_COUNT
		SELECT note FROM orders WHERE customer_id = {k};`, "1\n1\nchanged")
	d.want(t, `\d orders`, `customer_id|bigint||not null|
id|integer||not null|
note|text|||
data|bytea|||`)
}

func (d psqlDriver) transactions(t *testing.T) {
	d.want(t, `BEGIN;
		INSERT INTO orders (customer_id, id, note) VALUES ({k}, 101, 'committed');
		COMMIT;
		BEGIN;
		INSERT INTO orders (customer_id, id, note) VALUES ({k}, 102, 'rolled back');
		SELECT id FROM orders WHERE customer_id = {k} AND id > 100 ORDER BY id;
		ROLLBACK;
		SELECT id FROM orders WHERE customer_id = {k} AND id > 100;
		BEGIN;
		INSERT INTO orders (customer_id, id, note) VALUES ({k}, 103, 'before the error');
		SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = {k};
		SELECT id FROM orders WHERE customer_id = {k};
		COMMIT;
		BEGIN;
		INSERT INTO orders (customer_id, id, note) VALUES ({k}, 104, 'kept');
		SAVEPOINT sp;
		INSERT INTO orders (customer_id, id, note) VALUES ({k}, 104, 'twice');
		ROLLBACK TO sp;
		INSERT INTO orders (customer_id, id, note) VALUES ({k}, 106, 'kept too');
		COMMIT;
		SELECT string_agg(note, ', ' ORDER BY id) FROM orders WHERE customer_id = {k} AND id > 100;`, `
101
102
101
ERROR:  division by zero
ERROR:  current transaction is aborted, commands ignored until end of transaction block
ERROR:  duplicate key value violates unique constraint "orders_pkey"
DETAIL:  Key (customer_id, id)=({k}, 104) already exists.
committed, kept, kept too`)
	// ON_ERROR_ROLLBACK puts a savepoint around every statement.
	d.want(t, `\set ON_ERROR_ROLLBACK on
		BEGIN;
		DELETE FROM orders WHERE customer_id = {k} AND id > 103;
		INSERT INTO orders (customer_id, id) VALUES ({k}, 101);
		COMMIT;
		SELECT count(*) FROM orders WHERE customer_id = {k} AND id > 100;`, `
ERROR:  duplicate key value violates unique constraint "orders_pkey"
DETAIL:  Key (customer_id, id)=({k}, 101) already exists.
1`)
}

func (d psqlDriver) prepared(t *testing.T) {
	var script, want strings.Builder
	script.WriteString("PREPARE by_key (bigint) AS SELECT note FROM orders WHERE customer_id = $1;\n")
	for i := range 200 {
		k := d.base + 2 + i%38
		fmt.Fprintf(&script, "EXECUTE by_key (%d);\n", k)
		fmt.Fprintf(&want, "note %d\n", k)
	}
	d.want(t, script.String()+"DEALLOCATE by_key; EXECUTE by_key (1);", want.String()+`ERROR:  prepared statement "by_key" does not exist`)
}

func (d psqlDriver) manyPrepared(t *testing.T) {
	var script, want strings.Builder
	for i := range 30 {
		fmt.Fprintf(&script, "PREPARE s%d (bigint) AS SELECT note || ' %d' FROM orders WHERE customer_id = $1;\n", i, i)
	}
	for i := range 90 {
		k := d.base + 2 + i%38
		fmt.Fprintf(&script, "EXECUTE s%d (%d);\n", i%30, k)
		fmt.Fprintf(&want, "note %d %d\n", k, i%30)
	}
	d.want(t, script.String()+"DEALLOCATE ALL;", want.String())
}

// Several statements in one request are the pipeline of psql.
func (d psqlDriver) batches(t *testing.T) {
	d.want(t, `SELECT 1 \; SELECT 2 \; SELECT 3;`, "1\n2\n3")
	d.want(t, `INSERT INTO things_psql SELECT i, 'thing ' || i FROM generate_series(1, 300) i \; SELECT count(*) FROM things_psql;`, "300")
	d.want(t, `UPDATE things_psql SET name = 'lost' WHERE id = 1 \; INSERT INTO things_psql VALUES (1, 'twice') \; UPDATE things_psql SET name = 'never' WHERE id = 1;
		SELECT name FROM things_psql WHERE id = 1;`, `
ERROR:  duplicate key value violates unique constraint "things_psql_pkey"
DETAIL:  Key (id)=(1) already exists.
thing 1`)
	d.want(t, "\\set FETCH_COUNT 70\nSELECT count(*) FROM things_psql; SELECT id FROM things_psql WHERE id BETWEEN 69 AND 72 ORDER BY id;", "300\n69\n70\n71\n72")
}

func (d psqlDriver) copyText() string {
	var all strings.Builder
	escape := strings.NewReplacer("\\", `\\`, "\t", `\t`, "\r", `\r`, "\n", `\n`)
	for i := range 2000 {
		value := `\N`
		if text := awkward(i); text != nil {
			value = escape.Replace(*text)
		}
		fmt.Fprintf(&all, "%d\t%s\n", i, value)
	}
	return all.String()
}

func (d psqlDriver) copyIn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows")
	if err := os.WriteFile(file, []byte(d.copyText()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.want(t, `TRUNCATE things_psql;
\copy things_psql FROM '`+file+`'
SELECT count(*) FROM things_psql;
COPY things_psql FROM STDIN;
3000	fine
1	twice
\.
SELECT count(*) FROM things_psql;`, `2000
ERROR:  duplicate key value violates unique constraint "things_psql_pkey"
DETAIL:  Key (id)=(1) already exists.
CONTEXT:  COPY things_psql, line 2
2000`)
}

func (d psqlDriver) copyOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows")
	d.want(t, `\copy (SELECT id, name FROM things_psql ORDER BY id) TO '`+file+"'", "")
	if got, err := os.ReadFile(file); err != nil || string(got) != d.copyText() {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	d.want(t, "COPY (SELECT id, name FROM things_psql ORDER BY id) TO STDOUT;", d.copyText())
}

// cancel sends the signal of Ctrl-C. A script ends by that.
func (d psqlDriver) cancel(t *testing.T, env ...string) {
	const slow = "SELECT pg_sleep(60) FROM one -- psql"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := d.command(ctx, strings.NewReader(slow+"\n;\nSELECT 'not reached';\n"), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if n := strings.TrimSpace(d.run(t, "SELECT count(*) FROM running WHERE query LIKE 'SELECT pg_sleep(60) FROM one -- psql%';")); n != "1" {
			return fmt.Errorf("%s run", n)
		}
		return nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !strings.Contains(out.String(), "ERROR:  canceling statement due to user request") || strings.Contains(out.String(), "not reached") {
		t.Errorf("psql: %s", out.String())
	}
}

func (d psqlDriver) listen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	script, say := io.Pipe()
	cmd := d.command(ctx, script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(say, "LISTEN psql;\n\\echo listens")
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "listens" {
		t.Fatalf("psql says %q, %v", lines.Text(), lines.Err())
	}
	d.want(t, "NOTIFY psql, 'hello é';", "")
	heard := false
	for range 200 { // psql looks for notifications after each statement
		fmt.Fprintln(say, "SELECT pg_sleep(0.05);\n\\echo looked")
		for lines.Scan() && lines.Text() != "looked" {
			heard = heard || strings.HasPrefix(lines.Text(), `Asynchronous notification "psql" with payload "hello é" received`)
		}
		if heard {
			break
		}
	}
	say.Close()
	if err := cmd.Wait(); err != nil || !heard {
		t.Errorf("no notification; psql ends with %v", err)
	}
}

func (d psqlDriver) errors(t *testing.T) {
	d.want(t, `INSERT INTO orders (customer_id, id) VALUES ({k+2}, 1);
\echo :SQLSTATE
SELCT 1;
\echo :SQLSTATE
SELECT nothing FROM one;
\echo :SQLSTATE
UPDATE orders SET note = 'all' WHERE id = 0;
\echo :SQLSTATE
DROP TABLE IF EXISTS not_there;`, `ERROR:  duplicate key value violates unique constraint "orders_pkey"
DETAIL:  Key (customer_id, id)=({k+2}, 1) already exists.
23505
ERROR:  syntax error at or near "SELCT"
LINE 1: SELCT 1;
        ^
42601
ERROR:  column "nothing" does not exist
LINE 1: SELECT nothing FROM one;
               ^
42703
ERROR:  the statement cannot be routed: table public.orders is sharded
DETAIL:  Table public.orders of keyspace app.orders is sharded by customer_id (bigint): no condition says which customer_id is meant.
HINT:  Add orders.customer_id = ... to WHERE, with a constant or a parameter. Or set cross_shard_writes = "2pc" for the database.
0A000
NOTICE:  table "not_there" does not exist, skipping`)
}

func (d psqlDriver) settings(t *testing.T) {
	var settings, want strings.Builder
	for k := d.base + 2; k < d.base+12; k++ {
		fmt.Fprintf(&settings, "SELECT current_setting('search_path') || ' ' || current_setting('TimeZone') FROM orders WHERE customer_id = %d;\n", k)
		want.WriteString("psql_schema, public Asia/Tokyo\n")
	}
	d.want(t, `SHOW statement_timeout;
		CREATE SCHEMA psql_schema CREATE TABLE mine (v text);
		SET search_path = psql_schema, public;
		SET TIME ZONE 'Asia/Tokyo';
		INSERT INTO mine VALUES ('seen');
		`+settings.String()+`
		SELECT v FROM mine;
		BEGIN;
		SET LOCAL TIME ZONE 'Europe/Paris';
		SHOW TimeZone;
		COMMIT;
		SHOW TimeZone;
		RESET ALL;
		SHOW search_path;
		\encoding LATIN1
		SHOW client_encoding;`, "12345ms\n"+want.String()+"seen\nEurope/Paris\nAsia/Tokyo\n\"$user\", public\nLATIN1", "PGOPTIONS=-c statement_timeout=12345")
}

// A value as psql puts it into a statement: in its text.
func (d psqlDriver) large(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	text := strings.Repeat(`é\'`, 1<<18)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []int{300, 301, 302} {
		key := fmt.Sprint(d.base + k)
		d.want(t, "\\set value `cat "+file+"`\nINSERT INTO orders (customer_id, id, note, data) VALUES ("+key+", 1, :'value', convert_to(:'value', 'UTF8'));\nSELECT note, length(data) FROM orders WHERE customer_id = "+key+";",
			text+"|"+fmt.Sprint(len(text)))
	}
}

func (d psqlDriver) eight(t *testing.T) {
	var wg sync.WaitGroup
	for n := range 8 {
		var script, want strings.Builder
		for k := d.base + 1000 + n*100; k < d.base+1025+n*100; k++ {
			fmt.Fprintf(&script, "INSERT INTO orders (customer_id, id, note) VALUES (%d, 1, 'note %d');\nSELECT note FROM orders WHERE customer_id = %d;\n", k, k, k)
			fmt.Fprintf(&want, "note %d\n", k)
		}
		wg.Go(func() { d.want(t, script.String(), want.String()) })
	}
	wg.Wait()
}

// testPgbench has pgbench check every row that it reads: one that is missing fails at \gset, a wrong one at the division.
func testPgbench(t *testing.T, a *account) {
	file := func(name, script string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(script, "{base}", fmt.Sprint(a.base))), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const fill = `\set k {base} + :client_id * 50 + :n
INSERT INTO orders (customer_id, id, note) VALUES (:k, 1, 'note ' || :k);
\set n :n + 1
`
	const read = `\set k {base} + random(0, 399)
SELECT substr(note, 6)::int AS v FROM orders WHERE customer_id = :k \gset
\set checked 1 / (case when :v = :k then 1 else 0 end)
`
	const write = `\set k {base} + :client_id * 50
BEGIN;
UPDATE orders SET data = 'x' WHERE customer_id = :k;
SELECT length(data) AS l FROM orders WHERE customer_id = :k \gset
\set checked 1 / (case when :l = 1 then 1 else 0 end)
UPDATE orders SET data = NULL WHERE customer_id = :k;
END;
`
	const pipeline = `\set k {base} + random(0, 399)
\startpipeline
SELECT note FROM orders WHERE customer_id = :k;
SELECT note, 1 / (case when note = 'note ' || :k then 1 else 0 end) FROM orders WHERE customer_id = :k;
\endpipeline
`
	bench := func(t *testing.T, each int, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(a.bin, "pgbench"), append([]string{"-n", "-c", "8", "-j", "2", "-t", fmt.Sprint(each)}, args...)...)
		cmd.Env = append(os.Environ(), a.env(t)...)
		out, err := cmd.CombinedOutput()
		m := regexp.MustCompile(`number of transactions actually processed: (\d+)`).FindSubmatch(out)
		if err != nil || bytes.Contains(out, []byte("aborted")) || m == nil || string(m[1]) != fmt.Sprint(8*each) {
			t.Errorf("pgbench %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	bench(t, 50, "-D", "n=0", "-f", file("fill.sql", fill))
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			bench(t, 100, "-M", mode, "-f", file("read.sql", read)+"@4", "-f", file("write.sql", write)+"@1")
			bench(t, 5, "-M", mode, "-C", "-f", file("read.sql", read))
			if mode != "simple" {
				bench(t, 100, "-M", mode, "-f", file("pipeline.sql", pipeline))
			}
		})
	}
}
