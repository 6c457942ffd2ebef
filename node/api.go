package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"rangefinder/cluster"
	"rangefinder/cluster/balance"
	"rangefinder/rib"
	"rangefinder/wire/twophase"
)

// Bounds of what the HTTP port reads.
const (
	maxBody   = 1 << 20  // bytes of a POST
	maxSQL    = 64 << 10 // bytes of ?sql=
	maxHeader = 128 << 10
)

// backOffice is what the HTTP port needs of a node: the node itself, or a fake in tests.
type backOffice interface {
	// View is everything that the node believes of its cluster, at one moment.
	View() ClusterView
	// Keyspaces and Ranges are the ownership that this node routes by. keyspace "" means all; found is false for an unknown one.
	Keyspaces() []KeyspaceView
	Ranges(ctx context.Context, keyspace string) (ranges []RangeView, epoch string, found bool)
	// LoadHere is what this node has counted on ranges.
	LoadHere() LoadHere
	// NotReady lists why the node should get no traffic now; empty: it should.
	NotReady() []string
	// RIB and FIB are dumps for people; anything that JSON can hold.
	RIB() any
	FIB() any
	// Route explains where a statement would go. A statement that cannot be routed is no error: the answer says why.
	Route(ctx context.Context, q RouteQuery) (RouteAnswer, error)
	// Reload reads the configuration again; by says who asked. A *ConfigError names every mistake: then nothing has changed.
	Reload(by string) (ReloadAnswer, error)
	// CheckUsers compares what the shards keep of one user's password, or with "" of all; CopyUser makes them alike.
	CheckUsers(ctx context.Context, name string) (UsersView, error)
	CopyUser(ctx context.Context, c UserCopy) (UsersView, error)
	// Drains lists what operators have drained; Drain changes it, from says who asked. DrainLeft asks all nodes what is left, and
	// DrainLeftHere is what this node would say.
	Drains() DrainsAnswer
	Drain(ctx context.Context, r DrainRequest, from string) (DrainView, error)
	DrainLeft(ctx context.Context, t rib.DrainTarget) DrainLeftView
	DrainLeftHere(t rib.DrainTarget, number uint64) LeftHere
	// Spanning lists the transactions of this node that are open on several shards.
	Spanning() []twophase.Spanning
	// CreateKeyspace validates and makes a keyspace, on whichever node leads. Errors are *apiError or mapped by statusOf.
	CreateKeyspace(ctx context.Context, r KeyspaceRequest) (KeyspaceView, error)
	// InspectKeyspace asks the shards what is wrong with a keyspace's tables.
	InspectKeyspace(ctx context.Context, name string) ([]cluster.Finding, error)
	// Split, Merge, StartMove, ChangeMove (moveAbort, ...) and MapRange change ranges; History lists changes, Moves those under way, Loans the
	// ranges that are to go back. Errors are as for CreateKeyspace.
	Split(ctx context.Context, s cluster.SplitSpec) (RangesAnswer, error)
	Merge(ctx context.Context, s cluster.MergeSpec) (RangesAnswer, error)
	History(ctx context.Context, q HistoryQuery) (HistoryAnswer, error)
	StartMove(ctx context.Context, r cluster.MoveRequest) (MoveView, error)
	Moves(ctx context.Context) (MovesAnswer, error)
	Move(ctx context.Context, id uint64) (MoveView, error)
	ChangeMove(ctx context.Context, id uint64, what string, order MoveOrder) (MoveView, error)
	MapRange(ctx context.Context, r RoutingMapRequest) (RoutingMapView, error)
	Loans() LoansAnswer
	// ForgetNode has nobody wait for a node that is gone for good. Errors are as for CreateKeyspace.
	ForgetNode(ctx context.Context, s cluster.ForgetSpec) (ForgottenView, error)
	// Rebalance measures what the shards hold and do, and works out which ranges should move.
	Rebalance(ctx context.Context, q RebalanceQuery) (balance.Plan, error)
	// AddValues gives further values of a keyspace of the list method to shards, as CreateKeyspace does.
	AddValues(ctx context.Context, s cluster.ValuesSpec) (KeyspaceView, error)
	// AddTables gives a keyspace further tables, and DropKeyspace takes a keyspace away whose rows stay, as CreateKeyspace does.
	AddTables(ctx context.Context, r TablesRequest) (KeyspaceView, error)
	DropKeyspace(ctx context.Context, s cluster.DropSpec) (KeyspaceView, error)
}

// RouteQuery is a question to Route. Empty Database and User mean the first configured ones.
type RouteQuery struct {
	SQL      string
	Database string
	User     string
	Args     []string // in PostgreSQL's text form
}

// apiError is an answer that is not a success: its status and its body.
type apiError struct {
	Status     int
	RetryAfter time.Duration // 0: no such header
	ErrorView
}

