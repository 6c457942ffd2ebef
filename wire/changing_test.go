package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Statements that change rows in WITH run on each shard by themselves where their parts meet by the key, once, in one transaction.
func TestChangesInWithOverShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "CREATE TABLE archive (customer_id bigint, id bigint, item text, PRIMARY KEY (customer_id, id))", "GRANT ALL ON archive TO app"); err != nil {
			t.Fatal(err)
		}
	}
	s.own(func(o *rib.Ownership) {
		o.Catalog++
		o.Keyspaces[0].Tables = append(o.Keyspaces[0].Tables, rib.KeyedTable{Schema: "public", Name: "archive", Columns: []string{"customer_id"}})
	})
	on := func(want string, sql string) {
		t.Helper()
		if each, _ := s.onShards(t, sql); fmt.Sprint(each) != want {
			t.Errorf("%s: %v, want %s", sql, each, want)
		}
	}
	for _, mode := range queryModes {
		t.Run(mode.String(), func(t *testing.T) {
			s.t, s.conn = t, s.connect(mode)
			s.exec("DELETE FROM orders")
			s.exec("DELETE FROM archive")
			for i := range 6 {
				s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, 'x')", []int64{s.one, s.two}[i%2], i)
			}
			tag, err := s.conn.Exec(s.ctx, "WITH x AS (DELETE FROM orders WHERE id < $1 RETURNING *) INSERT INTO archive (customer_id, id, item) SELECT customer_id, id, item || '!' FROM x", 3)
			if err != nil || tag.String() != "INSERT 0 3" {
				t.Errorf("%s, %v", tag, err)
			}
			on("[1 2]", "SELECT count(*) FROM orders")
			on("[2 1]", "SELECT count(*) FROM archive WHERE item = 'x!'")
			if got := s.read("WITH x AS (UPDATE orders SET item = 'y' WHERE id <> $1 RETURNING id) SELECT count(*)::text, sum(id)::text FROM x", 4); got != "2|8" {
				t.Error(got)
			}
			on("[0 2]", "SELECT count(*) FROM orders WHERE item = 'y'")
			if got := s.read("WITH gone AS (DELETE FROM archive RETURNING id, item) SELECT id::text, item FROM gone ORDER BY id DESC LIMIT 2"); got != "2|x!,1|x!" {
				t.Error(got)
			}
			on("[0 0]", "SELECT count(*) FROM archive")
			got := s.read("WITH x AS (DELETE FROM orders WHERE id = 4 RETURNING customer_id, id), y AS (INSERT INTO archive (customer_id, id) SELECT customer_id, id FROM x RETURNING *) " +
				"SELECT y.id::text, o.id::text FROM y LEFT JOIN orders o ON o.customer_id = y.customer_id AND o.id = 4")
			if got != "4|4" { // all parts see what was there before
				t.Error(got)
			}
			if tag, err = s.conn.Exec(s.ctx, "WITH x AS (DELETE FROM orders RETURNING *) UPDATE archive a SET item = 'z' FROM x WHERE a.customer_id = x.customer_id"); err != nil || tag.String() != "UPDATE 0" {
				t.Errorf("%s, %v", tag, err)
			}
			on("[0 0]", "SELECT count(*) FROM orders")
			// One key is one shard's.
			s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 1)", s.one, s.two)
			s.exec("SET rangefinder.cross_shard_writes = 'refuse'")
			s.exec("WITH x AS (DELETE FROM orders WHERE customer_id = $1 RETURNING *) INSERT INTO archive (customer_id, id) SELECT customer_id, id FROM x", s.two)
			on("[1 0]", "SELECT count(*) FROM orders")
			_, err = s.conn.Exec(s.ctx, "WITH x AS (DELETE FROM orders RETURNING *) INSERT INTO archive (customer_id, id) SELECT customer_id, id FROM x")
			wantCode(t, err, pg.CodeFeatureNotSupported)
			s.exec("RESET rangefinder.cross_shard_writes")
			// An error on one shard undoes all.
			s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 7), ($2, 7)", s.one, s.two)
			s.exec("INSERT INTO archive (customer_id, id) VALUES ($1, 7)", s.two)
			_, err = s.conn.Exec(s.ctx, "WITH x AS (DELETE FROM orders WHERE id = 7 RETURNING *) INSERT INTO archive (customer_id, id) SELECT customer_id, id FROM x")
			wantCode(t, err, "23505")
			on("[1 1]", "SELECT count(*) FROM orders WHERE id = 7")
			s.busy(t, 0)
		})
	}
	for sql, why := range map[string]string{
		"WITH x AS (DELETE FROM orders RETURNING id) INSERT INTO archive (customer_id, id) SELECT id, id FROM x":                                      "column of which no value is known",
		"WITH x AS (DELETE FROM orders RETURNING id AS customer_id, id) INSERT INTO archive (customer_id, id) SELECT customer_id, id FROM x":          "column of which no value is known",
		"WITH x AS (DELETE FROM orders o USING archive a WHERE a.id = o.id RETURNING o.*) SELECT * FROM x":                                            "he part x of WITH changes rows, which cannot be done on each shard by itself",
		"WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x JOIN archive a ON a.id = x.id":                                                    "not joined by their keys",
		fmt.Sprintf("WITH x AS (INSERT INTO orders (customer_id, id) VALUES (%d, 50), (%d, 50) RETURNING *) SELECT * FROM x", s.one, s.two):           "given as values",
		fmt.Sprintf("WITH x AS (DELETE FROM orders RETURNING *) INSERT INTO archive (customer_id, id) VALUES (%d, 90), (%d, 90)", s.one, s.two):       "given as values",
		"WITH x AS (DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 1) RETURNING *) SELECT count(*) FROM x":                   "he part x of WITH changes rows",
		"WITH x AS (INSERT INTO archive (customer_id, id) SELECT customer_id, id FROM orders ORDER BY id LIMIT 1 RETURNING *) SELECT count(*) FROM x": "rows of several shards",
		"WITH x AS (DELETE FROM orders RETURNING *) SELECT id FROM x UNION ALL SELECT id FROM archive":                                                "set operation",
	} {
		_, err := s.conn.Exec(s.ctx, sql)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, why) {
			t.Errorf("%s: %+v", sql, e)
		}
	}
	s.busy(t, 0)
}
