package wire_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/auth"
	"rangefinder/wire/pg"
)

// TestAskStored asks real servers what they keep, in ways that work and in ways that do not.
func TestAskStored(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, s := range servers(t) {
		if err := s.primary.Exec(t.Context(), "DO $$ BEGIN CREATE ROLE kept LOGIN PASSWORD 'md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"); err != nil {
			t.Fatal(err)
		}
		if err := s.replica.CaughtUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const good = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1"
	for name, c := range map[string]struct {
		sql, database, user string
		stored              string
		found               bool
		err                 string
	}{
		"found":                {good, "app", "kept", "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true, ""},
		"a quoted name":        {good, "app", `x' OR '1'='1`, "", false, ""},
		"nobody":               {good, "app", "nobody", "", false, ""},
		"no password":          {good, "app", "app", "", false, ""},
		"no client's database": {good, "postgres", "kept", "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true, ""},
		"a syntax error":       {"SELEKT $1", "app", "kept", "", false, "syntax error"},
		"several rows":         {"SELECT $1::text, 'x' FROM generate_series(1, 3)", "app", "kept", "", false, "must give one row"},
		"one column":           {"SELECT $1::text", "app", "kept", "", false, "must give one row"},
		"three columns":        {"SELECT $1::text, 'x', 'y'", "app", "kept", "", false, "must give one row"},
		"somebody else":        {"SELECT 'app', $1::text", "app", "kept", "", false, "must give one row"},
		"too long":             {"SELECT $1::text, repeat('x', 100000)", "app", "kept", "", false, "invalid message length"},
		"too slow":             {"SELECT $1::text, pg_sleep(60)::text", "app", "kept", "", false, "timeout"},
		"another database":     {good, "nowhere", "kept", "", false, `database "nowhere" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			limit := patience
			if name == "too slow" {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			stored, found, err := r.server.AskStored(ctx, &auth.Query{User: "postgres", SQL: c.sql}, c.database, c.user)
			if stored != c.stored || found != c.found || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v, %v", stored, found, err)
			}
		})
	}
	for _, p := range r.pools.Stats() {
		if p.InUse != 0 {
			t.Errorf("%s: %d connections were not given back", p.Backend, p.InUse)
		}
	}

	// A pause holds the question back, and gives up its place when the asker has no more time.
	admin := r.console(pgx.QueryExecModeSimpleProtocol)
	r.command(admin, "PAUSE app")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := r.server.AskStored(ctx, &auth.Query{User: "postgres", SQL: good}, "app", "kept"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("in a pause: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, found, err := r.server.AskStored(ctxOf(t), &auth.Query{User: "postgres", SQL: good}, "app", "kept")
		if err == nil && !found {
			err = errors.New("not found")
		}
		done <- err
	}()
	r.command(admin, "RESUME app")
	if err := <-done; err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

// TestAskStoredWithAFullPool: users are looked up also while sessions have all connections.
func TestAskStoredWithAFullPool(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, wait: patience})
	ctx := ctxOf(t)
	r.crowd()
	soon, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, found, err := r.server.AskStored(soon, &auth.Query{User: "postgres", SQL: "SELECT rolname, rolname FROM pg_roles WHERE rolname = $1"}, "app", "app"); err != nil || !found {
		t.Errorf("%v, %v", found, err)
	}
}

// TestAskStoredOfAStranger: whatever a server says that is none, the question ends, and the connection is not used again.
func TestAskStoredOfAStranger(t *testing.T) {
	row := func(values ...string) *pgproto3.DataRow {
		d := new(pgproto3.DataRow)
		for _, v := range values {
			d.Values = append(d.Values, []byte(v))
		}
		return d
	}
	read := pgtest.ExpectType(&pgproto3.Sync{})
	for name, c := range map[string]struct {
		script pgtest.Script
		err    string
	}{
		"garbage":               {pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), read, pgtest.SendBytes([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), pgtest.ExpectEOF()}, "backend strange"},
		"a row without its end": {pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), read, pgtest.Send(row("kept", "md5")), pgtest.Close()}, "EOF"},
		"a row that is none":    {pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), read, pgtest.SendBytes([]byte{'D', 0, 0, 0, 6, 0xff, 0xff}), pgtest.ExpectEOF()}, "insufficient data"},
		"silence":               {pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), read, pgtest.Hang()}, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := pgtest.NewFake(t, c.script)
			r := newRig(t, rigOptions{backends: []rib.Backend{{Name: "strange", Shard: "shard_1", Region: "fra", Addr: fake.Addr()}}})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, found, err := r.server.AskStored(ctx, &auth.Query{User: "q", SQL: "SELECT $1"}, "app", "kept")
			if found || err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("found %v, %v", found, err)
			}
			for _, p := range r.pools.Stats() {
				if p.InUse+p.Idle != 0 {
					t.Errorf("a connection is kept: %+v", p)
				}
			}
			var told *pg.Error
			if errors.As(err, &told) {
				t.Errorf("taken for an answer: %v", told)
			}
		})
	}
}
