package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// What stands in a text behind the end of a block that has failed is carried out wherever it belongs, whatever the block has failed by and
// wherever it was open; and so it is in a pipeline.
func TestTextGoesOnBehindTheEndOfAFailedBlock(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", s.one, s.two)
	lose := func(shards ...int) {
		t.Helper()
		for _, i := range shards {
			if err := s.servers[i].primary.ExecIn(s.ctx, "app", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in transaction%'"); err != nil {
				t.Fatal(err)
			}
		}
	}
	of := func(key int64) string { return fmt.Sprintf("SELECT id FROM orders WHERE customer_id = %d", key) }
	write := func(key int64) string { return fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", key) }
	queries := func(exchange func([]byte) string, list ...string) (last string) {
		t.Helper()
		for _, sql := range list {
			last = exchange(pg.AppendQuery(nil, sql))
		}
		return last
	}
	for how, fail := range map[string]func(exchange func([]byte) string){
		"an error on one shard": func(x func([]byte) string) {
			queries(x, "BEGIN", write(s.one), "SELECT 1/0 FROM orders WHERE customer_id = "+fmt.Sprint(s.one))
		},
		"an error on two shards": func(x func([]byte) string) { queries(x, "BEGIN", write(s.one), write(s.two), "SELECT 1/0 FROM orders") },
		"an error before any shard": func(x func([]byte) string) {
			queries(x, "BEGIN", "SET SESSION rangefinder.no_such = 1", "SELECT no_such_column FROM orders")
		},
		"one shard of two lost": func(x func([]byte) string) {
			queries(x, "BEGIN", write(s.one), write(s.two))
			lose(1)
			queries(x, write(s.two))
		},
		"both shards lost": func(x func([]byte) string) {
			queries(x, "BEGIN", write(s.one), write(s.two))
			lose(0, 1)
			queries(x, write(s.two))
		},
		"the only shard lost":           func(x func([]byte) string) { queries(x, "BEGIN", write(s.one)); lose(0); queries(x, write(s.one)) },
		"one shard of two lost, unseen": func(x func([]byte) string) { queries(x, "BEGIN", write(s.one), write(s.two)); lose(0) },
	} {
		t.Run(how, func(t *testing.T) {
			for _, c := range []struct {
				send []byte
				want string
				then string // a block's status by what SELECT 1 does in it
			}{
				{simple("ROLLBACK; " + of(s.two)), "C(ROLLBACK) T D C(SELECT 1) Z", "T D C(SELECT 1) Z"},
				{simple("ROLLBACK; SELECT count(*) FROM orders"), "C(ROLLBACK) T D C(SELECT 1) Z", "T D C(SELECT 1) Z"},
				{simple("ROLLBACK; BEGIN; " + of(s.two) + "; " + of(s.one)), "C(ROLLBACK) C(BEGIN) T D C(SELECT 1) T D C(SELECT 1) Z", "T D C(SELECT 1) Z"},
				{simple("ROLLBACK; " + write(s.two) + "; SELECT 1/0; SELECT 2"), "C(ROLLBACK) C(UPDATE 1) E(22012) Z", "T D C(SELECT 1) Z"},
				{simple("ABORT; BEGIN; SELECT 1/0 FROM orders; ROLLBACK"), "C(ROLLBACK) C(BEGIN) E(22012) Z", "E(25P02) Z"},
				{msg(extended("ROLLBACK"), extended(of(s.two)), syncs()), "1 2 n C(ROLLBACK) 1 2 T D C(SELECT 1) Z", "T D C(SELECT 1) Z"},
				{msg(extended("ROLLBACK"), extended("BEGIN"), extended(of(s.two)), syncs()), "1 2 n C(ROLLBACK) 1 2 n C(BEGIN) 1 2 T D C(SELECT 1) Z", "T D C(SELECT 1) Z"},
			} {
				s.conn = s.connect(pgx.QueryExecModeSimpleProtocol)
				exchange := s.raw()
				fail(exchange)
				if got := exchange(c.send); got != c.want {
					t.Errorf("%q: %s, want %s", c.send, got, c.want)
				}
				if got := queries(exchange, "SELECT 1"); got != c.then {
					t.Errorf("%q, then: %s, want %s", c.send, got, c.then)
				}
				queries(exchange, "ROLLBACK")
				if got := queries(exchange, of(s.one)); got != "T D C(SELECT 1) Z" {
					t.Errorf("%q, at last: %s", c.send, got)
				}
			}
		})
	}
	s.busy(t, 0)
}

// Messages that end in a Flush keep a block on its shard up to the Sync, and not longer.
func TestBlockGoesOnBehindTheSyncOfAFlush(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", s.one, s.two)
	exchange := s.raw()
	of := func(key int64) string { return fmt.Sprintf("SELECT id FROM orders WHERE customer_id = %d", key) }
	for _, c := range []struct {
		send []byte
		want string
	}{
		{simple("BEGIN"), "C(BEGIN) Z"},
		{msg(extended(of(s.one)), flush(), extended(of(s.one)), syncs()), "1 2 T D C(SELECT 1) 1 2 T D C(SELECT 1) Z"},
		{msg(extended(of(s.two)), syncs()), "1 2 T D C(SELECT 1) Z"},
		{simple("SELECT count(*) FROM orders"), "T D C(SELECT 1) Z"},
		{simple("COMMIT"), "C(COMMIT) Z"},
		{simple("BEGIN"), "C(BEGIN) Z"},
		{msg(extended(of(s.one)), flush(), extended("SELECT 1/0"), syncs()), "1 2 T D C(SELECT 1) 1 E(22012) Z"},
		{msg(extended("ROLLBACK"), extended(of(s.two)), syncs()), "1 2 n C(ROLLBACK) 1 2 T D C(SELECT 1) Z"},
	} {
		if got := exchange(c.send); got != c.want {
			t.Errorf("%q: %s, want %s", c.send, got, c.want)
		}
	}
	s.busy(t, 0)
}
