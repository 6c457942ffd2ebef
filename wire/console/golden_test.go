package console

import (
	flags "flag" // the package has a flag of its own
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rangefinder/wire/pg"
)

var rewrite = flags.Bool("rewrite", false, "write what the golden file should hold")

// testSnapshot is a node at noon: two databases, one of them paused; a client that waits, one that works, one that is pinned.
func testSnapshot() *Snapshot {
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return at.Add(-d) }
	return &Snapshot{
		At: at, Version: "1.2.3", Users: []string{"ops", "app"},
		Databases: []Database{
			{Name: "other", Paused: true, Disabled: true},
			{Name: "app", Shard: "shard_1", Totals: Totals{Transactions: 700, Queries: 900, Received: 1234, Sent: 56789, Wait: 1500 * time.Microsecond}, Lately: Totals{Transactions: 600, Queries: 779, Received: 1000, Sent: 50000, Wait: 600 * time.Microsecond}, Span: time.Minute},
		},
		Clients: []Client{
			{ID: 12, User: "app", Database: "app", State: Active, Addr: "[::1]:50002", Local: "[::1]:6432", Connected: ago(time.Hour), Requested: ago(time.Second), Server: 3, Backend: "shard_1-fra", TLS: "TLS 1.3/TLS_AES_128_GCM_SHA256"},
			{ID: 11, User: "app", Database: "app", State: Idle, Addr: "10.0.0.7:50001", Local: "10.0.0.1:6432", Connected: ago(2 * time.Hour), Requested: ago(time.Minute)},
			{ID: 13, User: "app", Database: "app", State: Active, Addr: "10.0.0.7:50003", Local: "10.0.0.1:6432", Connected: ago(time.Minute), Requested: ago(time.Second), Server: 4, Backend: "shard_2-fra", Pinned: "temporary table"},
			{ID: 14, User: "report", Database: "other", State: Waiting, Addr: "10.0.0.8:50004", Local: "10.0.0.1:6432", Connected: ago(time.Minute), Requested: ago(2500 * time.Millisecond)},
			{ID: 15, User: "report", Database: "other", State: Waiting, Addr: "10.0.0.8:50005", Local: "10.0.0.1:6432", Connected: ago(time.Minute), Requested: ago(time.Millisecond)},
			{ID: 16, User: "ops", Database: "rangefinder", State: Active, Addr: "127.0.0.1:50006", Local: "127.0.0.1:6432", Connected: ago(time.Second), Requested: ago(time.Second)},
		},
		Servers: []Server{
			{ID: 4, User: "app", Database: "app", Backend: "shard_2-fra", Shard: "shard_2", CloseNeeded: true, Addr: "10.1.0.2:5432", Local: "10.0.0.1:40004", Connected: ago(time.Minute), PID: 4242, Client: 13},
			{ID: 3, User: "app", Database: "app", Backend: "shard_1-fra", Shard: "shard_1", Addr: "10.1.0.1:5432", Local: "10.0.0.1:40003", Connected: ago(time.Hour), PID: 4241, Client: 12},
			{ID: 5, User: "app", Database: "app", Backend: "shard_1-fra", Shard: "shard_1", Idle: true, Addr: "10.1.0.1:5432", Local: "10.0.0.1:40005", Connected: ago(time.Hour), PID: 4243},
		},
		LoggingIn: 2,
		Logins:    []Login{{User: "report", Database: "other", Count: 1}},
		TwoPhase: []TwoPhase{
			{GID: "rangefinder:01234567:fra-1:ABC:7:shard_1", Node: "fra-1", Database: "app", Participants: "shard_1,shard_2", Open: "shard_2", Decision: "shard_1", State: "decided", Age: 12500 * time.Millisecond, Problem: "shard shard_2: no primary"},
			{GID: "rangefinder:01234567:fra-1:ABC:9:shard_2", Node: "fra-1", Database: "app", Participants: "shard_2,shard_1", Open: "shard_1", Decision: "shard_2", State: "preparing", Age: time.Millisecond},
		},
		Statements: []Statement{
			{Database: "app", Text: "SELECT ?", Calls: 2, Shards: 2, Rows: 2, Total: 1999 * time.Nanosecond, Max: 1500 * time.Nanosecond},
			{Database: "app", Text: "SELECT * FROM orders", Calls: 3, Errors: 1, Shards: 9, Rows: 70, Total: 90 * time.Millisecond, Max: 50 * time.Millisecond},
			{Database: "other", Text: "DELETE FROM t", Errors: 4},
		},
		Keyspaces: []Keyspace{
			{Name: "app.orders", Database: "app", Method: "hash", Key: "bigint", Tables: "public.orders (customer_id)", Ranges: 2, Shards: "shard_1, shard_2"},
			{Name: "app.accounts", Database: "app", Method: "range", Key: "bigint", Tables: "public.accounts (id)", Ranges: 1, Shards: "shard_3"},
		},
		Ranges: []Range{{Keyspace: "app.accounts", Bounds: "..1000", Shard: "shard_3", Epoch: "1/9", Rate: 41.5, Hot: "17 (38)"}, {Keyspace: "app.accounts", Bounds: "1000..", Epoch: "1/9"}},
		Moves: []Move{
			{ID: 17, Keyspace: "app.accounts", Bounds: "1000..2000", From: "shard_2", To: "shard_3", Phase: "prepare", Step: "copy", Part: 0.5, Rows: 500, Bytes: 1 << 20, Left: 61 * time.Second, Lag: 20 * time.Millisecond, Changed: 3, Paused: true},
			{ID: 19, Keyspace: "app.accounts", Bounds: "..0", From: "shard_1", To: "shard_3", Phase: "flipped", Step: "wait", Part: 1, Thawed: 2, Waits: []string{"fra-1", "syd-1"}, Problem: "no primary", Why: "why"},
		},
		Loans: []Loan{{Keyspace: "app.accounts", Bounds: "5..6", Shard: "shard_3", From: "shard_2", Until: at.Add(time.Hour), Why: "7 rows"}},
		Events: []Event{
			{Epoch: "1/9", At: ago(time.Hour), Change: "move.start prepare", Keyspace: "app.accounts", Bounds: "1000..2000", From: "shard_2", To: "shard_3", Move: 17, Author: "ops", Reason: "hot", Request: "r1"},
			{Epoch: "1/2", Change: "shard", Bounds: "shard_1"},
		},
		Settings: []Setting{{"region", "fra", "", false}, {"pool.size", "50", "20", true}},
	}
}

