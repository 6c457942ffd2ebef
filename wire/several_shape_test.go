package wire_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// A prepared statement whose columns have changed since its client was told them is refused, as by PostgreSQL, also on several shards.
func TestChangedResultOverShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	conn := s.connect(pgx.QueryExecModeCacheStatement)
	type query struct {
		sql  string
		args []any
	}
	queries := []query{{"SELECT * FROM orders WHERE id > $1", []any{0}}, {"SELECT * FROM orders WHERE customer_id = $1 FOR SHARE", []any{s.two}}}
	ask := func(q query) error {
		_, err := conn.Exec(s.ctx, q.sql, q.args...)
		return err
	}
	begin := func() {
		if err := ask(query{"BEGIN", nil}); err != nil {
			t.Fatal(err)
		}
		if err := ask(query{"SELECT id FROM orders FOR SHARE", nil}); err != nil {
			t.Fatal(err)
		}
	}
	rollback := func() {
		if err := ask(query{"ROLLBACK", nil}); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	for _, q := range queries {
		if err := ask(q); err != nil {
			t.Fatal(err)
		}
	}
	rollback()
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "ALTER TABLE orders ADD COLUMN more int"); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range queries {
		begin()
		err := ask(q)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); e.Message != "cached plan must not change result type" {
			t.Errorf("%+v", e)
		}
		rollback()
		if err := ask(q); err != nil { // pgx has prepared it anew
			t.Error(err)
		}
	}
	s.busy(t, 0)
}
