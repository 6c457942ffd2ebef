package wire_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// An UPDATE of pg_settings is another SET, which nobody can follow.
func TestUpdateOfSettings(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	for _, sql := range []string{"UPDATE pg_settings SET setting = '3333' WHERE name = 'work_mem'", "UPDATE pg_catalog.pg_settings SET setting = 's2' WHERE name = 'search_path'"} {
		_, err := conn.Exec(ctxOf(t), sql)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); e.Hint == "" {
			t.Error("no hint")
		}
	}
}

// SET LOCAL search_path TO DEFAULT is the session's default, not an empty path.
func TestLocalDefaultPath(t *testing.T) {
	r := newRig(t, rigOptions{})
	two := r.keyOn("shard_2", 1)
	for _, sql := range []string{"SET LOCAL search_path TO DEFAULT", "SELECT set_config('search_path', NULL, true)"} {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		r.exec(conn, "SET search_path = pg_catalog", "BEGIN", sql)
		if _, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", two); err != nil {
			t.Fatal(err)
		}
		r.exec(conn, "ROLLBACK")
	}
}

// COMMIT AND CHAIN keeps what SET TRANSACTION has said, also where the block was open nowhere.
func TestChainKeepsModes(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, first := range [][]string{
		{"BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"},
		{"BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY"},
		{"BEGIN", "SET LOCAL work_mem = '5MB'", "SET transaction_isolation = 'serializable'", "SAVEPOINT a", "SET TRANSACTION READ ONLY", "ROLLBACK TO a", "SET TRANSACTION READ ONLY", "COMMIT AND CHAIN"},
	} {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		r.exec(conn, first...)
		r.exec(conn, "COMMIT AND CHAIN")
		var got string
		if err := conn.QueryRow(ctxOf(t), "SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('work_mem')) FROM notes UNION ALL SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('work_mem'))").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != "serializable on 4MB" {
			t.Errorf("%v: %s", first, got)
		}
		_, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')")
		wantCode(t, err, "25006")
	}
}
