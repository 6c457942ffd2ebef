package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rangefinder/cluster"
	"rangefinder/cluster/balance"
	"rangefinder/rib"
	"rangefinder/wire/twophase"
)

// fakeOffice is a node that believes what the test tells it.
type fakeOffice struct {
	view     ClusterView
	notReady []string
	answer   RouteAnswer
	asked    []RouteQuery
	created  []KeyspaceRequest
	added    []cluster.ValuesSpec
	err      error

	reloaded    ReloadAnswer
	reloadError error

	changes []string   // calls about ranges, in words
	moves   []MoveView // what Moves answers; nil: the example
	watched []MoveView // the answers of Move to come
	slow    bool       // a range that is mapped does not change hands while anybody waits

	drained []DrainRequest
	left    []DrainLeftView // the answers to come; the last one stays
	word    *DrainView      // the last word on what is drained
}

func (f *fakeOffice) View() ClusterView         { return f.view }
func (f *fakeOffice) Keyspaces() []KeyspaceView { return f.view.Keyspaces }
func (f *fakeOffice) Reload(string) (ReloadAnswer, error) {
	return f.reloaded, f.reloadError
}

func (f *fakeOffice) CheckUsers(_ context.Context, name string) (UsersView, error) {
	return UsersView{Users: []UserView{{Name: name}}}, f.err
}

func (f *fakeOffice) CopyUser(_ context.Context, c UserCopy) (UsersView, error) {
	return UsersView{Users: []UserView{{Name: c.Name + " from " + c.From}}}, f.err
}

func (f *fakeOffice) Drains() DrainsAnswer { return DrainsAnswer{Drains: f.view.Drains} }

func (f *fakeOffice) Spanning() []twophase.Spanning { return nil }

func (f *fakeOffice) Drain(_ context.Context, r DrainRequest, _ string) (DrainView, error) {
	f.drained = append(f.drained, r)
	return DrainView{Kind: r.Kind, Name: r.Name, Back: r.Back, By: r.By, Why: r.Why, Number: 7, Text: r.Kind + " " + r.Name + " drained"}, f.err
}

func (f *fakeOffice) DrainLeft(context.Context, rib.DrainTarget) DrainLeftView {
	v := f.left[0]
	if len(f.left) > 1 {
		f.left = f.left[1:]
	}
	return v
}

func (f *fakeOffice) DrainLeftHere(t rib.DrainTarget, number uint64) LeftHere {
	if f.word != nil && (f.word.Kind != t.Kind.String() || f.word.Name != t.Name) {
		return LeftHere{}
	}
	return LeftHere{Heard: true, Left: []LeftView{{What: "sessions", Of: t.Name, Count: int(number)}}, Word: f.word}
}

// exampleMove is a move under way.
func exampleMove() MoveView {
	until := time.Unix(1900000000, 0).UTC()
	return MoveView{ID: 7, Keyspace: "app.orders", Range: "1000..2000", From: "shard_1", To: "shard_3", Phase: "prepare", Step: "copy", Rows: 500, Bytes: 1 << 20, Part: 0.5, LeftMS: 61000, Missing: []string{}, Until: &until}
}

func (f *fakeOffice) Split(ctx context.Context, s cluster.SplitSpec) (RangesAnswer, error) {
	f.changes = append(f.changes, fmt.Sprintf("split %s at %v by %s, id %s", s.Keyspace, s.At, author(ctx), requestID(ctx)))
	return RangesAnswer{Epoch: "0.8", Ranges: f.view.Ranges}, f.err
}

func (f *fakeOffice) Merge(_ context.Context, s cluster.MergeSpec) (RangesAnswer, error) {
	f.changes = append(f.changes, fmt.Sprintf("merge %s %s", s.Keyspace, s.Range))
	return RangesAnswer{Epoch: "0.8", Ranges: f.view.Ranges}, f.err
}

func (f *fakeOffice) History(_ context.Context, q HistoryQuery) (HistoryAnswer, error) {
	f.changes = append(f.changes, "history "+q.path())
	at := time.Unix(1800000000, 0).UTC()
	return HistoryAnswer{Events: []EventView{{Epoch: "1/9", At: &at, Kind: "move.start", Author: "alice", Reason: "hot", Keyspace: "app.orders", Range: "1000..2000", From: "shard_1", To: "shard_3", Move: 7, Phase: "prepare"}}}, f.err
}

func (f *fakeOffice) StartMove(_ context.Context, r cluster.MoveRequest) (MoveView, error) {
	f.changes = append(f.changes, fmt.Sprintf("move %s %s to %s", r.Keyspace, r.Range, r.To))
	return exampleMove(), f.err
}

