package wire_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Drivers set several parameters in one query when they have connected. That must not tie the session to a server connection.
func TestSettingsInOneQuery(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	ctx := ctxOf(t)
	a, b := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
	here, there := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	const what = "current_setting('statement_timeout') || ' ' || current_setting('lock_timeout') || ' ' || current_setting('search_path')"
	on := func(conn *pgx.Conn, want string) {
		t.Helper()
		for _, key := range []int64{here, there} {
			var got string
			if err := conn.QueryRow(ctx, "SELECT "+what+" FROM (SELECT count(*) FROM public.orders WHERE customer_id = $1) x", key).Scan(&got); err != nil || got != want {
				t.Errorf("%q (%v), want %q", got, err, want)
			}
		}
	}
	exec := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	fails := func(sql string) {
		t.Helper()
		if _, err := a.PgConn().Exec(ctx, sql).ReadAll(); err == nil {
			t.Errorf("%s went through", sql)
		}
	}
	var path string
	if err := a.QueryRow(ctx, "SHOW search_path").Scan(&path); err != nil {
		t.Fatal(err)
	}
	exec(a, "SET statement_timeout = '11s'; SHOW work_mem; /* a comment */ SET lock_timeout = '7s' -- another\n; SET search_path = app")
	for range 2 {
		on(a, "11s 7s app")
		on(b, "0 0 "+path)
	}
	fails("SET statement_timeout = '12s'; SET lock_timeout = 'never'; SET search_path = public") // all or none
	on(a, "11s 7s app")
	exec(a, "RESET lock_timeout; SET statement_timeout = '13s'")
	on(a, "13s 0 app")
	exec(a, "BEGIN") // of which no server hears yet
	exec(a, "SET statement_timeout = '14s'; SET lock_timeout = '8s'")
	var got string
	if err := a.QueryRow(ctx, "SELECT "+what+" FROM (SELECT count(*) FROM public.orders WHERE customer_id = $1) x", there).Scan(&got); err != nil || got != "14s 8s app" {
		t.Errorf("in a block: %q, %v", got, err)
	}
	exec(a, "SET statement_timeout = '15s'; SET lock_timeout = '9s'")
	exec(a, "ROLLBACK")
	on(a, "13s 0 app")
	exec(a, "BEGIN")
	fails("SET statement_timeout = '14s'; SET lock_timeout = 'never'")
	fails("SELECT 1")
	exec(a, "ROLLBACK")
	on(a, "13s 0 app")
	on(b, "0 0 "+path)
}

// A client may spell its encoding as PostgreSQL lets it; it is told the name, and its statements are read.
func TestSpellingsOfUTF8(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, spelled := range []string{"'utf-8'", "utf_8", "Unicode", "UTF8", `"UTF8"`} {
		cfg, err := pgx.ParseConfig(r.dsn())
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["client_encoding"] = spelled
		conn, err := pgx.ConnectConfig(ctxOf(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		var got string
		if err := conn.QueryRow(ctxOf(t), "SELECT 'é'").Scan(&got); err != nil || got != "é" || conn.PgConn().ParameterStatus("client_encoding") != "UTF8" {
			t.Errorf("%s: %q (%v); the client is told %q", spelled, got, err, conn.PgConn().ParameterStatus("client_encoding"))
		}
	}
}

// Pools clean what they get back in one query, as asyncpg does. It is carried out as a whole, and the session is free afterwards.
func TestCleaningInOneQuery(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 2})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	other := r.connect(pgx.QueryExecModeSimpleProtocol)
	exec := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(conn, "LISTEN cleaned")
	exec(other, "NOTIFY cleaned, 'before'")
	if n, err := conn.WaitForNotification(ctx); err != nil || n.Payload != "before" {
		t.Fatalf("%+v, %v", n, err)
	}
	const clean = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
	exec(conn, "SET statement_timeout = '11s'; SET lock_timeout = '7s'")
	if _, err := conn.PgConn().Exec(ctx, clean+" SELECT 1/0").ReadAll(); err == nil {
		t.Fatal("no error")
	}
	exec(other, "NOTIFY cleaned, 'still'")
	if n, err := conn.WaitForNotification(ctx); err != nil || n.Payload != "still" {
		t.Fatalf("%+v, %v", n, err)
	}
	show := func() (v string) {
		t.Helper()
		if err := conn.QueryRow(ctx, "SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout')").Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := show(); v != "11s 7s" {
		t.Errorf("after an error: %s", v)
	}
	exec(conn, clean)
	if v := show(); v != "0 0" {
		t.Errorf("after cleaning: %s", v)
	}
	for _, shard := range []string{"shard_1", "shard_2"} { // it is tied to neither
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", r.keyOn(shard, 1)).Scan(&n); err != nil {
			t.Error(err)
		}
	}
	exec(other, "NOTIFY cleaned, 'after'")
	exec(conn, "LISTEN another")
	exec(other, "NOTIFY another, 'last'")
	if n, err := conn.WaitForNotification(ctx); err != nil || n.Payload != "last" {
		t.Errorf("%+v, %v", n, err)
	}
	exec(conn, "BEGIN") // of which no server hears yet
	exec(conn, "SET lock_timeout = '3s'; INSERT INTO notes VALUES (77, 'x'); SET statement_timeout = '4s'")
	exec(conn, "ROLLBACK")
	if v := show(); v != "0 0" {
		t.Errorf("after ROLLBACK: %s", v)
	}
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM notes WHERE id = 77").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows were left by a block that was rolled back, %v", n, err)
	}
}

