package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"rangefinder/cluster"
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
	Ranges(keyspace string) (ranges []RangeView, epoch string, found bool)
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
	Drains() []DrainView
	Drain(r DrainRequest, from string) (DrainView, error)
	DrainLeft(ctx context.Context, t rib.DrainTarget) DrainLeftView
	DrainLeftHere(t rib.DrainTarget, number uint64) LeftHere
	// Spanning lists the transactions of this node that are open on several shards.
	Spanning() []twophase.Spanning
	// CreateKeyspace validates and makes a keyspace, on whichever node leads. Errors are *apiError or mapped by statusOf.
	CreateKeyspace(ctx context.Context, r KeyspaceRequest) (KeyspaceView, error)
	// InspectKeyspace asks the shards what is wrong with a keyspace's tables.
	InspectKeyspace(ctx context.Context, name string) ([]cluster.Finding, error)
	// AddValues gives further values of a keyspace of the list method to shards, as CreateKeyspace does.
	AddValues(ctx context.Context, s cluster.ValuesSpec) (KeyspaceView, error)
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
	open    bool // the HTTP port may be reached by other names than loopback's: --insecure
}

// handler is what people and programs on this machine may ask.
func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	a.v1(mux)
	mux.HandleFunc("POST /api/v1/reload", a.reload) // of this node alone: no other node may ask for it
	mux.HandleFunc("GET /api/v1/users", a.checkUsers)
	mux.HandleFunc("POST /api/v1/users/copy", a.copyUser)
	mux.HandleFunc("GET /api/v1/drains", a.drains)
	mux.HandleFunc("POST /api/v1/drains", a.drain)
	mux.HandleFunc("GET /api/v1/drains/left", a.drainLeft(false))
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
	return a.guard(mux)
}

// forwarded is what another node may ask over the cluster port: the calls that only the leader answers, what is left here of what
// is drained, and which transactions are open on several shards.
func (a *api) forwarded() http.Handler {
	mux := http.NewServeMux()
	a.v1(mux)
	mux.HandleFunc("GET /api/v1/drains/here", a.drainLeft(true))
	mux.HandleFunc("GET /api/v1/spanning", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.Spanning()) })
	mux.HandleFunc("/", notFound)
	return mux
}

func (a *api) v1(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/keyspaces", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, struct {
			Keyspaces []KeyspaceView `json:"keyspaces"`
		}{orEmpty(a.office.Keyspaces())})
	})
	mux.HandleFunc("GET /api/v1/keyspaces/check", func(w http.ResponseWriter, r *http.Request) {
		findings, err := a.office.InspectKeyspace(r.Context(), r.URL.Query().Get("keyspace"))
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, http.StatusOK, struct {
			Findings []cluster.Finding `json:"findings"`
		}{orEmpty(findings)})
	})
	mux.HandleFunc("POST /api/v1/keyspaces", a.createKeyspace)
	mux.HandleFunc("POST /api/v1/keyspaces/values", a.addValues)
	mux.HandleFunc("GET /api/v1/ranges", a.ranges)
	for _, path := range []string{"/api/v1/keyspaces", "/api/v1/keyspaces/values", "/api/v1/ranges"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			fail(w, &apiError{Status: http.StatusMethodNotAllowed, ErrorView: ErrorView{
				Error: r.Method + " is not possible here", Hint: "GET lists; POST makes a keyspace at /api/v1/keyspaces, and adds values to one at /api/v1/keyspaces/values.",
			}})
		})
	}
}