func (f *fakeOffice) Moves(context.Context) (MovesAnswer, error) {
	if f.moves != nil {
		return MovesAnswer{Moves: f.moves}, f.err
	}
	return MovesAnswer{Moves: []MoveView{exampleMove()}}, f.err
}

func (f *fakeOffice) Move(_ context.Context, id uint64) (MoveView, error) {
	m := exampleMove()
	if m.ID = id; len(f.watched) > 0 {
		m = f.watched[0]
		f.watched = f.watched[1:]
	}
	return m, f.err
}

func (f *fakeOffice) ChangeMove(_ context.Context, id uint64, what string, order MoveOrder) (MoveView, error) {
	f.changes = append(f.changes, fmt.Sprintf("%s %d %s", what, id, order.Reason))
	return exampleMove(), f.err
}

func (f *fakeOffice) MapRange(_ context.Context, r RoutingMapRequest) (RoutingMapView, error) {
	f.changes = append(f.changes, fmt.Sprintf("map %s to %s", r.Range, r.Target))
	if f.slow {
		return RoutingMapView{Keyspace: "app.readings", Range: "1000..2000", From: "shard_2", Target: r.Target, Move: 7, Phase: "frozen"}, f.err
	}
	return RoutingMapView{Keyspace: "app.readings", Range: "1000..2000", From: "shard_2", Target: r.Target, Changed: true, Epoch: "1/9", Move: 7, Phase: "over", Drained: &DrainedAs{MS: 12, Missing: []string{}}}, f.err
}

// Rebalance plans two moves, the first of which is to fail if moves are.
func (f *fakeOffice) Rebalance(_ context.Context, q RebalanceQuery) (balance.Plan, error) {
	f.changes = append(f.changes, q.path())
	p, err := balance.Make([]balance.Range{
		{Keyspace: "app.orders", Bounds: "..1000", Shard: "shard_1", Rows: 10, Bytes: 100}, {Keyspace: "app.orders", Bounds: "1000..2000", Shard: "shard_1", Rows: 10, Bytes: 100},
		{Keyspace: "app.orders", Bounds: "2000..", Shard: "shard_1", Rows: 10, Bytes: 100},
	}, balance.Options{Shards: []string{"shard_1", "shard_2", "shard_3"}, Only: q.Only})
	return p, errors.Join(err, f.err)
}

func (f *fakeOffice) Loans() LoansAnswer {
	return LoansAnswer{Loans: []LoanView{{ID: 7, Keyspace: "app.readings", Range: "1000..2000", From: "shard_2", Target: "shard_3", Until: time.Unix(1900000000, 0).UTC()}}}
}

func (f *fakeOffice) NotReady() []string { return f.notReady }
func (f *fakeOffice) RIB() any           { return map[string]string{"table": "rib"} }
func (f *fakeOffice) FIB() any           { return map[string]string{"table": "fib"} }
func (f *fakeOffice) LoadHere() LoadHere { return LoadHere{} }

func (f *fakeOffice) Ranges(_ context.Context, keyspace string) ([]RangeView, string, bool) {
	var list []RangeView
	for _, r := range f.view.Ranges {
		if keyspace == "" || r.Keyspace == keyspace {
			list = append(list, r)
		}
	}
	return list, f.view.Epoch, keyspace == "" || len(list) > 0
}

func (f *fakeOffice) InspectKeyspace(context.Context, string) ([]cluster.Finding, error) {
	return []cluster.Finding{{Severity: cluster.SeverityError, Shards: []string{"shard_1"}, Table: "public.orders", Problem: "it is wrong", Fix: "Mend it."}}, nil
}

func (f *fakeOffice) Route(_ context.Context, q RouteQuery) (RouteAnswer, error) {
	f.asked = append(f.asked, q)
	return f.answer, f.err
}

func (f *fakeOffice) CreateKeyspace(ctx context.Context, r KeyspaceRequest) (KeyspaceView, error) {
	sign(ctx, &r.Origin)
	f.created = append(f.created, r)
	return KeyspaceView{ID: 1, Name: r.Name, Method: r.Method, Types: r.Types, Ranges: len(r.Shards) + len(r.Ranges)}, f.err
}

func (f *fakeOffice) AddValues(_ context.Context, s cluster.ValuesSpec) (KeyspaceView, error) {
	f.added = append(f.added, s)
	return KeyspaceView{ID: 1, Name: s.Keyspace, Method: "list", Values: len(s.Values)}, f.err
}

func (f *fakeOffice) AddTables(_ context.Context, r TablesRequest) (KeyspaceView, error) {
	return KeyspaceView{ID: 1, Name: r.Keyspace, Method: "hash"}, f.err
}