// With one server connection for all, nothing of one session shows in another.
func TestSettingsFollowTheSession(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	ctx := ctxOf(t)
	a, b := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeCacheStatement)
	show := func(conn *pgx.Conn, what string) (v string) {
		t.Helper()
		if err := conn.QueryRow(ctx, "SHOW "+what).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	r.exec(a, "SET statement_timeout = '11s' -- a comment")
	r.exec(b, "SET work_mem = '5MB'")
	for range 3 {
		if v := show(a, "statement_timeout"); v != "11s" {
			t.Errorf("a's setting is %s", v)
		}
		if v := show(b, "statement_timeout"); v != "0" {
			t.Errorf("a's setting shows in b: %s", v)
		}
		if v := show(b, "work_mem"); v != "5MB" {
			t.Errorf("b's setting is %s", v)
		}
	}
	r.exec(a, "BEGIN")
	r.exec(a, "SET statement_timeout = '12s'")
	r.exec(a, "INSERT INTO notes VALUES (1, 'x')")
	r.exec(a, "SET lock_timeout = '3s'")
	r.exec(a, "ROLLBACK")
	if v := show(a, "statement_timeout"); v != "11s" {
		t.Errorf("after ROLLBACK: %s", v)
	}
	if v := show(a, "lock_timeout"); v != "0" {
		t.Errorf("after ROLLBACK: %s", v)
	}
	r.exec(a, "BEGIN")
	r.exec(a, "SET LOCAL statement_timeout = '13s'")
	if v := show(a, "statement_timeout"); v != "13s" {
		t.Errorf("SET LOCAL in a block that is open nowhere yet: %s", v)
	}
	r.exec(a, "INSERT INTO notes VALUES (1, 'x')")
	if v := show(a, "statement_timeout"); v != "13s" {
		t.Errorf("SET LOCAL before the block was open: %s", v)
	}
	r.exec(a, "SET lock_timeout = '3s'")
	r.exec(a, "COMMIT")
	if v := show(a, "statement_timeout"); v != "11s" {
		t.Errorf("after COMMIT: %s", v)
	}
	if v := show(a, "lock_timeout"); v != "3s" {
		t.Errorf("after COMMIT: %s", v)
	}
	if v := show(b, "lock_timeout"); v != "0" {
		t.Errorf("a's setting shows in b: %s", v)
	}
	r.exec(a, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if v := show(a, "transaction_isolation") + ", read only " + show(a, "transaction_read_only"); v != "repeatable read, read only on" {
		t.Errorf("a block that is open nowhere yet is %s", v)
	}
	r.exec(a, "COMMIT")
	r.exec(a, "RESET statement_timeout")
	if v := show(a, "statement_timeout"); v != "0" {
		t.Errorf("after RESET: %s", v)
	}
	r.exec(a, "RESET ALL")
	if v := show(a, "lock_timeout"); v != "0" {
		t.Errorf("after RESET ALL: %s", v)
	}
	r.exec(a, "SET TIME ZONE 'Asia/Tokyo'")
	if v := a.PgConn().ParameterStatus("TimeZone"); v != "Asia/Tokyo" {
		t.Errorf("the client was told %s", v)
	}
	show(b, "TimeZone")
	if v := b.PgConn().ParameterStatus("TimeZone"); v == "Asia/Tokyo" {
		t.Error("b was told of a's time zone")
	}
}
