package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestSchemasOnRealPostgreSQL: schemas with all that is in them are on the shards that a keyspace by schema gives them.
func TestSchemasOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	n := c.follower(t)
	on := func(shard int, sql ...string) {
		t.Helper()
		if err := c.servers[shard].ExecIn(t.Context(), "app", sql...); err != nil {
			t.Fatal(err)
		}
	}
	c.everywhere(t, "GRANT CREATE ON DATABASE app TO app")
	on(0, "CREATE SCHEMA t2", "CREATE TABLE t2.stray (id int)")
	create := []string{"keyspace", "create", "app.tenants", "--by-schema", "--value", "t1=shard_1", "--value", "t2=shard_2", "--value", "t3=shard_3"}
	if code, _, errs := n.admin(create...); code == 0 || !strings.Contains(errs, `schema "t2" is here, with 1 tables and the like, and would belong to shard_2`) {
		t.Errorf("exit %d: %s", code, errs)
	}
	on(0, "DROP SCHEMA t2 CASCADE")
	if out := n.mustAdmin(t, create...); !strings.Contains(out, "3 schemas") {
		t.Error(out)
	}
	n.sees(t, "app.tenants")
	conn := n.connect(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			code, text := sqlState(err)
			t.Fatalf("%s: %s %s", sql, code, text)
		}
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec}
	for i := 1; i <= 3; i++ {
		schema := fmt.Sprintf("t%d", i)
		exec("CREATE SCHEMA "+schema, pgx.QueryExecModeSimpleProtocol)
		exec("SET search_path = " + schema)
		exec("CREATE TABLE orders (id serial PRIMARY KEY, item text)")
		for _, mode := range modes {
			exec("INSERT INTO orders (item) VALUES ($1)", mode, schema)
		}
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("copied\n"), "COPY orders (item) FROM STDIN"); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i <= 3; i++ {
		schema := fmt.Sprintf("t%d", i)
		admin, err := c.servers[i-1].ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		var rows int
		if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM "+schema+".orders").Scan(&rows); err != nil || rows != 4 {
			t.Errorf("shard_%d has %d rows in %s, %v", i, rows, schema, err)
		}
		_ = admin.Close(t.Context())
		for _, mode := range modes {
			exec("SET search_path = " + schema)
			for _, sql := range []string{"SELECT count(*) FROM orders WHERE id > $1", "SELECT count(*) FROM " + schema + ".orders WHERE id > $1"} {
				if err := conn.QueryRow(t.Context(), sql, mode, 0).Scan(&rows); err != nil || rows != 4 {
					t.Errorf("%s: %s with path %s: %d, %v", mode, sql, schema, rows, err)
				}
			}
		}
	}
	_, err := conn.Exec(t.Context(), "SELECT * FROM t1.orders, t2.orders")
	if code, text := sqlState(err); code != "0A000" || !strings.Contains(text, "Schema t1 is on shard_1, and t2 on shard_2") {
		t.Errorf("two schemas of different shards: %s %s", code, text)
	}
	if _, err := conn.Prepare(t.Context(), "held", "SELECT item FROM t2.orders WHERE id = $1"); err != nil { // only prepared, it must be where the schema is
		t.Error(err)
	}
	if code, out, errs := n.admin("keyspace", "check", "app.tenants"); code != 0 || !strings.Contains(out, "no errors") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	// What all schemas need is whole on all shards, and their tables may refer to it there.
	c.everywhere(t, "CREATE TABLE countries (code text PRIMARY KEY, name text)", "GRANT ALL ON countries TO app", "GRANT SELECT ON countries TO probe", "GRANT CREATE ON DATABASE app TO probe")
	n.mustAdmin(t, "keyspace", "create", "app.countries", "--reference", "--shards", "shard_1,shard_2,shard_3")
	n.sees(t, "app.countries")
	exec("SET rangefinder.cross_shard_writes = '2pc'", pgx.QueryExecModeSimpleProtocol)
	exec("INSERT INTO public.countries VALUES ('de', 'Germany'), ('fr', 'France'), ('nl', 'Netherlands')")
	fails := func(want, sql string, args ...any) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql, args...)
		if code, text := sqlState(err); code != want {
			t.Errorf("%s: %s %s, not %s", sql, code, text, want)
		}
	}
	for i := 1; i <= 3; i++ {
		exec(fmt.Sprintf("SET search_path = t%d, public", i))
		exec("CREATE TABLE addresses (id int PRIMARY KEY, country text NOT NULL REFERENCES countries)")
		exec("ALTER TABLE orders ADD COLUMN country text REFERENCES public.countries ON DELETE SET NULL")
		for at, mode := range modes {
			exec("INSERT INTO addresses VALUES ($1, 'de')", mode, at)
			fails("23503", "INSERT INTO addresses VALUES ($1, 'xx')", mode, 10+at)
			fails("23503", "UPDATE orders SET country = 'xx' WHERE id = $1", mode, at+1)
		}
		exec("UPDATE orders SET country = 'fr'")
	}
	fails("23503", "DELETE FROM public.countries WHERE code = 'de'") // on no shard
	exec("DELETE FROM public.countries WHERE code = 'fr'")
	for i, s := range c.servers {
		admin, err := s.ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		var codes string
		var addresses, without int
		err = admin.QueryRow(t.Context(), fmt.Sprintf("SELECT (SELECT string_agg(code, ' ' ORDER BY code) FROM countries), (SELECT count(*) FROM t%[1]d.addresses), (SELECT count(*) FROM t%[1]d.orders WHERE country IS NULL)", i+1)).
			Scan(&codes, &addresses, &without)
		_ = admin.Close(t.Context())
		if err != nil || codes != "de nl" || addresses != len(modes) || without != 4 {
			t.Errorf("shard_%d: countries %s, %d addresses, %d orders of none, %v", i+1, codes, addresses, without, err)
		}
	}
	for _, ks := range []string{"app.countries", "app.tenants"} {
		if code, out, errs := n.admin("keyspace", "check", ks); code != 0 || !strings.Contains(out, "no errors") {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	}
	exec("SET search_path = public")
	// A schema that is listed later.
	n.mustAdmin(t, "keyspace", "add", "app.tenants", "--value", "t4=shard_2")
	pgtest.Eventually(t, 10*time.Second, func() error {
		if ks := n.sees(t, "app.tenants"); len(ks.Ranges) != 9 {
			return fmt.Errorf("%d ranges", len(ks.Ranges))
		}
		return nil
	})
	exec("CREATE SCHEMA t4")
	exec("CREATE TABLE t4.orders (id int)")
	on(1, "SELECT * FROM t4.orders")
	if out := n.mustAdmin(t, "keyspace", "show", "app.tenants"); !strings.Contains(out, "t4") || !strings.Contains(out, "schema") {
		t.Error(out)
	}
}