// Error returns the message.
func (e *apiError) Error() string { return e.ErrorView.Error }

func badRequest(message, hint string) *apiError {
	return &apiError{Status: http.StatusBadRequest, ErrorView: ErrorView{Error: message, Hint: hint}}
}

// api serves the HTTP port, and calls that other nodes forward over the cluster port.
type api struct {
	office  backOffice
	metrics http.Handler
	log     *slog.Logger
	audit   *auditLog
	gate    func() gatekeeper // what holds for callers of the HTTP port now
}

// handler is what people and programs may ask, of this machine or with a token or certificate.
func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	a.serve(mux, func(o *operation) bool { return !o.inside })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", a.metrics)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/debug", http.StatusFound) })
	mux.HandleFunc("GET /debug", a.page)
	mux.HandleFunc("GET /debug/cluster", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.View()) })
	mux.HandleFunc("GET /debug/rib", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.RIB()) })
	mux.HandleFunc("GET /debug/fib", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.FIB()) })
	mux.HandleFunc("GET /debug/route", a.route)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/", notFound)
	return a.enter(mux)
}

// forwarded is what another node may ask over the cluster port.
func (a *api) forwarded() http.Handler {
	mux := http.NewServeMux()
	a.serve(mux, func(o *operation) bool { return o.forwarded || o.inside })
	mux.HandleFunc("/", notFound)
	return a.enterForwarded(mux)
}

func (a *api) readyz(w http.ResponseWriter, _ *http.Request) {
	if why := a.office.NotReady(); len(why) > 0 {
		text(w, http.StatusServiceUnavailable, "not ready: "+strings.Join(why, "; ")+"\n")
		return
	}
	text(w, http.StatusOK, "ready\n")
}

func (a *api) checkUsers(w http.ResponseWriter, r *http.Request) {
	v, err := a.office.CheckUsers(r.Context(), r.URL.Query().Get("name"))
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, v)
}

func (a *api) copyUser(w http.ResponseWriter, r *http.Request) {
	v, err := a.office.CopyUser(r.Context(), bodyOf[UserCopy](r))
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, v)
}

// reload takes no argument: a body is an empty object.
func (a *api) reload(w http.ResponseWriter, _ *http.Request) {
	answer, err := a.office.Reload("HTTP")
	if err != nil {
		fail(w, reloadRefused(err))
		return
	}
	reply(w, http.StatusOK, answer)
}

func (a *api) ranges(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("keyspace")
	ranges, epoch, found := a.office.Ranges(r.Context(), name)
	if !found {
		fail(w, &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{Error: fmt.Sprintf("there is no keyspace %.100q", name), Hint: "See GET /api/v1/keyspaces."}})
		return
	}
	reply(w, http.StatusOK, RangesAnswer{epoch, orEmpty(ranges)})
}

func (a *api) route(w http.ResponseWriter, r *http.Request) {
	q, err := routeQuery(r)
	if err != nil {
		fail(w, err)
		return
	}
	answer, err := a.office.Route(r.Context(), q)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, answer)
}

func routeQuery(r *http.Request) (RouteQuery, error) {
	v := r.URL.Query()
	q := RouteQuery{SQL: v.Get("sql"), Database: v.Get("database"), User: v.Get("user"), Args: v["arg"]}
	switch {
	case strings.TrimSpace(q.SQL) == "":
		return q, badRequest("the sql parameter is missing", "For example /debug/route?sql=select+1")
	case len(q.SQL) > maxSQL:
		return q, badRequest(fmt.Sprintf("the statement is longer than %d bytes", maxSQL), "Longer ones are routed alike; ask with a shorter one.")
	}
	return q, nil
}

// fail writes an error as its status and body. An error that has neither is a 500: it says what happened and nothing else.
func fail(w http.ResponseWriter, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{Status: http.StatusInternalServerError, ErrorView: ErrorView{Error: err.Error()}}
		var f *Failure
		if errors.As(err, &f) {
			e.Detail, e.Hint = f.Detail, f.Hint
		}
	}
	if e.Code == "" {
		e.Code = codeOf(e.Status)
	}
	if o, ok := w.(*observed); ok {
		o.code, o.message = e.Code, e.ErrorView.Error
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="rangefinder"`)
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	reply(w, e.Status, e.ErrorView)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	fail(w, &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{
		Error: fmt.Sprintf("there is nothing at %.100q", r.URL.Path),
		Hint:  "See /debug, /debug/cluster, /debug/rib, /debug/fib, /debug/route?sql=, /debug/pprof, /metrics, /healthz, /readyz; all of the API is in /api/v1/openapi.json.",
	}})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(body) // whoever asked has gone: nobody is left to tell
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// orEmpty makes a nil list an empty one, which JSON writes as [].
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// newHTTPServer bounds what a client may make the server wait for.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