func (f *fakeOffice) DropKeyspace(_ context.Context, s cluster.DropSpec) (KeyspaceView, error) {
	return KeyspaceView{ID: 1, Name: s.Keyspace, Method: "hash"}, f.err
}

func (f *fakeOffice) ForgetNode(_ context.Context, s cluster.ForgetSpec) (ForgottenView, error) {
	return ForgottenView{Node: s.Node, Epoch: "1/2"}, f.err
}

// exampleView is a cluster with one thing of each kind, and one backend that is down for us alone.
func exampleView() ClusterView {
	return ClusterView{
		ClusterID: "c0ffee", Version: "test", Epoch: "0.7", FIB: 12,
		Node:    NodeView{Name: "fra-1", Region: "fra", Started: time.Now().Add(-time.Minute), Postgres: "127.0.2.1:6432", Cluster: "127.0.2.1:7946", HTTP: "127.0.2.1:8080", Lab: []string{"127.0.1.0/24: 90ms"}},
		Members: []MemberView{{Name: "fra-1", Region: "fra", Addr: "127.0.2.1:7946", Self: true, Voter: true}, {Name: "iad-1", Region: "iad", Addr: "127.0.1.1:7946", Leader: true, Voter: true}},
		RTT:     []RTTView{{From: "fra", To: "iad", MS: 90.4}},
		Moves:   []MoveView{exampleMove(), {ID: 8, Keyspace: "app.orders", Range: "3000..4000", From: "shard_1", To: "shard_3", Phase: "flipped"}},
		Lease:   LeaseView{Held: true, LeftMS: 1700},
		Raft:    RaftView{Role: "follower", Term: 3, Leader: "iad-1", Applied: 7, LastContactMS: 12},
		Backends: []BackendView{{
			Name: "iad-db1", Shard: "shard_1", Region: "iad", Addr: "127.0.1.1:5501", Role: "replica", ForAll: "up", ForUs: "down",
			Reason: "1 of 1 observers say up", Evidence: "connect: <timeout>", LagMS: -1,
			Reach: "not from here", WhyUnreached: "this node cannot reach it, others can: connect: <timeout>",
			Routes: []RouteView{{Observer: "iad-1", State: "up", Role: "replica", LatencyMS: 0.4, Stamp: "2.17"}},
		}},
		Keyspaces:   []KeyspaceView{{ID: 1, Name: "app.orders", Database: "app", Method: "hash", Types: []string{"bigint"}, Tables: []TableView{{"public", "orders", []string{"customer_id"}}}, Ranges: 2}},
		Ranges:      []RangeView{{Keyspace: "app.orders", To: "9223372036854775808", Shard: "shard_1", Epoch: "0.6"}, {Keyspace: "app.orders", From: "9223372036854775808", Shard: "shard_2", Epoch: "0.7"}},
		RangesTotal: 2,
		Pools:       []PoolView{{Backend: "iad-db1", InUse: 2, Idle: 1, Waiting: 3, Limit: 20}},
		Alarms:      []string{"shard_9 has two primaries"},
	}
}

func newTestAPI(office backOffice) *api {
	log := slog.New(slog.DiscardHandler)
	return &api{office: office, metrics: http.NotFoundHandler(), log: log, audit: newAuditLog(log), gate: func() gatekeeper { return gatekeeper{} }}
}

// ask sends one request as a local program would.
func ask(t *testing.T, h http.Handler, method, target, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+target, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:40000"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestReadiness(t *testing.T) {
	office := &fakeOffice{notReady: []string{"draining", "no ledger"}}
	h := newTestAPI(office).handler()
	if w := ask(t, h, "GET", "/readyz", ""); w.Code != 503 || w.Body.String() != "not ready: draining; no ledger\n" {
		t.Errorf("readyz = %d %q", w.Code, w.Body)
	}
	if w := ask(t, h, "GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthz = %d", w.Code)
	}
	office.notReady = nil
	if w := ask(t, h, "GET", "/readyz", ""); w.Code != 200 || w.Body.String() != "ready\n" {
		t.Errorf("readyz = %d %q", w.Code, w.Body)
	}
}

