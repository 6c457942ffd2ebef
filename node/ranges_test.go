package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// client calls a node's API and holds each answer against its document.
type client struct {
	n *testNode
	c *contract
}

func newClient(t *testing.T, n *testNode) *client {
	t.Helper()
	_, text := n.get(t, "/api/v1/openapi.json")
	return &client{n, newContract(t, []byte(text))}
}

// call makes a call, again if nobody leads just then, and fails the test if the answer is not as the document says. into may be nil.
func (c *client) call(t *testing.T, method, path, body string, into any, change ...func(*http.Request)) (status int, failed ErrorView) {
	t.Helper()
	var text []byte
	for patience := time.Now().Add(30 * time.Second); ; <-time.After(retryLeader) {
		if status, text = c.once(t, method, path, body, change...); status != http.StatusServiceUnavailable || time.Now().After(patience) {
			break
		}
	}
	if status/100 != 2 {
		into = &failed
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return status, failed
}

// once makes a call as it is.
func (c *client) once(t *testing.T, method, path, body string, change ...func(*http.Request)) (status int, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.n.url()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for _, f := range change {
		f(req)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.c.answer(method, path, resp.StatusCode, text); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, text
}

// TestRangesByTheAPI splits and merges ranges of real shards through a node that does not lead, and has every mistake refused with the
// ledger unchanged.
func TestRangesByTheAPI(t *testing.T) {
	c := startCluster(t)
	n := c.follower(t)
	for _, args := range [][]string{
		{"keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--method", "range", "--range", "..1000=shard_1", "--range", "1000..2000=shard_2", "--range", "2000..=shard_3"},
		{"keyspace", "create", "app.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3"},
	} {
		if code, out, errs := n.admin(args...); code != 0 {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
	}
	for _, each := range c.nodes {
		each.sees(t, "app.orders")
	}
	api := newClient(t, n)
	id := func(s string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(requestIDHeader, s) } }

	var split RangesAnswer
	for range 2 { // the second is the first, repeated
		if status, e := api.call(t, "POST", "/api/v1/ranges/split", `{"keyspace": "app.accounts", "at": ["1250", "1500"], "reason": "hot"}`, &split, id("split-1")); status != 200 || len(split.Ranges) != 3 {
			t.Fatalf("%d %+v: %+v", status, e, split)
		}
	}
	if status, e := api.call(t, "POST", "/api/v1/ranges/split", `{"keyspace": "app.accounts", "at": ["1750"]}`, nil, id("split-1")); status != 409 || e.Code != "request_id_reused" {
		t.Errorf("another call with the same id: %d %+v", status, e)
	}
	var merged RangesAnswer
	if status, e := api.call(t, "POST", "/api/v1/ranges/merge", `{"keyspace": "app.accounts", "range": "1000-1500"}`, &merged); status != 200 || len(merged.Ranges) != 1 || merged.Ranges[0].To != "1500" {
		t.Errorf("%d %+v: %+v", status, e, merged)
	}
	var past HistoryAnswer
	if status, e := api.call(t, "GET", "/api/v1/history?keyspace=app.accounts&range=1200-1300", "", &past); status != 200 || len(past.Events) < 2 {
		t.Fatalf("%d %+v: %+v", status, e, past)
	}
	if last := past.Events[0]; last.Kind != "merge" || last.Range != "1000..1500" || last.Author != "loopback" || last.At == nil || last.RequestID == "" {
		t.Errorf("%+v", last)
	}
	if !slices.ContainsFunc(past.Events, func(e EventView) bool { return e.Kind == "split" && e.Reason == "hot" && e.RequestID == "split-1" }) {
		t.Errorf("no split in %+v", past.Events)
	}
	if code, out, errs := n.admin("range", "history", "app.accounts"); code != 0 || !strings.Contains(out, "loopback") || !strings.Contains(out, "hot") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}

	conn := n.connect(t)
	for _, k := range []int{1100, 1200} {
		if _, err := conn.Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES ($1, 1)", k); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), "/* rangefinder: shard=shard_1 */ INSERT INTO accounts (id, balance) SELECT -g, 1 FROM generate_series(1, 12000) AS g", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	before := c.nodes[0].ledger().Epoch()
	mapped := func(from string) string {
		return fmt.Sprintf(`{"partition_key_range": %q, "target_backend": "shard_3"}`, from)
	}
	for _, x := range []struct {
		name, path, body string
		status           int
		code, message    string
	}{
		{"inverted", "ranges/merge", `{"keyspace": "app.accounts", "range": "2000-1000"}`, 422, "bad_range", "holds no key"},
		{"empty", "ranges/merge", `{"keyspace": "app.accounts", "range": "1000-1000"}`, 422, "bad_range", "holds no key"},
		{"two owners", "ranges/merge", `{"keyspace": "app.accounts", "range": "..1500"}`, 409, "other_owner", "several shards"},
		{"no whole ranges", "ranges/merge", `{"keyspace": "app.accounts", "range": "1100-1500"}`, 422, "cannot_work", "not made of whole ranges"},
		{"one range", "ranges/merge", `{"keyspace": "app.accounts", "range": "1000-1500"}`, 422, "cannot_work", "nothing to merge"},
		{"a bound that is there", "ranges/split", `{"keyspace": "app.accounts", "at": ["1000"]}`, 422, "cannot_work", "already"},
		{"no bound", "ranges/split", `{"keyspace": "app.accounts", "at": []}`, 400, "bad_request", "at is missing"},
		{"an open bound", "ranges/split", `{"keyspace": "app.accounts", "at": [""]}`, 422, "bad_range", "no key at which a range could begin"},
		{"many bounds", "ranges/split", `{"keyspace": "app.accounts", "at": [` + strings.Repeat(`"1", `, 100) + `"1"]}`, 422, "cannot_work", "1 to 100 bounds"},
		{"keys of a hash keyspace", "ranges/split", `{"keyspace": "app.orders", "at": ["1500"]}`, 422, "bad_range", "of positions, not of keys"},
		{"merge: keys of a hash keyspace", "ranges/merge", `{"keyspace": "app.orders", "range": "1000-2000"}`, 422, "bad_range", "of positions, not of keys"},
		{"move: keys of a hash keyspace", "moves", `{"keyspace": "app.orders", "range": "1000-2000", "to": "shard_3"}`, 422, "bad_range", "of positions, not of keys"},
		{"move: half a position", "moves", `{"keyspace": "app.orders", "range": "0x4..0x8", "to": "shard_3"}`, 422, "bad_range", "0x and 16 digits"},
		{"history: keys of a hash keyspace", "history?keyspace=app.orders&range=1-2", ``, 422, "bad_range", "of positions, not of keys"},
		{"out of type", "ranges/split", `{"keyspace": "app.accounts", "at": ["a lot"]}`, 422, "bad_range", "a lot"},
		{"out of bigint", "ranges/split", `{"keyspace": "app.accounts", "at": ["9223372036854775808"]}`, 422, "bad_range", "9223372036854775808"},
		{"no such keyspace", "ranges/split", `{"keyspace": "app.nothing", "at": ["1"]}`, 404, "not_found", "app.nothing"},
		{"split at the lowest key", "ranges/split", `{"keyspace": "app.accounts", "at": ["-9223372036854775808"]}`, 422, "bad_range", "no key below it"},
		{"map: below the lowest key", "routing-map", mapped("..-9223372036854775808"), 422, "bad_range", "holds no key"},
		{"move: below the lowest position", "moves", `{"keyspace": "app.orders", "range": "..0x0000000000000000", "to": "shard_3"}`, 422, "bad_range", "holds no key"},
		{"move: no such keyspace", "moves", `{"keyspace": "app.nothing", "range": "1-2", "to": "shard_3"}`, 404, "not_found", "app.nothing"},
		{"move: inverted", "moves", `{"keyspace": "app.accounts", "range": "2-1", "to": "shard_3"}`, 422, "bad_range", "holds no key"},
		{"move: no such shard", "moves", `{"keyspace": "app.accounts", "range": "1000-1500", "to": "shard_9"}`, 422, "unknown_shard", "shard_9"},
		{"move: until the past", "moves", `{"keyspace": "app.accounts", "range": "1000-1500", "to": "shard_3", "until": "2020-01-01T00:00:00Z"}`, 422, "ttl_out_of_range", "2020-01-01T00:00:00Z"},
		{"move: until far away", "moves", `{"keyspace": "app.accounts", "range": "1000-1500", "to": "shard_3", "until": "9999-01-01T00:00:00Z"}`, 422, "ttl_out_of_range", "within 315360000 seconds"},
		{"move: until no time", "moves", `{"keyspace": "app.accounts", "range": "1000-1500", "to": "shard_3", "until": "tomorrow"}`, 400, "bad_request", "until must be a time"},
		{"move: a backend", "moves", `{"keyspace": "app.accounts", "range": "1000-1500", "to": "syd-db"}`, 422, "unknown_shard", "syd-db"},
		{"abort nothing", "moves/4711/abort", `{}`, 404, "not_found", "4711"},
		{"abort no number", "moves/x/abort", `{}`, 400, "bad_request", "no move's number"},
		{"map: no range", "routing-map", `{"target_backend": "shard_3"}`, 400, "bad_request", "partition_key_range is missing"},
		{"map: no target", "routing-map", `{"partition_key_range": "1-2"}`, 400, "bad_request", "target_backend is missing"},
		{"map: inverted", "routing-map", mapped("2000-1000"), 422, "bad_range", "holds no key"},
		{"map: empty", "routing-map", mapped("1000-1000"), 422, "bad_range", "holds no key"},
		{"map: out of type", "routing-map", mapped("a-b"), 422, "bad_range", "a-b"},
		{"map: out of bigint", "routing-map", mapped("1-99999999999999999999"), 422, "bad_range", "99999999999999999999"},
		{"map: two owners", "routing-map", mapped("500-1500"), 409, "several_owners", "shard_1, shard_2"},
		{"map: rows", "routing-map", mapped("1000-1500"), 409, "rows_present", "holds 2 rows on shard_2"},
		{"map: rows in a part of a range", "routing-map", mapped("1050-1150"), 409, "rows_present", "holds 1 rows on shard_2"},
		{"map: many rows", "routing-map", mapped("..0"), 409, "rows_present", "holds at least 10000 rows on shard_1"},
		{"map: no such shard", "routing-map", `{"partition_key_range": "1-2", "target_backend": "shard_9"}`, 422, "unknown_shard", "shard_9"},
		{"map: a hash keyspace", "routing-map", `{"partition_key_range": "1-2", "target_backend": "shard_3", "keyspace": "app.orders"}`, 422, "cannot_work", "shards by hash"},
		{"map: ttl negative", "routing-map", `{"partition_key_range": "1300-1400", "target_backend": "shard_3", "ttl": -1}`, 422, "ttl_out_of_range", "ttl is -1"},
		{"map: ttl zero", "routing-map", `{"partition_key_range": "1300-1400", "target_backend": "shard_3", "ttl": 0}`, 422, "ttl_out_of_range", "ttl is 0"},
		{"map: ttl huge", "routing-map", `{"partition_key_range": "1300-1400", "target_backend": "shard_3", "ttl": 315360001}`, 422, "ttl_out_of_range", "from 1 to 315360000"},
		{"map: ttl no integer of 64 bits", "routing-map", `{"partition_key_range": "1300-1400", "target_backend": "shard_3", "ttl": 1e30}`, 400, "bad_request", "ttl"},
		{"map: ttl in words", "routing-map", `{"partition_key_range": "1300-1400", "target_backend": "shard_3", "ttl": "1h"}`, 400, "bad_request", "ttl must be a whole number"},
		{"map: force", "routing-map", `{"partition_key_range": "1000-1500", "target_backend": "shard_3", "force": true}`, 400, "bad_request", "force"},
		{"map: ttl for what is there", "routing-map", `{"partition_key_range": "2000-3000", "target_backend": "shard_3", "ttl": 60}`, 409, "conflict", "already, for good"},
	} {
		method := "POST"
		if x.body == "" {
			method = "GET"
		}
		status, e := api.call(t, method, "/api/v1/"+x.path, x.body, nil)
		if status != x.status || e.Code != x.code || !strings.Contains(e.Error, x.message) || e.Hint == "" {
			t.Errorf("%s: %d %+v, want %d %s %q and a hint", x.name, status, e, x.status, x.code, x.message)
		}
	}
	if after := c.nodes[0].ledger().Epoch(); after != before {
		t.Errorf("the ledger has changed: %v, was %v", after, before)
	}
	_, e := api.call(t, "POST", "/api/v1/routing-map", mapped("1000-1500"), nil)
	if e.Rows != 2 || e.Offer == nil || e.Offer.Path != "/api/v1/moves" || e.Offer.Body.Range != "1000..1500" || e.Offer.Body.To != "shard_3" || !strings.Contains(e.Hint, "rangefinder move start app.accounts 1000..1500 --to shard_3") {
		t.Errorf("the offer: %+v", e)
	}
	var there RoutingMapView
	if status, e := api.call(t, "POST", "/api/v1/routing-map", mapped("2000-3000"), &there); status != 200 || there.Changed || there.Target != "shard_3" {
		t.Errorf("what is there: %d %+v %+v", status, e, there)
	}
	if code, _, errs := n.admin("range", "map", "1000-1500", "--to", "shard_3"); code != 1 || !strings.Contains(errs, "rangefinder move start") {
		t.Errorf("exit %d: %s", code, errs)
	}
	for _, x := range []struct{ call, body, kind string }{
		{"keyspaces", `{"name": "app.settings", "method": "list", "key": ["name"], "types": ["text"], "values": [{"value": "a", "shard": "shard_1"}], "reason": "why create"}`, "keyspace.2"},
		{"keyspaces/values", `{"keyspace": "app.settings", "values": [{"value": "b", "shard": "shard_2"}], "reason": "why values"}`, "values"},
		{"keyspaces/tables", `{"keyspace": "app.orders", "also": ["app.order_lines"], "key": ["customer"], "reason": "why tables"}`, "tables"},
		{"keyspaces/drop", `{"keyspace": "app.settings", "reason": "why drop"}`, "drop"},
	} {
		if status, e := api.call(t, "POST", "/api/v1/"+x.call, x.body, nil, id("request of "+x.kind)); status != 400 || e.Code != "bad_request" {
			t.Errorf("an id with spaces: %d %+v", status, e)
		}
		if status, e := api.call(t, "POST", "/api/v1/"+x.call, x.body, nil, id("id-"+x.kind)); status/100 != 2 {
			t.Errorf("%s: %d %+v", x.call, status, e)
		}
		if status, e := api.call(t, "GET", "/api/v1/history?limit=1", "", &past); status != 200 || len(past.Events) != 1 {
			t.Fatalf("%d %+v", status, e)
		}
		if last := past.Events[0]; last.Kind != x.kind || last.Author != "loopback" || !strings.HasPrefix(last.Reason, "why ") || last.RequestID != "id-"+x.kind || last.At == nil {
			t.Errorf("%s: the history has %+v", x.call, last)
		}
	}
	list := n.audit.last(3)
	if len(list) != 3 || list[0].Call != "POST /api/v1/keyspaces/drop" || list[0].Code != "" || list[1].Code != "bad_request" {
		t.Errorf("the audit log: %+v", list)
	}

	// While nobody leads, the history can be read all the same: on a voter, and on a node that is none.
	cfg := testConfig(t, "lhr", n.port().Addr())
	cfg.ClusterKeyEnv, cfg.Probe.User, cfg.Probe.PasswordEnv = "CLUSTER_KEY", "probe", "PROBE_PASSWORD"
	other := newNode(t, cfg, clusterEnv()).open(t)
	other.sees(t, "app.orders")
	last := func(v HistoryAnswer) bool { // behind it comes at most that the node is known
		return len(v.Events) == 2 && slices.ContainsFunc(v.Events, func(e EventView) bool { return e.Reason == "why drop" })
	}
	pgtest.Eventually(t, 30*time.Second, func() error { // with a leader, which tells that it is agreed on
		v, err := n.historyHere(t.Context(), HistoryQuery{Limit: 2})
		if n.fib.Load().Ownership().KeyspaceByName("app.settings") != nil || err != nil || !last(v) {
			return fmt.Errorf("the node has not heard of the last command: %w %+v", err, v)
		}
		return nil
	})
	for _, each := range c.nodes {
		if each != n {
			if err := each.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, each := range []*testNode{n, other} {
		v, err := each.History(t.Context(), HistoryQuery{Limit: 2})
		if err != nil || v.Node != n.cfg.Name || !last(v) {
			t.Errorf("%s: %v %+v", each.cfg.Name, err, v)
		}
	}
}

func TestTimesOfARoutingMap(t *testing.T) {
	for ttl, want := range map[int64]time.Duration{1: time.Second, longestTTL: time.Duration(longestTTL) * time.Second} {
		if got, err := lentFor(&ttl); err != nil || got != want {
			t.Errorf("%d: %v %v", ttl, got, err)
		}
	}
	if got, err := lentFor(nil); err != nil || got != 0 {
		t.Errorf("no ttl: %v %v", got, err)
	}
}

func TestWhichKeyspaceARoutingMapMeans(t *testing.T) {
	ranged := func(names ...string) *rib.Ownership {
		o := &rib.Ownership{Keyspaces: []rib.Keyspace{{Name: "hashed", Method: "hash"}}}
		for _, name := range names {
			o.Keyspaces = append(o.Keyspaces, rib.Keyspace{Name: name, Method: "range"})
		}
		return o
	}
	for _, c := range []struct {
		o      *rib.Ownership
		name   string
		want   string
		status int
	}{
		{ranged("a"), "", "a", 0}, {ranged("a", "b"), "b", "b", 0}, {ranged("a", "b"), "", "", 400}, {ranged(), "", "", 422}, {ranged("a"), "hashed", "", 422}, {ranged("a"), "c", "", 404},
	} {
		ks, err := rangeKeyspace(c.o, c.name)
		if err != nil {
			if e := statusOf(err); e.Status != c.status || e.Hint == "" {
				t.Errorf("%+v: %d %v", c, e.Status, err)
			}
			continue
		}
		if ks.Name != c.want {
			t.Errorf("%+v: %s", c, ks.Name)
		}
	}
}

// TestOrdersWithoutANumber: they are about the only move that they make sense for; where there is no such one, or several, nothing is done and the numbers are told.
func TestOrdersWithoutANumber(t *testing.T) {
	office := &fakeOffice{view: exampleView()}
	url := serveOffice(t, office)
	copies := MoveView{ID: 41, Phase: "prepare", Step: "copy"}
	paused := MoveView{ID: 43, Phase: "prepare", Step: "follow", Paused: true}
	flipped := MoveView{ID: 31, Phase: "flipped", Step: "wait"}
	aborted := MoveView{ID: 32, Phase: "aborted", Step: "clean"}
	for _, c := range []struct {
		moves []MoveView
		order string
		want  string // what the node is asked, or the error
	}{
		{[]MoveView{flipped, copies}, "pause", "pause 41"},
		{[]MoveView{flipped, copies, aborted}, "abort", "abort 41"},
		{[]MoveView{copies, paused}, "pause", "pause 41"},
		{[]MoveView{copies, paused}, "resume", "resume 43"},
		{[]MoveView{copies, flipped, paused}, "abort", "3 moves are under way: which one? 41, 43"},
		{[]MoveView{flipped, aborted}, "abort", "2 moves are under way: which one? 31, 32"},
		{[]MoveView{flipped}, "abort", "abort 31"}, // and the node says why not
		{[]MoveView{}, "abort", "no move is under way"},
	} {
		office.moves, office.changes = c.moves, nil
		code, _, errs := runCLI("move", c.order, "--admin", url)
		switch asked := strings.Join(office.changes, "; "); {
		case code == 0 && !strings.HasPrefix(asked, c.want):
			t.Errorf("%s of %+v: the node was asked %q, want %q", c.order, c.moves, asked, c.want)
		case code != 0 && (asked != "" || !strings.Contains(errs, c.want)):
			t.Errorf("%s of %+v: exit %d, asked %q, %s, want %s", c.order, c.moves, code, asked, errs, c.want)
		}
	}
}

func TestRangeAndMoveCommands(t *testing.T) {
	office := &fakeOffice{view: exampleView()}
	url := serveOffice(t, office)
	for _, c := range []struct {
		args []string
		out  string
		call string
	}{
		{[]string{"range", "split", "app.orders", "-1500", "--reason", "hot"}, "app.orders", "split app.orders at [-1500] by loopback"},
		{[]string{"range", "merge", "app.orders", "-5..10"}, "app.orders", "merge app.orders -5..10"},
		{[]string{"range", "map", "1000-2000", "--to", "shard_3", "--ttl", "1h"}, "from shard_2 to shard_3 by move 7, epoch 1/9\ndrained in 12 ms; every node knows it", "map 1000-2000 to shard_3"},
		{[]string{"range", "lent"}, "app.readings  1000..2000  shard_3  shard_2       2030-03-17T17:46:40Z", ""},
		{[]string{"range", "history", "app.orders", "--limit", "5"}, "move.start prepare  app.orders  1000..2000  shard_1  shard_3  7     alice  hot", "history /api/v1/history?keyspace=app.orders&limit=5"},
		{[]string{"move", "start", "app.orders", "1000-2000", "--to", "shard_3"}, "move 7: range 1000..2000 of app.orders, from shard_1 to shard_3\nsee how it goes: rangefinder move status 7", "move app.orders 1000-2000 to shard_3"},
		{[]string{"move", "status"}, "[############............]  50%  prepare copy, 500 rows, 1.0 MiB, 1m1s left", ""},
		{[]string{"move", "status", "9"}, "9     app.orders", ""},
		{[]string{"move", "pause", "7"}, "app.orders", "pause 7"},
		{[]string{"move", "resume", "7", "--reason", "night"}, "app.orders", "resume 7 night"},
		{[]string{"move", "abort"}, "app.orders", "abort 7"},
	} {
		office.changes = nil
		code, out, errs := runCLI(append(c.args, "--admin", url)...)
		if code != 0 || !strings.Contains(out, c.out) {
			t.Errorf("%v: exit %d, want %q\n%s%s", c.args, code, c.out, out, errs)
		}
		if c.call != "" && (len(office.changes) != 1 || !strings.HasPrefix(office.changes[0], c.call)) {
			t.Errorf("%v: the node was asked %q, want %q", c.args, office.changes, c.call)
		}
	}
	over := MoveView{ID: 7, Phase: phaseOver, Step: "flipped", Part: 1}
	office.watched = []MoveView{exampleMove(), {ID: 7, Phase: "frozen", Step: "fence"}, over}
	code, out, _ := runCLI("move", "start", "app.orders", "1000-2000", "--to", "shard_3", "--watch", "--admin", url)
	if code != 0 || !strings.Contains(out, "50%  prepare copy") || !strings.Contains(out, "frozen fence") || !strings.HasSuffix(out, "100%  over flipped\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
	over.Step, over.Why = "aborted", "no slot"
	office.watched = []MoveView{over, over}
	if code, _, errs := runCLI("move", "status", "7", "--watch", "--admin", url); code != 1 || !strings.Contains(errs, "no slot") {
		t.Errorf("an aborted move: exit %d %s", code, errs)
	}
	if code, out, errs := runCLI("move", "abort", "7", "--watch", "--admin", url); code != 0 {
		t.Errorf("abort --watch: exit %d %s%s", code, out, errs)
	}
	for _, args := range [][]string{{"move", "start", "app.orders", "1-2"}, {"move", "status", "--watch"}, {"range", "map", "1-2", "--to", "s", "--ttl", "1ms"}, {"move", "start", "k", "1-2", "--to", "s", "--ttl", "-1s"}} {
		if code, _, errs := runCLI(append(args, "--admin", url)...); code != exitUsage || !strings.Contains(errs, "hint") {
			t.Errorf("%v: exit %d %s", args, code, errs)
		}
	}
	for _, args := range [][]string{{"range", "split"}, {"range", "merge"}, {"range", "map"}, {"range", "history"}, {"move", "start"}} {
		if code, out, _ := runCLI(append(args, "--help")...); code != 0 || !strings.Contains(out, "rangefinder "+strings.Join(args, " ")+" app.") && !strings.Contains(out, "1000-2000") {
			t.Errorf("%v --help teaches nothing:\n%s", args, out)
		}
	}
}

func TestRebalanceCommands(t *testing.T) {
	office := &fakeOffice{view: exampleView()}
	url := serveOffice(t, office)
	var calls []hookCall
	refuse := false
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c hookCall
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		calls = append(calls, c)
		if refuse {
			http.Error(w, "not now", http.StatusConflict)
		}
	}))
	defer hook.Close()
	code, out, errs := runCLI("rebalance", "plan", "--tolerance", "0.2", "--admin", url)
	if code != 0 || !strings.Contains(out, "shard_1  3       30    300 B  0       100 %  33 %") || !strings.Contains(out, "1     app.orders  ..1000      shard_1  shard_2") || len(office.changes) != 1 || !strings.Contains(office.changes[0], "tolerance=0.2") {
		t.Fatalf("exit %d, %q\n%s%s", code, office.changes, out, errs)
	}
	over := MoveView{ID: 7, Phase: phaseOver, Step: "flipped", Part: 1}
	office.changes, office.watched = nil, []MoveView{over, over}
	code, out, errs = runCLI("shard", "fill", "shard_3", "--rest", "0s", "--hook", hook.URL, "--admin", url)
	if code != 0 || len(office.changes) != 2 || office.changes[0] != "/api/v1/rebalance?only=shard_3&tolerance=0.1" || office.changes[1] != "move app.orders ..1000 to shard_3" {
		t.Errorf("exit %d, %q\n%s%s", code, office.changes, out, errs)
	}
	if len(calls) != 2 || calls[0].When != "before" || calls[0].Move.To != "shard_3" || calls[1].When != "after" || calls[1].ID != 7 || calls[1].Err != "" {
		t.Errorf("the hook: %+v", calls)
	}
	for name, c := range map[string]struct {
		set  func()
		want string
	}{
		"the hook":               {func() { refuse = true }, "the hook answered 409"},
		"lag":                    {func() { refuse = false; office.view.Backends[0].ForUs, office.view.Backends[0].LagMS = "up", 60000 }, "1m0s behind"},
		"lag that leaves it out": {func() { office.view.Backends[0].ForUs, office.view.Backends[0].LagMS = "left out", 60000 }, "1m0s behind"},
		"the load":               {func() { office.view.Backends[0].LagMS, office.view.Backends[0].Load = 0, "at limit" }, "is at limit"},
	} {
		refuse, office.view = false, exampleView()
		c.set()
		office.changes = nil
		code, _, errs := runCLI("rebalance", "apply", "--hook", hook.URL, "--admin", url)
		if code != 1 || !strings.Contains(errs, "stopped before move 1") || !strings.Contains(errs, c.want) || len(office.changes) != 1 {
			t.Errorf("%s: exit %d, %q\n%s", name, code, office.changes, errs)
		}
	}
	over.Step, over.Why = "aborted", "no slot"
	office.view, office.watched = exampleView(), []MoveView{over}
	if code, _, errs := runCLI("shard", "empty", "shard_1", "--admin", url); code != 1 || !strings.Contains(errs, "no slot") {
		t.Errorf("a move that is aborted: exit %d %s", code, errs)
	}
}
