package node

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/internal/pgtest"
	"rangefinder/node/port"
	"rangefinder/rib"
)

func TestDrainsFile(t *testing.T) {
	words := []rib.Drain{
		{Target: rib.DrainTarget{Kind: rib.DrainRegion, Name: "fra"}, Number: 3, Author: "fra-1", By: "alice", Why: "a \"reason\"", Since: 1_700_000_000, Until: 1_700_003_600},
		{Target: rib.DrainTarget{Kind: rib.DrainNode, Name: "fra-2"}, Number: 2, Back: true, Author: "iad-1", By: "bob", Since: 1_700_000_000},
	}
	text, err := encodeDrains("c1", words)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeDrains(text, "c1"); err != nil || !slices.Equal(got, words) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := decodeDrains(text, "c2"); err == nil || !strings.Contains(err.Error(), "c1") {
		t.Errorf("another cluster's: %v", err)
	}
	for _, bad := range []string{"", "{", "[]", `{"format":2,"cluster_id":"c1"}`, strings.Replace(string(text), `"node"`, `"rack"`, 1), strings.Replace(string(text), `"fra-2"`, `""`, 1),
		// What no peer would take.
		strings.Replace(string(text), `"alice"`, `""`, 1), strings.Replace(string(text), `"iad-1"`, `""`, 1), strings.Replace(string(text), `"number": 3`, `"number": 4611686018427387904`, 1),
		strings.Replace(string(text), `"since": 1700000000`, `"since": -1`, 1), string(text[:len(text)/2])} {
		if _, err := decodeDrains([]byte(bad), "c1"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// The command says what it waits for, each thing once, and in the end what is left and what to do about it.
func TestDrainCommandShowsItsProgress(t *testing.T) {
	drain := &DrainView{Kind: "region", Name: "fra", Number: 7}
	moving := LeftView{What: "connections", Of: "db", Count: 2, Moves: true, Text: "2 connections from node fra-1 to db", Hint: "They go."}
	stays := LeftView{What: "writes", Of: "db0", Text: "db0 is the primary of shard_1: its writes cannot move", Hint: "Promote another."}
	office := &fakeOffice{left: []DrainLeftView{
		{Drain: drain, Nodes: 2, Heard: 1, Left: []LeftView{moving, stays}},
		{Drain: drain, Nodes: 2, Heard: 1, Left: []LeftView{moving, stays}},
		{Drain: drain, Nodes: 2, Heard: 2, Left: []LeftView{moving, stays}},
		{Drain: drain, Nodes: 2, Heard: 2, Left: []LeftView{stays}},
	}}
	url := serveOffice(t, office)
	code, out, errs := runCLI("region", "drain", "fra", "--by", "alice", "--why", "works", "--for", "90m", "--admin", url)
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if _, after, ok := strings.Cut(line, " s  "); ok { // but for the time
			line = after
		}
		lines = append(lines, line)
	}
	want := []string{
		"region fra drained",
		"known to 1 of 2 nodes; 2 connections from node fra-1 to db",
		"known to 2 of 2 nodes; 2 connections from node fra-1 to db",
		"known to 2 of 2 nodes; all that can move has moved",
		"left:", "  db0 is the primary of shard_1: its writes cannot move", "    hint: Promote another.",
	}
	if code != exitFailed || !slices.Equal(lines, want) || !strings.Contains(errs, "rangefinder region undrain fra") {
		t.Errorf("exit %d, %s, got\n%s\nwant\n%s", code, errs, strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if want := (DrainRequest{Kind: "region", Name: "fra", By: "alice", Why: "works", For: "1h30m0s"}); !slices.Equal(office.drained, []DrainRequest{want}) {
		t.Errorf("asked for %+v", office.drained)
	}

	office.left = []DrainLeftView{{Drain: drain, Nodes: 2, Heard: 2, Left: []LeftView{}}}
	if code, out, errs = runCLI("backend", "drain", "db", "--admin", url); code != exitOK || !strings.HasSuffix(out, "nothing is left\n") || errs != "" {
		t.Errorf("with nothing left: exit %d %s%s", code, out, errs)
	}
	code, out, _ = runCLI("node", "drain", "fra-1", "--json", "--admin", url)
	var v DrainLeftView
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitOK || v.Heard != 2 {
		t.Errorf("--json: exit %d, %v: %s", code, err, out)
	}
	office.left = []DrainLeftView{{Drain: drain, Nodes: 2, Heard: 2, Left: []LeftView{moving}}}
	if code, out, _ = runCLI("backend", "drain", "db", "--timeout", "0", "--admin", url); code != exitFailed || !strings.Contains(out, "no longer waited for") {
		t.Errorf("without waiting: exit %d %s", code, out)
	}
	office.left = []DrainLeftView{{Drain: &DrainView{Number: 8}}}
	if code, _, errs = runCLI("backend", "drain", "db", "--admin", url); code != exitFailed || !strings.Contains(errs, "ordered otherwise") {
		t.Errorf("when somebody takes it back meanwhile: exit %d %s", code, errs)
	}
	if code, _, errs = runCLI("backend", "drain", "db", "--for", "1ms", "--admin", url); code != exitUsage {
		t.Errorf("for no time: exit %d %s", code, errs)
	}
	office.drained = nil
	if code, out, _ = runCLI("node", "undrain", "fra-1", "--by", "bob", "--admin", url); code != exitOK || out == "" || len(office.drained) != 1 || !office.drained[0].Back || office.drained[0].Kind != "node" {
		t.Errorf("undrain: exit %d %s, asked for %+v", code, out, office.drained)
	}
}

// Nodes ask each other over the cluster port alone.
func TestDrainLeftBetweenNodes(t *testing.T) {
	a := newTestAPI(&fakeOffice{})
	const path = "/api/v1/drains/here?kind=node&name=fra-1&number=7"
	if w := ask(t, a.forwarded(), "GET", path, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"count": 7`) {
		t.Errorf("over the cluster port: %d %s", w.Code, w.Body)
	}
	if w := ask(t, a.handler(), "GET", path, ""); w.Code != http.StatusNotFound {
		t.Errorf("over HTTP: %d %s", w.Code, w.Body)
	}
	if w := ask(t, a.forwarded(), "POST", "/api/v1/drains", `{"kind":"node","name":"fra-1"}`); w.Code != http.StatusNotFound {
		t.Errorf("a node gives orders to another: %d %s", w.Code, w.Body)
	}
	if w := ask(t, a.forwarded(), "GET", "/api/v1/drains/here?kind=node&name=fra-1", ""); w.Code != http.StatusBadRequest {
		t.Errorf("without a number: %d %s", w.Code, w.Body)
	}
}

// serveForwarded is another node's cluster port, which answers what nodes ask each other; it returns the address.
func serveForwarded(t *testing.T, n *testNode, office backOffice) string {
	t.Helper()
	cfg := n.portConfig()
	cfg.Port, cfg.TCP, cfg.UDP = 0, nil, nil
	p, err := port.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	calls := newHTTPServer(newTestAPI(office).forwarded(), slog.New(slog.DiscardHandler))
	var served sync.WaitGroup
	served.Go(func() { _ = calls.Serve(p.Listener(port.KindAPI)) })
	t.Cleanup(func() {
		_ = calls.Close()
		_ = p.Close()
		served.Wait()
	})
	return p.Addr()
}

// A node that has not heard of a drain yet, as one that has just joined or was cut off, asks others before it says that there is none: so
// undrain takes it back, what is left is told, and a drain is above the last word that anybody knows.
func TestDrainAtANodeThatHasNotHeard(t *testing.T) {
	n := startOne(t, nil)
	other := &fakeOffice{}
	addr := serveForwarded(t, n, other)
	region := rib.DrainTarget{Kind: rib.DrainRegion, Name: "iad"}
	word := DrainView{Kind: "region", Name: "iad", By: "alice", Why: "works", Since: time.Now().Add(-time.Minute).UTC().Truncate(time.Second), ToldTo: "fra-1", Number: 5}
	other.word = &word
	n.table.Health().MemberUp(rib.Member{Name: "fra-1", Region: "fra", Addr: addr})

	if v := n.DrainLeft(t.Context(), region); v.Drain == nil || v.Drain.Number != 5 || v.Drain.By != "alice" {
		t.Errorf("left: %+v", v)
	}
	word.Number, word.Back, word.By = 9, true, "bob" // it was taken back and so on meanwhile
	v, err := n.Drain(t.Context(), DrainRequest{Kind: "region", Name: "iad", By: "carol"}, "a test")
	if last, _ := n.table.Health().DrainOf(region); err != nil || v.Number != 10 || last.By != "carol" || last.Back {
		t.Errorf("drained: %+v, %v; the last word is %+v", v, err, last)
	}
	word = DrainView{Kind: "region", Name: "iad", By: "bob", Back: true, Since: word.Since, ToldTo: "fra-1", Number: 12}
	if v := n.DrainLeft(t.Context(), region); v.Drain == nil { // by what this node knew when it was asked
		t.Errorf("left: %+v", v)
	}
	v, err = n.Drain(t.Context(), DrainRequest{Kind: "region", Name: "iad", Back: true}, "a test")
	if want := "region iad is not drained: taken back by bob at " + drainedAt(word.Since.Unix()) + "; so say 2 of 2 nodes"; err != nil || v.Text != want || v.Number != 12 {
		t.Errorf("undrained: %q, %v, want %q", v.Text, err, want)
	}
	word.Number, word.Back = 13, false
	if v, err = n.Drain(t.Context(), DrainRequest{Kind: "region", Name: "iad", Back: true, By: "carol"}, "a test"); err != nil || v.Number != 14 || !v.Back || v.Text != "region iad is not drained any more" {
		t.Errorf("undrained of what this node had not heard: %+v, %v", v, err)
	}

	n.table.Health().MemberUp(rib.Member{Name: "mute", Region: "fra", Addr: "127.0.0.1:1"})
	code, out, errs := n.cli(t, "region", "undrain", "iad")
	if code != exitFailed || !strings.Contains(out, "so say 2 of 3 nodes; no answer from mute") || !strings.Contains(errs, "not known whether region iad is drained") {
		t.Errorf("with a node that does not answer: exit %d\n%s%s", code, out, errs)
	}
	if status, body := n.get(t, "/api/v1/drains"); status != 200 || !strings.Contains(body, `"node": "iad-1"`) || !strings.Contains(body, `"agreed_ms": -1`) {
		t.Errorf("drains: %d %s", status, body)
	}
}

// What an older release answers, or none, is not taken for nothing left.
func TestDrainLeftOfThoseWhoDoNotSay(t *testing.T) {
	n := startOne(t, nil)
	if _, err := n.Drain(t.Context(), DrainRequest{Kind: "backend", Name: "iad-db", By: "alice"}, "a test"); err != nil {
		t.Fatal(err)
	}
	n.table.Health().MemberUp(rib.Member{Name: "mute", Region: "fra", Addr: "127.0.0.1:1"})
	v := n.DrainLeft(t.Context(), rib.DrainTarget{Kind: rib.DrainBackend, Name: "iad-db"})
	if v.Nodes != 2 || v.Heard != 1 || v.moving() != 1 || !slices.ContainsFunc(v.Left, func(l LeftView) bool {
		return l.What == "node" && l.Node == "mute" && strings.Contains(l.Text, "does not say what it has left")
	}) {
		t.Errorf("left: %+v", v)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { // once the table knows of the drain
		v := n.DrainLeft(t.Context(), rib.DrainTarget{Kind: rib.DrainBackend, Name: "iad-db"})
		if !slices.ContainsFunc(v.Left, func(l LeftView) bool { return l.What == "reads" && l.Of == "shard_1" }) {
			return fmt.Errorf("that reads stay is not told: %+v", v.Left)
		}
		return nil
	})
}

// The lists of databases that prefer regions are shown.
func TestPreferencesAreShown(t *testing.T) {
	n := startOne(t, func(c *Config) {
		c.Databases = append(c.Databases, Listing{Name: "reports", Shard: "shard_1", Regions: []string{"fra", "iad"}}, Listing{Name: "german", Shard: "shard_1", Regions: []string{"fra"}, Pinned: true})
	})
	var f struct {
		Shards []struct {
			Databases map[string]struct {
				Prefers string
				Problem string
			} `json:"reads_of_databases"`
		}
	}
	if _, body := n.get(t, "/debug/fib"); json.Unmarshal([]byte(body), &f) != nil || len(f.Shards) != 1 || len(f.Shards[0].Databases) != 2 ||
		f.Shards[0].Databases["reports"].Prefers != "first to fra, then iad, then by distance" || !strings.Contains(f.Shards[0].Databases["german"].Problem, "no backend may serve") {
		t.Errorf("/debug/fib: %s", body)
	}
	if _, page := n.get(t, "/debug"); !strings.Contains(page, "pinned to fra") || !strings.Contains(page, "first to fra, then iad, then by distance") {
		t.Error("the page does not show them")
	}
}

// TestDrainLeftOfDatabases: what stays for a database that is pinned to a drained region is told of the shards that it has tables on, and of no others.
func TestDrainLeftOfDatabases(t *testing.T) {
	table := rib.NewTable(rib.Member{Name: "fra-1", Region: "fra", Incarnation: 1})
	o := &rib.Ownership{Epoch: rib.Epoch{Index: 1}}
	seq := uint64(0)
	for i, shard := range []string{"shard_1", "shard_2"} {
		o.Shards = append(o.Shards, rib.Shard{Name: shard, SystemID: uint64(i) + 1})
		for _, region := range []string{"fra", "iad"} {
			seq += 2
			b := rib.Backend{Name: shard + "-" + region, Shard: shard, Region: region, Addr: fmt.Sprintf("10.0.0.%d:5432", seq), SystemID: uint64(i) + 1}
			role := rib.Replica
			if region == "iad" {
				role = rib.Primary
			}
			table.Health().Announce(rib.Announcement{Backend: b, Observer: "fra-1", Stamp: rib.Stamp{Incarnation: 1, Seq: seq}})
			table.Health().Observe(rib.Route{Backend: b.Name, Observer: "fra-1", State: rib.Up, Role: role, Timeline: 1, Stamp: rib.Stamp{Incarnation: 1, Seq: seq + 1}})
		}
	}
	table.Owners().Set(o)
	database := Listing{Name: "app2", Shard: "shard_1", Regions: []string{"fra"}, Pinned: true}
	table.Local().SetPolicy(&rib.Policy{Databases: map[string]rib.Preference{"app2": {Regions: database.Regions, Pinned: true}}})
	fra := rib.DrainTarget{Kind: rib.DrainRegion, Name: "fra"}
	if _, err := table.Health().Drain(rib.Drain{Target: fra, Number: 1, By: "ops"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	left := func() (of []string) {
		s := table.Snapshot()
		compiled, err := fib.Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range readsThatStay(s, compiled, []Listing{database}, fra) {
			of = append(of, l.What+" of "+l.Of)
		}
		return of
	}
	if got, want := left(), []string{"reads of shard_1"}; !slices.Equal(got, want) {
		t.Errorf("without a keyspace %q, want %q", got, want)
	}
	with := *o
	with.Epoch.Index++
	with.Keyspaces = []rib.Keyspace{{
		ID: 1, Name: "app2.t", Database: "app2", Method: rib.MethodReference, Tables: []rib.KeyedTable{{Schema: "public", Name: "t"}},
		Ranges: rib.ReferenceRanges([]string{"shard_1", "shard_2"}),
	}}
	table.Owners().Set(&with)
	if got, want := left(), []string{"reads of shard_1", "reads of shard_2"}; !slices.Equal(got, want) {
		t.Errorf("with a keyspace %q, want %q", got, want)
	}
}

// What is drained with its region stays so, whoever takes back that it is drained by its own name: the answer says so, and what to do.
func TestUndrainInADrainedRegion(t *testing.T) {
	n := startOne(t, nil)
	other := &fakeOffice{}
	n.table.Health().MemberUp(rib.Member{Name: "fra-1", Region: "fra", Addr: serveForwarded(t, n, other)})
	undrain := func(kind, name string) {
		t.Helper()
		code, out, errs := n.cli(t, kind, "undrain", name)
		if want := kind + " " + name + " stays drained with its region: region iad drained by alice since "; code != exitFailed || !strings.HasPrefix(out, want) || !strings.Contains(errs, "rangefinder region undrain iad") {
			t.Errorf("undrain %s %s: exit %d\n%s%s, want %q", kind, name, code, out, errs, want)
		}
	}
	// The region's drain has been heard of elsewhere alone.
	other.word = &DrainView{Kind: "region", Name: "iad", By: "alice", Since: time.Now().UTC().Truncate(time.Second), ToldTo: "fra-1", Number: 5}
	undrain("backend", "iad-db")
	undrain("node", "iad-1")
	for kind, name := range map[string]string{"backend": "iad-db", "node": "iad-1"} {
		if code, _, errs := n.cli(t, kind, "drain", name, "--timeout", "0"); code == exitUsage {
			t.Fatal(errs)
		}
		undrain(kind, name)
		if w, ok := n.table.Health().DrainOf(rib.DrainTarget{Kind: map[string]rib.DrainKind{"backend": rib.DrainBackend, "node": rib.DrainNode}[kind], Name: name}); !ok || !w.Back {
			t.Errorf("%s %s is drained by its own name still: %+v", kind, name, w)
		}
	}
	other.word.Number, other.word.Back = 6, true
	if code, out, errs := n.cli(t, "region", "undrain", "iad"); code != exitOK {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := n.cli(t, "backend", "undrain", "iad-db"); code != exitOK || !strings.Contains(out, "backend iad-db is not drained") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
