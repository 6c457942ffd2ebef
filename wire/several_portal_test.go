package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// bound is a Bind without parameters, of the statement without a name to the portal without one.
var bound = []byte{'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0}

// raw takes the client's connection over. What it returns sends messages as they are, and tells the types of what comes up to the next ReadyForQuery,
// with the tags and the codes of the errors.
func (s *spread) raw() (exchange func(messages []byte) string) {
	s.t.Helper()
	conn := pgtest.Hijack(s.ctx, s.t, s.conn.PgConn())
	return func(messages []byte) string {
		s.t.Helper()
		if _, err := conn.Write(messages); err != nil {
			s.t.Fatal(err)
		}
		var got []string
		for in := []byte(nil); ; {
			room := make([]byte, 4096)
			n, err := conn.Read(room)
			if err != nil {
				s.t.Fatalf("behind %s: %v", strings.Join(got, " "), err)
			}
			in = append(in, room[:n]...)
			for {
				typ, n, err := pg.Next(in, 1<<20)
				if err != nil {
					s.t.Fatal(err)
				}
				if n == 0 {
					break
				}
				body, what := in[pg.HeaderSize:n], string(typ)
				switch typ {
				case pg.TypeCommandComplete:
					what += "(" + string(pg.CommandTag(body)) + ")"
				case pg.TypeErrorResponse:
					e, err := pg.DecodeError(body)
					if err != nil {
						s.t.Fatal(err)
					}
					what += "(" + e.Code + ")"
				case pg.TypeReadyForQuery:
					return strings.Join(append(got, what), " ")
				}
				got, in = append(got, what), in[n:]
			}
		}
	}
}

// A portal over several shards whose rows all fit its limit is at its end, by whichever way it goes away then.
func TestRowLimitIsNotReached(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2), ($2, 3)", s.one, s.two)
	exchange := s.raw()
	run := func(sql string, limit uint32) []byte {
		return pg.AppendExecute(append(pg.AppendParse(nil, "", sql, nil), bound...), "", limit)
	}
	for _, c := range []struct {
		sql  string
		max  uint32
		want string
	}{
		{"SELECT id FROM orders WHERE id < 0", 3, "1 2 C(SELECT 0)"},
		{"SELECT id FROM orders", 10, "1 2 D D D C(SELECT 3)"},
		{"SELECT id FROM orders", 3, "1 2 D D D C(SELECT 3)"},
		{"SELECT count(*) FROM orders", 10, "1 2 D C(SELECT 1)"},
		{"SELECT id FROM orders", 2, "1 2 D D s"},
	} {
		for how, more := range map[string]struct {
			raw  []byte
			want string
		}{
			"Sync":  {nil, ""},
			"Close": {pg.AppendClose(nil, pg.KindPortal, ""), " 3"},
			"Bind":  {bound, " 2"},
		} {
			if got := exchange(pg.AppendSync(append(run(c.sql, c.max), more.raw...))); got != c.want+more.want+" Z" {
				t.Errorf("%s, at most %d, then %s: %s", c.sql, c.max, how, got)
			}
		}
	}
	exchange(pg.AppendQuery(nil, "BEGIN"))
	for _, key := range []int64{s.one, s.two} {
		exchange(pg.AppendQuery(nil, fmt.Sprintf("SELECT FROM orders WHERE customer_id = %d", key)))
	}
	if got := exchange(pg.AppendSync(run("SELECT id FROM orders", 10))); got != "1 2 D D D C(SELECT 3) Z" {
		t.Error(got)
	}
	if got := exchange(pg.AppendQuery(nil, "COMMIT")); got != "C(COMMIT) Z" {
		t.Error(got)
	}
	s.busy(t, 0)
}

// What a portal with a row limit does is done once, and its tags are the statement's.
func TestLimitedPortalWritesOnce(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2), ($2, 3)", s.one, s.two)
	exchange := s.raw()
	for _, c := range []struct{ sql, want string }{
		{"UPDATE orders SET item = coalesce(item, '') || 'x'", "1 2 C(UPDATE 3) E(55000) Z"},
		{fmt.Sprintf("UPDATE orders SET customer_id = %d WHERE id = 1", s.two), "1 2 C(UPDATE 1) E(55000) Z"}, // the row moves
		{"UPDATE orders SET item = 'x' RETURNING id", "1 2 D D s D C(UPDATE 1) C(UPDATE 0) Z"},
		{"SELECT id FROM orders", "1 2 D D s D C(SELECT 1) C(SELECT 0) Z"},
	} {
		raw := append(pg.AppendParse(nil, "", c.sql, nil), bound...)
		for range 3 {
			raw = pg.AppendExecute(raw, "", 2)
		}
		exchange(pg.AppendQuery(nil, "BEGIN"))
		if got := exchange(pg.AppendSync(raw)); got != c.want {
			t.Errorf("%s: %s, want %s", c.sql, got, c.want)
		}
		exchange(pg.AppendQuery(nil, "ROLLBACK"))
	}
	s.busy(t, 0)
}

// Portals that were bound since a savepoint go with what is rolled back to it.
func TestPortalsOfSavepoints(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2), ($2, 3), ($1, 4), ($2, 5), ($1, 6)", s.one, s.two)
	exchange := s.raw()
	bind := func(portal string) []byte {
		return append([]byte{'B', 0, 0, 0, byte(12 + len(portal))}, portal+"\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	open := func(portal string) []byte {
		return pg.AppendSync(pg.AppendExecute(append(pg.AppendParse(nil, "", "SELECT id FROM orders", nil), bind(portal)...), portal, 1))
	}
	more := func(portal string) []byte { return pg.AppendSync(pg.AppendExecute(nil, portal, 1)) }
	query := func(sql string) []byte { return pg.AppendQuery(nil, sql) }
	for _, step := range []struct {
		messages []byte
		want     string
	}{
		{query("BEGIN"), "C(BEGIN) Z"},
		{open("before"), "1 2 D s Z"},
		{query("SAVEPOINT a"), "C(SAVEPOINT) Z"},
		{open("within"), "1 2 D s Z"},
		{more("within"), "D s Z"},
		{query("SAVEPOINT b"), "C(SAVEPOINT) Z"},
		{open("kept"), "1 2 D s Z"},
		{query("RELEASE b"), "C(RELEASE) Z"},
		{query("SAVEPOINT c"), "C(SAVEPOINT) Z"},
		{query("ROLLBACK TO c"), "C(ROLLBACK) Z"},
		{more("kept"), "D s Z"},
		{query("ROLLBACK TO a"), "C(ROLLBACK) Z"},
		{more("before"), "D s Z"},
		{more("within"), "E(34000) Z"},
		{query("ROLLBACK TO a"), "C(ROLLBACK) Z"},
		{more("kept"), "E(34000) Z"},
		{query("ROLLBACK"), "C(ROLLBACK) Z"},
	} {
		if got := exchange(step.messages); got != step.want {
			t.Fatalf("%q: %s, want %s", step.messages, got, step.want)
		}
	}
	s.busy(t, 0)
}
