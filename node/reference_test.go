package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestReferenceWritesOnRealPostgreSQL: what writes a reference table does the same on every shard, in one transaction, and the client hears
// of it once.
func TestReferenceWritesOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "CREATE TABLE calls (customer_id bigint NOT NULL, id int, country text)", "GRANT ALL ON calls TO app", "GRANT SELECT ON calls TO probe",
		"CREATE TABLE countries (code text PRIMARY KEY, name text, number bigint)", "GRANT ALL ON countries TO app", "GRANT SELECT ON countries TO probe",
		"GRANT CREATE ON DATABASE app TO probe", "GRANT app TO probe")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.calls", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3")
	n.mustAdmin(t, "keyspace", "create", "app.countries", "--reference", "--shards", "shard_1,shard_2,shard_3")
	n.sees(t, "app.calls")
	n.sees(t, "app.countries")
	conn := n.connect(t)
	everywhere := func(want string) {
		t.Helper()
		for i, s := range c.servers {
			admin, err := s.ConnTo(t.Context(), "app", "")
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if err := admin.QueryRow(t.Context(), "SELECT coalesce(string_agg(code || '=' || coalesce(name, ''), ' ' ORDER BY code), '') FROM countries").Scan(&got); err != nil || got != want {
				t.Errorf("shard_%d has %q, want %q; %v", i+1, got, want, err)
			}
			_ = admin.Close(t.Context())
		}
	}
	_, err := conn.Exec(t.Context(), "INSERT INTO countries (code) VALUES ('xx')")
	if code, text := sqlState(err); code != "0A000" {
		t.Errorf("without cross_shard_writes: %s %s", code, text)
	}
	everywhere("")
	exec := func(mode pgx.QueryExecMode, want, sql string, args ...any) {
		t.Helper()
		tag, err := conn.Exec(t.Context(), sql, append([]any{mode}, args...)...)
		if code, text := sqlState(err); err != nil || tag.String() != want {
			t.Fatalf("%v: %s: %s, %s %s; want %s", mode, sql, tag, code, text, want)
		}
	}
	exec(pgx.QueryExecModeSimpleProtocol, "SET", "SET rangefinder.cross_shard_writes = '2pc'")
	pgtest.Eventually(t, 20*time.Second, func() error { return conn.QueryRow(t.Context(), "SELECT rangefinder.unique_id()").Scan(new(int64)) })
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		exec(mode, "INSERT 0 2", "INSERT INTO countries (code, name) VALUES ('de', 'Germany'), ($1, 'France')", "fr")
		everywhere("de=Germany fr=France")
		var name string
		if err := conn.QueryRow(t.Context(), "SELECT name FROM countries WHERE code = $1", mode, "fr").Scan(&name); err != nil || name != "France" {
			t.Errorf("%v: read back %q, %v", mode, name, err)
		}
		rows, err := conn.Query(t.Context(), "UPDATE countries SET name = upper(name) WHERE code >= $1 RETURNING code", mode, "de")
		if err != nil {
			t.Fatal(err)
		}
		if list, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(list) != 2 || rows.CommandTag().String() != "UPDATE 2" {
			code, text := sqlState(err)
			t.Errorf("%v: RETURNING gave %v, %s, %s %s", mode, list, rows.CommandTag(), code, text)
		}
		everywhere("de=GERMANY fr=FRANCE")
		// In a transaction with others, also taken back.
		for _, end := range []string{"ROLLBACK", "COMMIT"} {
			exec(mode, "BEGIN", "BEGIN")
			exec(mode, "INSERT 0 1", "INSERT INTO calls (customer_id, id, country) VALUES ($1, 1, 'it')", int64(42))
			exec(mode, "INSERT 0 1", "INSERT INTO countries (code, name) VALUES ('it', 'Italy')")
			if err := conn.QueryRow(t.Context(), "SELECT c.name FROM calls JOIN countries c ON c.code = country WHERE customer_id = $1 LIMIT 1", mode, int64(42)).Scan(&name); err != nil || name != "Italy" {
				t.Errorf("%v: within the transaction %q, %v", mode, name, err)
			}
			if err := conn.QueryRow(t.Context(), "SELECT name FROM countries WHERE code = 'it'", mode).Scan(&name); err != nil || name != "Italy" {
				t.Errorf("%v: within the transaction %q, %v", mode, name, err)
			}
			exec(mode, end, end)
			if end == "ROLLBACK" {
				everywhere("de=GERMANY fr=FRANCE")
			}
		}
		everywhere("de=GERMANY fr=FRANCE it=Italy")
		exec(mode, "DELETE 3", "DELETE FROM countries WHERE code <> $1", "none")
		everywhere("")
		// One shard that cannot do it keeps all from it.
		if err := c.servers[2].ExecIn(t.Context(), "app", "INSERT INTO countries VALUES ('xx', 'only here')"); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(t.Context(), "INSERT INTO countries (code) VALUES ('xx')", mode)
		if code, text := sqlState(err); code != "23505" {
			t.Errorf("%v: %s %s", mode, code, text)
		}
		if err := c.servers[2].ExecIn(t.Context(), "app", "DELETE FROM countries"); err != nil {
			t.Fatal(err)
		}
		everywhere("")
		exec(mode, "INSERT 0 1", "INSERT INTO countries (code, name, number) VALUES ('uk', 'UK', rangefinder.unique_id())")
		numbers := make(map[int64]bool)
		for _, s := range c.servers {
			admin, err := s.ConnTo(t.Context(), "app", "")
			if err != nil {
				t.Fatal(err)
			}
			var number int64
			if err := admin.QueryRow(t.Context(), "SELECT number FROM countries").Scan(&number); err != nil {
				t.Error(err)
			}
			numbers[number] = true
			_ = admin.Close(t.Context())
		}
		if len(numbers) != 1 {
			t.Errorf("%v: the copies differ: %v", mode, numbers)
		}
		exec(mode, "DELETE 1", "DELETE FROM countries")
	}
	// Joined with sharded rows of all shards.
	exec(pgx.QueryExecModeExec, "INSERT 0 1", "INSERT INTO countries (code, name) VALUES ('it', 'Italy')")
	for i := range 20 {
		exec(pgx.QueryExecModeExec, "INSERT 0 1", "INSERT INTO calls (customer_id, id, country) VALUES ($1, 2, 'it')", int64(1000+i))
	}
	var calls int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM calls JOIN countries ON code = country WHERE id = 2 AND name = 'Italy'").Scan(&calls); err != nil || calls != 20 {
		t.Errorf("%d calls, %v", calls, err)
	}
	if _, out, errs := n.admin("keyspace", "check", "app.countries"); errs != "" {
		t.Errorf("%s%s", out, fmt.Sprint(errs))
	}
}
