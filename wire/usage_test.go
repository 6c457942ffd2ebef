package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// shownStatements is SHOW STATEMENTS without its times: calls, errors, shards, rows and text.
func shownStatements(t *testing.T, conn *pgx.Conn) map[string]string {
	t.Helper()
	rows, err := conn.Query(ctxOf(t), "SHOW STATEMENTS")
	if err != nil {
		t.Fatal(err)
	}
	list := make(map[string]string)
	var database, text string
	var calls, errors, shards, count, total, mean, longest int64
	_, err = pgx.ForEachRow(rows, []any{&database, &calls, &errors, &shards, &count, &total, &mean, &longest, &text}, func() error {
		if calls > 0 && (longest > total || mean > longest) {
			t.Errorf("%s took %d, %d a call, %d the longest", text, total, mean, longest)
		}
		list[text] = fmt.Sprintf("%s: %d calls, %d errors, %d shards, %d rows", database, calls, errors, shards, count)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The console shows the statements that were run, however they came: each kind with its calls, errors, shards and rows.
func TestShowStatements(t *testing.T) {
	r := newRig(t, rigOptions{})
	admin := r.console(pgx.QueryExecModeSimpleProtocol)
	r.command(admin, "RESET STATEMENTS")
	simple, prepared := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeCacheStatement)
	ctx := ctxOf(t)
	for i := range 5 {
		if _, err := simple.Exec(ctx, fmt.Sprintf("SELECT g FROM generate_series(1, %d) AS g", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := prepared.Exec(ctx, "SELECT $1::int", i); err != nil {
			t.Fatal(err)
		}
		if _, err := simple.Exec(ctx, fmt.Sprintf("SELECT 1 / (%d * 0)", i)); err == nil {
			t.Fatal("no error")
		}
		if _, err := prepared.Exec(ctx, "SELECT 1 / ($1 * 0)", i); err == nil {
			t.Fatal("no error")
		}
	}
	batch := &pgx.Batch{}
	for range 3 {
		batch.Queue("VALUES (1), (2)")
	}
	if err := prepared.SendBatch(ctx, batch).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := simple.Exec(ctx, "SELECT 1; SELECT 2"); err != nil {
		t.Fatal(err)
	}
	if _, err := simple.Exec(ctx, "SELECT count(*) FROM orders WHERE id > 7"); err != nil {
		t.Fatal(err)
	}
	if _, err := prepared.Exec(ctx, "COPY orders TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	got := shownStatements(t, admin)
	for text, want := range map[string]string{
		"SELECT g FROM generate_series(?, ?) AS g": "app: 5 calls, 0 errors, 5 shards, 10 rows",
		"SELECT $1::int":                           "app: 5 calls, 0 errors, 5 shards, 5 rows",
		"SELECT ? / (? * ?)":                       "app: 0 calls, 5 errors, 0 shards, 0 rows",
		"SELECT $2 / ($1 * $3)":                    "app: 0 calls, 5 errors, 0 shards, 0 rows",
		"SELECT count(*) FROM orders WHERE id > ?": "app: 1 calls, 0 errors, 2 shards, 1 rows",
		"COPY orders TO STDOUT":                    "app: 1 calls, 0 errors, 2 shards, 0 rows",
		"VALUES (?), (?)":                          "app: 3 calls, 0 errors, 3 shards, 6 rows",
		"SELECT ?; SELECT ?":                       "app: 1 calls, 0 errors, 1 shards, 2 rows",
	} {
		if got[text] != want {
			t.Errorf("%s: %q, want %q", text, got[text], want)
		}
	}
	if t.Failed() {
		for text, counted := range got {
			t.Logf("%s: %s", counted, text)
		}
	}
	r.command(admin, "RESET STATEMENTS")
	for text := range shownStatements(t, admin) {
		if strings.Contains(text, "generate_series") {
			t.Errorf("after RESET there is %s", text)
		}
	}
}
