package wire_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// twoMeanings has a second table named orders, in schema s2, which is not sharded. The search_path tells which is meant.
func twoMeanings(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, rigOptions{})
	for _, s := range r.servers {
		if err := s.primary.ExecIn(ctxOf(t), "app", "CREATE SCHEMA s2", "GRANT ALL ON SCHEMA s2 TO app", "CREATE TABLE s2.orders (LIKE public.orders)", "GRANT ALL ON s2.orders TO app"); err != nil {
			t.Fatal(err)
		}
		if err := s.replica.CaughtUp(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// meant tells which rows are where: those of the sharded table by shard, those of the other one by shard.
func (r *rig) meant(t *testing.T) string {
	t.Helper()
	var found []string
	for _, table := range []string{"public.orders", "s2.orders"} {
		for _, s := range r.servers {
			conn, err := s.primary.ConnTo(ctxOf(t), "app", "")
			if err != nil {
				t.Fatal(err)
			}
			var ids string
			if err := conn.QueryRow(ctxOf(t), "SELECT coalesce(string_agg(item, ',' ORDER BY item), '-') FROM "+table).Scan(&ids); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctxOf(t), "TRUNCATE "+table); err != nil {
				t.Fatal(err)
			}
			conn.Close(context.Background())
			found = append(found, ids)
		}
	}
	return strings.Join(found, " ")
}

// What follows a statement that changes what names mean, before any Sync, is routed by what they will mean then.
func TestNamesThatChangeInAPipeline(t *testing.T) {
	r := twoMeanings(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	insert := "INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, '%s')"
	const (
		sharded = "one two - -"
		other   = "- - one,two -"
		neither = "- - - -" // it was refused
	)
	for _, c := range []struct {
		before, pipeline []string
		want             string
	}{
		{nil, []string{"SET search_path = s2", insert}, other},
		{nil, []string{"SET search_path = public", insert}, sharded},
		{nil, []string{"SELECT set_config('search_path', 's2', false)", insert}, other},
		{nil, []string{"BEGIN", "SET search_path = s2", insert, "COMMIT"}, other},
		{nil, []string{"BEGIN", "SET LOCAL search_path = s2", insert, "COMMIT"}, other},
		{nil, []string{"BEGIN", "SELECT set_config('search_path', 's2', true)", insert, "COMMIT"}, other},
		{nil, []string{"SET LOCAL search_path = s2", insert}, other},
		{nil, []string{"SELECT set_config('search_path', 's2', true)", insert}, other},
		{nil, []string{"SELECT set_config('search_path', (SELECT 's2'), false)", insert}, neither},
		{[]string{"SET search_path = s2"}, []string{"RESET search_path", insert}, sharded},
		{[]string{"SET search_path = s2"}, []string{"SET search_path TO DEFAULT", insert}, sharded},
		{[]string{"SET search_path = s2"}, []string{"RESET ALL", insert}, sharded},
		{[]string{"SET search_path = s2"}, []string{"DISCARD ALL", insert}, sharded},
		{[]string{"SET search_path = s2", "BEGIN"}, []string{"SET LOCAL search_path TO DEFAULT", insert, "COMMIT"}, sharded},
		{[]string{"BEGIN", "SET LOCAL search_path = s2", "SELECT count(*) FROM orders"}, []string{"COMMIT", insert}, sharded},
		{[]string{"BEGIN", "SET search_path = s2", "SELECT count(*) FROM orders"}, []string{"ROLLBACK", insert}, sharded},
		{[]string{"BEGIN", "SET search_path = s2", "SELECT count(*) FROM orders"}, []string{"COMMIT", insert}, other},
		{[]string{"BEGIN", "SET search_path = s2"}, []string{"ROLLBACK", insert}, sharded},
		{[]string{"BEGIN", "SAVEPOINT a", "SET search_path = s2", "SELECT count(*) FROM orders WHERE customer_id = 1"}, []string{"ROLLBACK TO a", "SET LOCAL search_path = s2", insert, "COMMIT"}, other},
		{nil, []string{"BEGIN", "SET LOCAL search_path = s2", "SAVEPOINT a", "SET search_path = public", "ROLLBACK TO a", insert, "COMMIT"}, other},
		{[]string{"SET search_path = s2"}, []string{"SAVEPOINT a", insert}, neither},
		{nil, []string{"SET search_path = s2", "SELECT 1/0", insert}, neither},
	} {
		for _, named := range []string{"", "p"} {
			t.Run(strings.Join(c.pipeline, "; ")+named, func(t *testing.T) {
				for i, key := range []int64{one, two} {
					conn := r.connect(pgx.QueryExecModeSimpleProtocol)
					r.exec(conn, c.before...)
					var b []byte
					for n, sql := range c.pipeline {
						if sql == insert {
							sql = fmt.Sprintf(insert, key, []string{"one", "two"}[i])
						}
						name := named
						if name != "" {
							name += fmt.Sprint(n)
						}
						b = append(b, msg(parse(name, sql), bind("", name), run("", 0))...)
					}
					raw := pgtest.Hijack(ctxOf(t), t, conn.PgConn())
					readiness(t, raw, msg(b, syncs()))
					raw.Close()
				}
				if got := r.meant(t); got != c.want {
					t.Errorf("rows %s, want %s", got, c.want)
				}
			})
		}
	}
}

// readiness sends messages, and waits for ReadyForQuery.
func readiness(t *testing.T, conn net.Conn, messages []byte) {
	t.Helper()
	if _, err := conn.Write(messages); err != nil {
		t.Fatal(err)
	}
	var buf []byte
	for {
		typ, n, err := pg.Next(buf, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if typ == pg.TypeErrorResponse {
				e, err := pg.DecodeError(buf[pg.HeaderSize:n])
				t.Log(e, err)
			}
			if buf = buf[n:]; typ == pg.TypeReadyForQuery {
				return
			}
			continue
		}
		more := make([]byte, 4096)
		if n, err = conn.Read(more); err != nil {
			t.Fatal(err)
		}
		buf = append(buf, more[:n]...)
	}
}
