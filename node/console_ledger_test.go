package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// TestRangesChangeHandsBySQL does by psql, through a node that does not lead, what the command line does.
func TestRangesChangeHandsBySQL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ops.password")
	if err := os.WriteFile(file, []byte(opsPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	c := startMovable(t, func(cfg *Config) {
		cfg.Users = append(cfg.Users, User{Name: "ops", SecretRef: SecretRef{PasswordFile: file}})
		cfg.Console.Users = []string{"ops"}
	})
	c.accounts(t)
	n := c.follower(t)
	run := func(command string) string {
		t.Helper()
		out, err := n.consolePsql(t, "ops", opsPassword, command)
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return out
	}
	refused := func(command string, want ...string) {
		t.Helper()
		out, err := n.consolePsql(t, "ops", opsPassword, `\set VERBOSITY verbose`+"\n"+command)
		if err == nil {
			t.Errorf("%s: not refused:\n%s", command, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", command, w, out)
			}
		}
	}
	shows := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}

	shows(run("SHOW KEYSPACES;"), "app.accounts|app|range|bigint|public.accounts (id)|3|shard_1, shard_2, shard_3", "(1 row)")
	shows(run("SHOW RANGES;"), "keyspace|range|shard|epoch", "app.accounts|..1000|shard_1|1/", "app.accounts|1000..2000|shard_2|1/", "(3 rows)")
	shows(run("SPLIT RANGE app.accounts AT 5, -5 REASON 'small ones';"), "app.accounts|..-5|shard_1|", "app.accounts|-5..5|shard_1|", "app.accounts|5..1000|shard_1|", "(3 rows)")
	merged := run("MERGE RANGE app.accounts -5..1000;")
	shows(merged, "app.accounts|-5..1000|shard_1|", "(1 row)")
	if strings.Contains(merged, "interpret") { // psql says so of a tag whose count is none
		t.Errorf("a tag that clients do not take:\n%s", merged)
	}
	pgtest.Eventually(t, 10*time.Second, func() error { // this node follows what the leader has done
		if out := run("SHOW RANGES app.accounts;"); !strings.Contains(out, "(4 rows)") {
			return fmt.Errorf("not the ranges of after the merge:\n%s", out)
		}
		return nil
	})
	history := run("SHOW HISTORY app.accounts LIMIT 2;")
	shows(history, "|merge|app.accounts|-5..1000|", "|split|app.accounts|", "|console user ops|small ones|", "(2 rows)")

	// An empty range for a time, and what holds rows.
	shows(run("MAP RANGE 1000-2000 TO shard_3 TTL 3600 REASON 'for an hour';"), "app.accounts|1000..2000|shard_2|shard_3|yes|")
	n.owner(t, "app.accounts", "1500", "shard_3")
	shows(run("SHOW LENT;"), "app.accounts|1000..2000|shard_3|shard_2|", "(1 row)")
	conn := n.connect(t)
	for _, id := range []int{10, 1500} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("INSERT INTO accounts (id, balance) VALUES (%d, 7)", id)); err != nil {
			t.Fatal(err)
		}
	}
	c.settled(t)
	refused("MAP RANGE 1000-2000 TO shard_1;", "55000", "holds 1 rows on shard_3", "rangefinder move start app.accounts 1000..2000 --to shard_1")

	// A move with rows.
	out := run("MOVE app.accounts 1000-2000 TO shard_2 REASON 'it''s full';")
	id := regexp.MustCompile(`(?m)^(\d+)\|app\.accounts\|1000\.\.2000\|shard_3\|shard_2\|`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no move in\n%s", out)
	}
	n.owner(t, "app.accounts", "1500", "shard_2")
	pgtest.Eventually(t, 30*time.Second, func() error {
		if out := run("SHOW MOVES " + id[1] + ";"); !strings.Contains(out, "|over|flipped|100|") {
			return fmt.Errorf("it is not over: %s", out)
		}
		return nil
	})
	var balance int
	if err := conn.QueryRow(t.Context(), "SELECT balance FROM accounts WHERE id = 1500").Scan(&balance); err != nil || balance != 7 {
		t.Errorf("%d %v", balance, err)
	}
	shows(run("SHOW HISTORY;"), "|move.start prepare|app.accounts|1000..2000|shard_3|shard_2|"+id[1]+"|console user ops|it's full|")

	// One that is held up by a pause, seen, and aborted.
	out = run("MOVE app.accounts -5..1000 TO shard_2;")
	id = regexp.MustCompile(`(?m)^(\d+)\|app\.accounts\|-5\.\.1000\|shard_1\|shard_2\|`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no move in\n%s", out)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { // the mover may not have taken it up yet
		out, err := n.consolePsql(t, "ops", opsPassword, "PAUSE MOVE "+id[1]+";")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	shows(run("SHOW MOVES;"), id[1]+"|app.accounts|-5..1000|shard_1|shard_2|prepare|", "|yes|", "(1 row)")
	refused("MOVE app.accounts 0-10 TO shard_3;", "55006", "rangefinder move abort")
	refused("SPLIT RANGE app.accounts AT 7;", "55006")
	run("RESUME MOVE " + id[1] + ";\nPAUSE MOVE " + id[1] + ";")
	span := "|move.note|app.accounts|-5..1000|shard_1|shard_2|" + id[1]
	shows(run("SHOW HISTORY;"), span+"|console user ops|paused|", span+"|console user ops|resumed|")

	// Over the API with a reason. A request that is repeated does not pause what has been resumed since.
	api := newClient(t, n)
	order := func(what, reason, request string, status int) (v MoveView) {
		t.Helper()
		got, e := api.call(t, "POST", "/api/v1/moves/"+id[1]+"/"+what, fmt.Sprintf(`{"reason": %q}`, reason), &v, func(r *http.Request) { r.Header.Set(requestIDHeader, request) })
		if got != status {
			t.Errorf("%s under %s: %d %+v", what, request, got, e)
		}
		return v
	}
	if v := order("pause", "it's night", "night", 200); !v.Paused {
		t.Errorf("paused: %+v", v)
	}
	tx, err := n.connect(t).Begin(t.Context()) // holds the move up while it is not paused
	if err == nil {
		_, err = tx.Exec(t.Context(), "SELECT balance FROM accounts WHERE id = 10")
	}
	if err != nil {
		t.Fatal(err)
	}
	order("resume", "it's day", "day", 200)
	if v := order("pause", "it's night", "night", 200); v.Paused {
		t.Errorf("a request that was repeated has paused the move again: %+v", v)
	}
	order("resume", "it's night", "night", 409)
	order("pause", "at last", "evening", 200)
	shows(run("SHOW HISTORY;"), span+"|loopback|paused: it's night|", span+"|loopback|resumed: it's day|")
	shows(run("ABORT MOVE "+id[1]+" REASON 'not today';"), "|aborted|", "|not today")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	n.owner(t, "app.accounts", "10", "shard_1")

	// What cannot work, with its code and hint. Nothing is changed by it.
	before := n.changesBy(t, "console user ops")
	for _, r := range []struct {
		command string
		want    []string
	}{
		{"MOVE app.nowhere 1-2 TO shard_1;", []string{"42704", "there is no keyspace", "HINT"}},
		{"MOVE app.accounts 1-2 TO shard_9;", []string{"42704", "there is no shard", "There are: shard_1, shard_2, shard_3"}},
		{"MOVE app.accounts 2-1 TO shard_3;", []string{"22023", "it holds no key", "HINT"}},
		{"MOVE app.accounts a-b TO shard_3;", []string{"22023", "invalid input syntax for type bigint"}},
		{"MOVE app.accounts 2000-3000 TO shard_1 TTL 0;", []string{"22023", "ttl is 0"}},
		{"MOVE app.accounts 2000-3000 TO shard_1 TTL -1;", []string{"22023", "ttl is -1"}},
		{"MOVE app.accounts 2000-3000 TO shard_1 TTL 999999999999;", []string{"22023", "ttl is 999999999999"}},
		{"MOVE app.accounts 2000-3000 TO shard_3;", []string{"22023", "belongs to shard shard_3 already", "HINT"}},
		{"SPLIT RANGE app.accounts AT 2000;", []string{"22023", "HINT"}},
		{"MERGE RANGE app.accounts 1000-3000;", []string{"HINT"}},
		{"ABORT MOVE 4711;", []string{"42704", "there is no move 4711", "HINT"}},
		{"SHOW MOVES 4711;", []string{"42704", "there is no move 4711"}},
		{"SHOW RANGES app.nowhere;", []string{"42704", "there is no keyspace"}},
		{"MAP RANGE 1000-2000 TO iad-db;", []string{"42704", "iad-db is a backend: name its shard, shard_1"}},
		{"MOVE app.accounts 2000-3000;", []string{"42601", "syntax error at or near the end", "Write it as MOVE keyspace"}},
	} {
		refused(r.command, r.want...)
	}
	if after := n.changesBy(t, "console user ops"); after != before {
		t.Errorf("commands that were refused changed something: %d changes, were %d", after, before)
	}
	pgtest.Eventually(t, 30*time.Second, func() error { // of the aborted move nothing is left
		if moves := n.table.Owners().Get().Moves; len(moves) > 0 {
			return fmt.Errorf("moves: %v", moves)
		}
		return nil
	})

	// Nobody else may, and what was asked is in the audit log of the node that was asked.
	if out, err := n.consolePsql(t, "app", appPassword, "SHOW RANGES;"); err == nil || !strings.Contains(out, "may not use the console") {
		t.Errorf("%v %s", err, out)
	}
	var audit AuditAnswer
	if status, _ := newClient(t, n).call(t, "GET", "/api/v1/audit?limit=1000", "", &audit); status != 200 {
		t.Fatal(status)
	}
	text, err := json.Marshal(audit)
	if err != nil {
		t.Fatal(err)
	}
	shows(string(text), `"who":"console user ops"`, `"call":"MOVE"`, `"call":"ABORT MOVE"`, `"code":"range_moving"`, `"Reason":"it's full"`)
}

// changesBy is how many changes somebody has made.
func (n *testNode) changesBy(t *testing.T, author string) (count int) {
	t.Helper()
	v, err := n.History(t.Context(), HistoryQuery{Limit: maxEvents})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range v.Events {
		if e.Author == author {
			count++
		}
	}
	return count
}
