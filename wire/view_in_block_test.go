package wire_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// A view of a sharded table that was made in the transaction is not read on one shard, where it has that shard's rows alone; all else goes on.
func TestViewThatWasMadeInTheTransaction(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		conn := r.connect(mode)
		for sql, refused := range map[string]bool{
			"SELECT count(*) FROM seen":                        true,
			"SELECT count(*) FROM \"seen\" s":                  true,
			"DECLARE c CURSOR FOR SELECT * FROM public.SEEN":   true,
			"INSERT INTO seen (customer_id, id) VALUES (1, 1)": true,
			"SELECT count(*) FROM notes":                       false,
			"SELECT count(*) FROM orders":                      false,
			"DROP VIEW seen":                                   false,
		} {
			tx, err := conn.Begin(ctxOf(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctxOf(t), "CREATE VIEW seen AS SELECT customer_id, id FROM orders"); err != nil {
				t.Fatal(err)
			}
			_, err = tx.Exec(ctxOf(t), sql)
			switch {
			case refused:
				if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "COMMIT") {
					t.Errorf("%s: %+v", sql, e)
				}
			case err != nil:
				t.Errorf("%s: %v", sql, err)
			}
			if err := tx.Rollback(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close(ctxOf(t))
	}
	r.busy(t, 0)
}
