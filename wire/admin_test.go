package wire_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/console"
)

// console connects to the console.
func (r *rig) console(mode pgx.QueryExecMode) *pgx.Conn {
	r.t.Helper()
	cfg, err := pgx.ParseConfig(r.dsnOf(console.Name))
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(ctxOf(r.t), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (r *rig) command(conn *pgx.Conn, command string) {
	r.t.Helper()
	if _, err := conn.Exec(ctxOf(r.t), command); err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
}

// until waits for a state of the server.
func (r *rig) until(what string, ok func(*console.Snapshot) bool) {
	r.t.Helper()
	pgtest.Eventually(r.t, patience, func() error {
		if s := r.server.Snapshot(); !ok(s) {
			return fmt.Errorf("never %s: clients %+v, servers %+v, databases %+v", what, s.Clients, s.Servers, s.Databases)
		}
		return nil
	})
}

func clientsIn(state console.State) func(*console.Snapshot) bool {
	return func(s *console.Snapshot) bool { return countClients(s, state) > 0 }
}

func countClients(s *console.Snapshot, state console.State) (n int) {
	for _, c := range s.Clients {
		if c.Database == "app" && c.State == state {
			n++
		}
	}
	return n
}

func paused(want bool) func(*console.Snapshot) bool {
	return func(s *console.Snapshot) bool {
		for _, d := range s.Databases {
			if d.Name == "app" && d.Paused != want {
				return false
			}
		}
		return true
	}
}

func TestConsoleWithPgx(t *testing.T) {
	r := newRig(t, rigOptions{})
	app := r.connect(pgx.QueryExecModeCacheStatement)
	if _, err := app.Exec(ctxOf(t), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			conn := r.console(mode)
			if err := conn.Ping(ctxOf(t)); err != nil {
				t.Error(err)
			}
			var version string
			if err := conn.QueryRow(ctxOf(t), "SHOW VERSION;").Scan(&version); err != nil || version != "Rangefinder test" {
				t.Errorf("%q %v", version, err)
			}
			var database, user, poolMode string
			var clActive, clWaiting, svActive, svIdle, svLogin, maxwait, maxwaitUS int
			rows, _ := conn.Query(ctxOf(t), "show pools")
			found := false
			_, err := pgx.ForEachRow(rows, []any{&database, &user, &clActive, &clWaiting, &svActive, &svIdle, &svLogin, &maxwait, &maxwaitUS, &poolMode}, func() error {
				found = found || database == "app" && user == "app" && clActive == 1 && svActive == 0 && svIdle >= 1 && poolMode == "transaction"
				return nil
			})
			if err != nil || !found {
				t.Errorf("no pool of app with an idle connection; %v", err)
			}
			if _, err := conn.Exec(ctxOf(t), "SELECT * FROM orders"); codeOf(err) != "42601" {
				t.Error(err)
			}
			if _, err := conn.Exec(ctxOf(t), "PAUSE nowhere"); codeOf(err) != "3D000" {
				t.Error(err)
			}
			if _, err := conn.Exec(ctxOf(t), "RESUME app"); codeOf(err) != "55000" {
				t.Error(err)
			}
		})
	}
}

func TestConsoleShowsWhatClientsDo(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	ctx := ctxOf(t)
	client := func(s *console.Snapshot, conn *pgx.Conn) console.Client {
		for _, c := range s.Clients {
			if c.ID == conn.PgConn().PID() {
				return c
			}
		}
		t.Fatalf("client %d is not shown", conn.PgConn().PID())
		return console.Client{}
	}
	one, two := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	if c := client(r.server.Snapshot(), one); c.State != console.Idle || c.User != testUser || c.Addr != one.PgConn().Conn().LocalAddr().String() || !c.Requested.Equal(c.Connected) {
		t.Errorf("%+v", c)
	}
	tx, err := one.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var pid uint32
	if err := tx.QueryRow(ctx, "INSERT INTO notes VALUES (9, 'x') RETURNING pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	s := r.server.Snapshot()
	c := client(s, one)
	if c.State != console.Active || c.Backend != "shard_1-primary" || c.Server == 0 || !c.Requested.After(c.Connected) {
		t.Errorf("%+v", c)
	}
	linked := false
	for _, v := range s.Servers {
		linked = linked || v.ID == c.Server && v.Client == c.ID && v.PID == pid && !v.Idle && v.Backend == "shard_1-primary" && v.Shard == "shard_1" && v.Addr == servers(t)[0].primary.Addr()
	}
	if !linked {
		t.Errorf("server %d is not linked to client %d: %+v", c.Server, c.ID, s.Servers)
	}

	done := make(chan error, 1)
	go func() {
		_, err := two.Exec(ctx, "INSERT INTO notes VALUES (1, 'x')")
		done <- err
	}()
	r.until("waiting", clientsIn(console.Waiting))
	if c := client(r.server.Snapshot(), two); c.State != console.Waiting || c.Server != 0 {
		t.Errorf("%+v", c)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := one.Exec(ctx, "CREATE TEMP TABLE mine (i int)"); err != nil {
		t.Fatal(err)
	}
	if c := client(r.server.Snapshot(), one); c.Pinned == "" || c.State != console.Active {
		t.Errorf("%+v", c)
	}
	if _, err := one.Exec(ctx, "DISCARD ALL"); err != nil {
		t.Fatal(err)
	}
	r.until("unpinned", func(s *console.Snapshot) bool { c := client(s, one); return c.Pinned == "" && c.State == console.Idle })
	for _, d := range r.server.Snapshot().Databases {
		if d.Name == "app" && d.Totals.Wait <= 0 || d.Name == "other" && d.Totals != (console.Totals{}) {
			t.Errorf("%+v", d)
		}
	}
}

func TestConsoleCounts(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	totals := func() console.Totals {
		for _, d := range r.server.Snapshot().Databases {
			if d.Name == "app" {
				return d.Totals
			}
		}
		return console.Totals{}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	was := totals()
	for range 5 {
		if _, err := conn.Exec(ctx, "SELECT body FROM notes"); err != nil {
			t.Fatal(err)
		}
	}
	now := totals()
	const bytes = uint64(5 * (5 + len("SELECT body FROM notes") + 1))
	if now.Queries-was.Queries != 5 || now.Transactions-was.Transactions != 5 || now.Received-was.Received != bytes || now.Sent-was.Sent < bytes {
		t.Errorf("from %+v to %+v", was, now)
	}
	was = now
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES ($1, 'x')", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	now = totals()
	if now.Queries-was.Queries != 5 || now.Transactions-was.Transactions != 1 { // the BEGIN too, which the node answered itself
		t.Errorf("from %+v to %+v", was, now)
	}
	conn.Close(ctx)
	r.until("gone", func(s *console.Snapshot) bool { return len(s.Clients) == 0 })
	if after := totals(); after.Queries != now.Queries || after.Received < now.Received {
		t.Errorf("from %+v to %+v", now, after)
	}
}