// guard keeps web pages away from a port that asks nobody for a password: a page that a browser shows could otherwise make
// it call 127.0.0.1 (a cross-site POST), or read from it under a name that suddenly points there (DNS rebinding).
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		if !a.open && !loopbackHost(r.Host) {
			fail(w, &apiError{Status: http.StatusForbidden, ErrorView: ErrorView{
				Error: fmt.Sprintf("the Host header %.100q is not an IP address or localhost", r.Host),
				Hint:  "Ask by address, for example http://127.0.0.1:8080.",
			}})
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			// A page's form or simple fetch cannot send this type without asking first, and nobody here answers that question.
			if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
				fail(w, &apiError{Status: http.StatusUnsupportedMediaType, ErrorView: ErrorView{
					Error: "a call that changes something must be Content-Type: application/json",
					Hint:  "curl -H 'Content-Type: application/json' -d '{...}'",
				}})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// loopbackHost accepts what no foreign DNS name can be: an IP address, or localhost.
func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	_, err = netip.ParseAddr(name)
	return err == nil
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
	var c UserCopy
	if err := readJSON(w, r, &c); err != nil {
		fail(w, err)
		return
	}
	v, err := a.office.CopyUser(r.Context(), c)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, v)
}

// reload takes no argument: a body is an empty object.
func (a *api) reload(w http.ResponseWriter, r *http.Request) {
	var none struct{}
	if err := readJSON(w, r, &none); err != nil {
		fail(w, err)
		return
	}
	answer, err := a.office.Reload("HTTP")
	if err != nil {
		fail(w, reloadRefused(err))
		return
	}
	reply(w, http.StatusOK, answer)
}

func (a *api) ranges(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("keyspace")
	ranges, epoch, found := a.office.Ranges(name)
	if !found {
		fail(w, &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{Error: fmt.Sprintf("there is no keyspace %.100q", name), Hint: "See GET /api/v1/keyspaces."}})
		return
	}
	reply(w, http.StatusOK, struct {
		Epoch  string      `json:"epoch"`
		Ranges []RangeView `json:"ranges"`
	}{epoch, orEmpty(ranges)})
}

func (a *api) createKeyspace(w http.ResponseWriter, r *http.Request) {
	var req KeyspaceRequest
	if err := readJSON(w, r, &req); err != nil {
		fail(w, err)
		return
	}
	view, err := a.office.CreateKeyspace(r.Context(), req)
	if err != nil {
		a.log.Info("keyspace refused", "keyspace", req.Name, "error", err)
		fail(w, err)
		return
	}
	reply(w, http.StatusCreated, view)
}

func (a *api) addValues(w http.ResponseWriter, r *http.Request) {
	var spec cluster.ValuesSpec
	if err := readJSON(w, r, &spec); err != nil {
		fail(w, err)
		return
	}
	view, err := a.office.AddValues(r.Context(), spec)
	if err != nil {
		a.log.Info("values refused", "keyspace", spec.Keyspace, "error", err)
		fail(w, err)
		return
	}
	reply(w, http.StatusCreated, view)
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

// readJSON reads one JSON object of bounded size and known fields.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return badRequest("there is more in the body after the JSON object", "Send exactly one object.")
		}
		return nil
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return &apiError{Status: http.StatusRequestEntityTooLarge, ErrorView: ErrorView{
			Error: fmt.Sprintf("the body is larger than %d bytes", maxBody), Hint: "Name fewer ranges in one request.",
		}}
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return badRequest("the body is "+wrongType.Value+", not a JSON object", fieldsHint)
	case errors.As(err, &wrongType):
		return badRequest(fmt.Sprintf("field %s must be %s, not %s", strings.TrimPrefix(wrongType.Field, "KeyspaceSpec."), wrongType.Type, wrongType.Value), fieldsHint)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return badRequest("unknown field "+strings.TrimPrefix(err.Error(), "json: unknown field "), fieldsHint)
	case errors.Is(err, io.EOF):
		return badRequest("the body is empty", "Send one JSON object.")
	}
	return badRequest("the body is not JSON: "+err.Error(), fieldsHint)
}

const fieldsHint = "The fields are in MANUAL.md, section \"The admin API\"."

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
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	reply(w, e.Status, e.ErrorView)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	fail(w, &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{
		Error: fmt.Sprintf("there is nothing at %.100q", r.URL.Path),
		Hint:  "See /debug, /debug/cluster, /debug/rib, /debug/fib, /debug/route?sql=, /debug/pprof, /metrics, /healthz, /readyz, /api/v1/keyspaces, /api/v1/ranges, /api/v1/users, /api/v1/drains, /api/v1/reload.",
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