// TestGolden holds the console against testdata/console.txt: a command, "----", and the answer.
func TestGolden(t *testing.T) {
	const file = "testdata/console.txt"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, block := range strings.Split(strings.TrimRight(string(old), "\n"), "\n\n") {
		for strings.HasPrefix(block, "#") {
			comment, rest, _ := strings.Cut(block, "\n")
			out.WriteString(comment + "\n")
			block = rest
		}
		command, _, _ := strings.Cut(block, "\n----")
		out.WriteString(command + "\n----\n" + answer(command) + "\n")
	}
	got := strings.TrimRight(out.String(), "\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(old) {
		t.Errorf("%s is not what it should be; see what go test ./wire/console -rewrite changes:\n%s", file, got)
	}
}

func answer(input string) string {
	commands, e := Parse(input)
	if e != nil {
		return strings.TrimRight(fmt.Sprintf("%s %s\n%s", e.Code, e.Message, e.Hint), "\n") + "\n"
	}
	var b strings.Builder
	for _, c := range commands {
		if c.Verb != "SHOW" {
			fmt.Fprintf(&b, "%s %q %v%s\n", c.Verb, c.Database, c.Wait, ordered(c.Order))
			continue
		}
		b.WriteString(strings.TrimLeft(ordered(c.Order)+"\n", " \n"))
		t := Show(c, testSnapshot())
		names := make([]string, len(t.Columns))
		for i, col := range t.Columns {
			names[i] = col.Name
		}
		b.WriteString(strings.Join(names, "|") + "\n")
		for _, row := range t.Rows {
			b.WriteString(strings.Join(row, "|") + "\n")
		}
	}
	if len(commands) == 0 {
		b.WriteString("nothing\n")
	}
	return b.String()
}

// ordered writes what of an order is there.
func ordered(o Order) string {
	var b strings.Builder
	for _, f := range []struct{ name, value string }{{"keyspace", o.Keyspace}, {"range", o.Range}, {"at", strings.Join(o.At, "|")}, {"to", o.To}, {"reason", o.Reason}} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s=%q", f.name, f.value)
		}
	}
	if o.Move != 0 {
		fmt.Fprintf(&b, " move=%d", o.Move)
	}
	if o.TTL != nil {
		fmt.Fprintf(&b, " ttl=%d", *o.TTL)
	}
	if o.Limit != 0 {
		fmt.Fprintf(&b, " limit=%d", o.Limit)
	}
	return b.String()
}

func TestEveryRowFitsItsColumns(t *testing.T) {
	for _, v := range views() {
		for _, row := range v.rows(testSnapshot()) {
			if len(row) != len(v.columns) {
				t.Errorf("SHOW %s: %d values for %d columns: %v", v.name, len(row), len(v.columns), row)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"SHOW POOLS", `pause "a""b";`, "/* x */ -- y\n;;show", "RECONNECT \xff", `"`, "/*", "MOVE a 1-2 TO b TTL -5 REASON 'it''s'", "SPLIT RANGE a AT 'x', -5;", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		commands, e := Parse(s)
		if e != nil && (e.Code != pg.CodeSyntaxError && e.Code != pg.CodeProgramLimitExceeded || !utf8.ValidString(e.Message) || len(e.Message) > 600) {
			t.Fatalf("%q: %v", s, e)
		}
		for _, c := range commands {
			if c.Ledgers() && c.Keyspace == "" && c.Move == 0 && c.Verb != VerbMap {
				t.Fatalf("%q: %+v", s, c)
			}
			if c.Verb == "SHOW" && view(c.View) == nil {
				t.Fatalf("%q: %+v", s, c)
			}
		}
	})
}
