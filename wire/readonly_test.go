package wire_test

import (
	"strings"
	"testing"

	"rangefinder/wire/pg"
)

// In a transaction that is READ ONLY, what several shards are asked runs on copies, as what one is asked does.
func TestReadOnlyOverShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", s.one, s.two)
	for _, server := range s.servers {
		if err := server.replica.CaughtUp(s.ctx); err != nil {
			t.Fatal(err)
		}
	}
	const where = "SELECT current_setting('in_hot_standby') FROM orders"
	for _, mode := range queryModes {
		s.conn = s.connect(mode)
		for begin, want := range map[string]string{"BEGIN READ ONLY": "on,on", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY": "on,on", "BEGIN": "off,off"} {
			s.exec(begin)
			if got := s.read(where); got != want {
				t.Errorf("%s, %s: %s, want %s", mode, begin, got, want)
			}
			if got := s.read("SELECT count(*)::text FROM orders"); got != "2" {
				t.Errorf("%s, %s: %s rows", mode, begin, got)
			}
			if _, err := s.conn.Exec(s.ctx, "DELETE FROM orders"); want == "on,on" {
				wantCode(t, err, pg.CodeReadOnlyTransaction)
			} else if err != nil {
				t.Error(err)
			}
			s.exec("ROLLBACK")
		}
	}
	s.conn = s.connect(queryModes[4])
	exchange := s.raw() // what comes behind a Flush may be a write
	raw := append(pg.AppendParse(nil, "", where, nil), bound...)
	if got := exchange(append(pg.AppendFlush(pg.AppendExecute(raw, "", 0)), pg.AppendQuery(nil, "DELETE FROM orders")...)); !strings.HasSuffix(got, "C(DELETE 2) Z") {
		t.Error(got)
	}
	s.busy(t, 0)
}