func TestWebPagesAreKeptAway(t *testing.T) {
	office := &fakeOffice{view: exampleView()}
	h := newTestAPI(office).handler()
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	for name, want := range map[string]int{
		"127.0.0.1:8080": 200, "localhost:8080": 200, "[::1]:8080": 200, "127.0.2.1": 200, "LOCALHOST": 200,
		"evil.example:8080": 403, "127.0.0.1.evil.example": 403, "": 403, "localhost.evil": 403,
	} {
		if w := ask(t, h, "GET", "/debug/cluster", "", host(name)); w.Code != want {
			t.Errorf("Host %q = %d, want %d", name, w.Code, want)
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"} {
		w := ask(t, h, "POST", "/api/v1/keyspaces", `{"name":"x", "method": "hash"}`, func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		if w.Code != 415 {
			t.Errorf("POST as %q = %d, want 415", kind, w.Code)
		}
	}
	if len(office.created) != 0 {
		t.Errorf("a refused call reached the node: %+v", office.created)
	}
	w := ask(t, h, "POST", "/api/v1/keyspaces", `{"name":"x", "method": "hash"}`, func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") })
	if w.Code != 201 {
		t.Errorf("POST as JSON with a charset = %d %s", w.Code, w.Body)
	}
}

func TestCreateKeyspaceBodies(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		message    string
	}{
		{"empty", "", 400, "the body is empty"},
		{"not JSON", "name: x", 400, "the body is not JSON"},
		{"unknown field", `{"name": "x", "shardz": []}`, 400, `unknown field "shardz"`},
		{"wrong type", `{"name": 7}`, 400, "field name must be a string, not number"},
		{"two objects", `{"name": "x"} {}`, 400, "there is more in the body"},
		{"huge", `{"name": "` + strings.Repeat("x", maxBody) + `"}`, 413, "the body is larger than 1048576 bytes"},
	} {
		office := &fakeOffice{}
		w := ask(t, newTestAPI(office).handler(), "POST", "/api/v1/keyspaces", c.body)
		var e ErrorView
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != c.status || !strings.Contains(e.Error, c.message) {
			t.Errorf("%s: %d %.200s, want %d %q", c.name, w.Code, w.Body, c.status, c.message)
		}
		if len(office.created) != 0 {
			t.Errorf("%s: reached the node", c.name)
		}
	}
}

func TestAddValuesBodies(t *testing.T) {
	office := &fakeOffice{}
	w := ask(t, newTestAPI(office).handler(), "POST", "/api/v1/keyspaces/values", `{"keyspace": "k", "values": [{"value": "de", "shard": "s"}], "request_id": "r"}`)
	if w.Code != 201 || len(office.added) != 1 || office.added[0].Values[0] != (cluster.ValueSpec{Value: "de", Shard: "s"}) || office.added[0].RequestID != "r" {
		t.Errorf("%d %s: %+v", w.Code, w.Body, office.added)
	}
	if w := ask(t, newTestAPI(office).handler(), "POST", "/api/v1/keyspaces/values", `{"keyspace": "k", "value": []}`); w.Code != 400 || len(office.added) != 1 {
		t.Errorf("an unknown field: %d %s", w.Code, w.Body)
	}
}

func TestErrorsHaveStatusAndHint(t *testing.T) {
	office := &fakeOffice{err: &apiError{Status: 503, RetryAfter: 1500 * time.Millisecond, ErrorView: ErrorView{Error: "no leader", Detail: "d", Hint: "h"}}}
	w := ask(t, newTestAPI(office).handler(), "POST", "/api/v1/keyspaces", `{"name": "x", "method": "hash"}`)
	if w.Code != 503 || w.Header().Get("Retry-After") != "2" || !strings.Contains(w.Body.String(), `"hint": "h"`) {
		t.Errorf("%d, Retry-After %q, %s", w.Code, w.Header().Get("Retry-After"), w.Body)
	}
	office.err = errors.New("boom")
	if w := ask(t, newTestAPI(office).handler(), "POST", "/api/v1/keyspaces", `{"name": "x", "method": "hash"}`); w.Code != 500 || !strings.Contains(w.Body.String(), "boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(t, newTestAPI(office).handler(), "DELETE", "/api/v1/keyspaces", "", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }); w.Code != 405 {
		t.Errorf("DELETE = %d", w.Code)
	}
	if w := ask(t, newTestAPI(office).handler(), "GET", "/nothing", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "/debug/route?sql=") {
		t.Errorf("GET /nothing = %d %s", w.Code, w.Body)
	}
}

// TestLedgersWordsBecomeStatuses holds the one place where the ledger's errors meet HTTP.
func TestLedgersWordsBecomeStatuses(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{&cluster.RejectedError{Reason: cluster.ErrInvalid, Text: "x"}, 422},
		{&cluster.RejectedError{Reason: cluster.ErrNameTaken, Text: "x"}, 409},
		{&cluster.RejectedError{Reason: cluster.ErrTableTaken, Text: "x"}, 409},
		{&cluster.RejectedError{Reason: cluster.ErrShardConflict, Text: "x"}, 409},
		{&cluster.RejectedError{Reason: cluster.ErrRequestReused, Text: "x"}, 409},
		{&cluster.RejectedError{Reason: cluster.ErrUnknownShard, Text: "x"}, 422},
		{&cluster.RejectedError{Reason: cluster.ErrValueTaken, Text: "x"}, 409},
		{&cluster.RejectedError{Reason: cluster.ErrNoKeyspace, Text: "x"}, 404},
		{&cluster.NotLeaderError{}, 503},
		{&cluster.OutcomeUnknownError{RequestID: "r", Cause: io.EOF}, 504},
		{cluster.ErrTooBusy, 503},
		{cluster.ErrNoCluster, 503},
		{errors.New("else"), 500},
	} {
		got := statusOf(c.err)
		if got.Status != c.want || got.ErrorView.Error == "" {
			t.Errorf("%v = %d %q, want %d", c.err, got.Status, got.ErrorView.Error, c.want)
		}
		if (c.want == 503) != (got.RetryAfter > 0) {
			t.Errorf("%v: Retry-After %v", c.err, got.RetryAfter)
		}
		if (got.Hint == "") != (c.want == 500) {
			t.Errorf("%v: hint %q", c.err, got.Hint)
		}
	}
}

func TestDebugPage(t *testing.T) {
	office := &fakeOffice{view: exampleView(), answer: RouteAnswer{
		Intent: "read", Target: "keyed", Keyspace: "app.orders", Keys: []string{"customer_id = 42"}, Shard: "shard_1", Reason: "equality on the key",
		Candidates: []CandidateView{{Place: 1, Backend: "fra-db1", Region: "fra", Role: "replica", CostMS: 0.3, Healthy: true, Reason: "closest"}},
		LeftOut:    []CandidateView{{Backend: "iad-db1", Reason: "own evidence"}},
	}}
	h := newTestAPI(office).handler()
	w := ask(t, h, "GET", "/debug?sql=select+%3Cb%3E&arg=7", "")
	page := w.Body.String()
	for _, want := range []string{
		"<!doctype html>", "fra-1", "delay injected: 127.0.1.0/24: 90ms", "this node cannot reach it, others can: connect: &lt;timeout&gt;", `class="up">up`, `class="down">down`,
		"shard_9 has two primaries", "<td class=\"n\">90</td>", "customer_id = 42", "left out: own evidence", "select &lt;b&gt;", "app.orders", "unknown",
		"1000..2000", " 50%  prepare copy", "iad-1 carries it out",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, no := range []string{"http://", "https://", "src=", "<link"} {
		if strings.Contains(page, no) {
			t.Errorf("the page is not self-contained: it holds %q", no)
		}
	}
	if len(office.asked) != 1 || office.asked[0].SQL != "select <b>" || office.asked[0].Args[0] != "7" {
		t.Errorf("asked %+v", office.asked)
	}
	fragment := ask(t, h, "GET", "/debug?fragment=1&sql=select+1", "").Body.String()
	if strings.Contains(fragment, "<html") || !strings.Contains(fragment, "iad-db1") || len(office.asked) != 1 {
		t.Errorf("the fragment is not just the cluster's part: %.300s", fragment)
	}
	// A node that has just started has nothing to show, and shows that.
	office.view, office.notReady = ClusterView{}, []string{"starting"}
	if w := ask(t, h, "GET", "/debug", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "No keyspace yet") {
		t.Errorf("empty view: %d %.300s", w.Code, w.Body)
	}
}

func TestRouteNeedsAStatement(t *testing.T) {
	h := newTestAPI(&fakeOffice{}).handler()
	if w := ask(t, h, "GET", "/debug/route?database=app", ""); w.Code != 400 {
		t.Errorf("without sql = %d", w.Code)
	}
	if w := ask(t, h, "GET", "/debug/route?sql="+strings.Repeat("x", maxSQL+1), ""); w.Code != 400 {
		t.Errorf("with a huge sql = %d", w.Code)
	}
}

func TestRangesOfAKeyspace(t *testing.T) {
	h := newTestAPI(&fakeOffice{view: exampleView()}).handler()
	w := ask(t, h, "GET", "/api/v1/ranges?keyspace=app.orders", "")
	var got struct {
		Epoch  string
		Ranges []RangeView
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Ranges) != 2 || got.Ranges[1].Shard != "shard_2" || got.Epoch != "0.7" {
		t.Errorf("%v %+v", err, got)
	}
	if w := ask(t, h, "GET", "/api/v1/ranges?keyspace=nope", ""); w.Code != 404 {
		t.Errorf("unknown keyspace = %d", w.Code)
	}
}
