package node

import (
	"net/http"
	"slices"
	"strings"

	"rangefinder/cluster"
	"rangefinder/wire/twophase"
)

// operation is one call of the API: as it is served, and as the OpenAPI document tells of it.
type operation struct {
	method, path string // the path as http.ServeMux has it
	summary      string
	params       []parameter
	body         any      // a value of the body's type; nil: no body
	needs        []string // fields that the body must have
	status       int      // of a success
	later        string   // what the status 202 says beside it; "": it never is
	answer       any      // a value of its type
	failures     []int    // statuses of refusals, besides those of every call
	forwarded    bool     // other nodes pass it on over the cluster port
	inside       bool     // it is for other nodes alone, and not in the document
	handle       http.HandlerFunc
}

// parameter is one of the query, or of the path.
type parameter struct {
	name, about string
	path        bool // it stands in the path, and is required
	required    bool
	number      bool
}

// The answers that are lists.
type (
	// KeyspacesAnswer is the answer of GET /api/v1/keyspaces.
	KeyspacesAnswer struct {
		Keyspaces []KeyspaceView `json:"keyspaces"`
	}
	// FindingsAnswer is the answer of GET /api/v1/keyspaces/check.
	FindingsAnswer struct {
		Findings []cluster.Finding `json:"findings"`
	}
	// RangesAnswer is the answer of GET /api/v1/ranges.
	RangesAnswer struct {
		Epoch  string      `json:"epoch"` // of the newest change to ownership that this node knows
		Ranges []RangeView `json:"ranges"`
	}
)

// operations are all calls of the API.
func (a *api) operations() []operation {
	keyspace := parameter{name: "keyspace", about: "Only this keyspace's."}
	target := []parameter{{name: "kind", about: "region, backend or node", required: true}, {name: "name", about: "Which one.", required: true}}
	return slices.Concat([]operation{
		{
			method: "GET", path: "/api/v1/openapi.json", summary: "This document.", status: 200, answer: map[string]any{}, handle: a.openAPI,
		}, {
			method: "GET", path: "/api/v1/keyspaces", summary: "Sharding rules.", status: 200, answer: KeyspacesAnswer{}, forwarded: true,
			handle: func(w http.ResponseWriter, _ *http.Request) {
				reply(w, http.StatusOK, KeyspacesAnswer{orEmpty(a.office.Keyspaces())})
			},
		}, {
			method: "POST", path: "/api/v1/keyspaces", summary: "Make a keyspace, after the tables and rows on every shard were checked.",
			body: KeyspaceRequest{}, needs: []string{"name", "method"}, status: 201, answer: KeyspaceView{}, failures: []int{400, 409, 422, 503, 504}, forwarded: true,
			handle: taking(http.StatusCreated, a.office.CreateKeyspace),
		}, {
			method: "POST", path: "/api/v1/keyspaces/values", summary: "Give further values of a list to shards.",
			body: cluster.ValuesSpec{}, needs: []string{"keyspace", "values"}, status: 201, answer: KeyspaceView{}, failures: []int{400, 404, 409, 422, 503, 504}, forwarded: true,
			handle: taking(http.StatusCreated, a.office.AddValues),
		}, {
			method: "POST", path: "/api/v1/keyspaces/tables", summary: "Give a keyspace further tables, after they were checked on every shard.",
			body: TablesRequest{}, needs: []string{"keyspace"}, status: 201, answer: KeyspaceView{}, failures: []int{400, 404, 409, 422, 503, 504}, forwarded: true,
			handle: taking(http.StatusCreated, a.office.AddTables),
		}, {
			method: "POST", path: "/api/v1/keyspaces/drop", summary: "Take a keyspace away. Its tables and rows stay, each shard's part where it is.",
			body: cluster.DropSpec{}, needs: []string{"keyspace"}, status: 200, answer: KeyspaceView{}, failures: []int{400, 404, 409, 422, 503, 504}, forwarded: true,
			handle: taking(http.StatusOK, a.office.DropKeyspace),
		}, {
			method: "GET", path: "/api/v1/keyspaces/check", summary: "What is wrong with a keyspace on its shards. Each row's key is read once.",
			params: []parameter{{name: "keyspace", about: "Which one.", required: true}}, status: 200, answer: FindingsAnswer{}, failures: []int{400, 404},
			handle: a.checkKeyspace,
		}, {
			method: "GET", path: "/api/v1/ranges", summary: "Ranges of keys, their owners and epochs.", params: []parameter{keyspace}, status: 200, answer: RangesAnswer{},
			failures: []int{404}, forwarded: true, handle: a.ranges,
		}, {
			method: "GET", path: "/api/v1/users", summary: "Which shards keep the same of users' passwords.",
			params: []parameter{{name: "name", about: "Only this user."}}, status: 200, answer: UsersView{}, failures: []int{503}, handle: a.checkUsers,
		}, {
			method: "POST", path: "/api/v1/users/copy", summary: "Have every shard keep of a user's password what one shard does.",
			body: UserCopy{}, needs: []string{"name", "from"}, status: 200, answer: UsersView{}, failures: []int{400, 404, 409, 422, 503}, handle: a.copyUser,
		}, {
			method: "GET", path: "/api/v1/drains", summary: "What is drained, by whom, since when and why.", status: 200, answer: DrainsAnswer{}, handle: a.drains,
		}, {
			method: "POST", path: "/api/v1/drains", summary: "Drain a region, a backend or a node; with back, take that back.",
			body: DrainRequest{}, needs: []string{"kind", "name"}, status: 200, answer: DrainView{}, failures: []int{400, 404, 409, 503}, handle: a.drain,
		}, {
			method: "GET", path: "/api/v1/drains/left", summary: "What is left on what is drained, as all nodes see it.", params: target,
			status: 200, answer: DrainLeftView{}, failures: []int{400}, handle: a.drainLeft(false),
		}, {
			method: "GET", path: "/api/v1/drains/here", params: target, status: 200, answer: LeftHere{}, inside: true, handle: a.drainLeft(true),
		}, {
			method: "GET", path: loadPath, status: 200, answer: LoadHere{}, inside: true,
			handle: func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.LoadHere()) },
		}, {
			method: "GET", path: "/api/v1/spanning", status: 200, answer: []twophase.Spanning{}, inside: true,
			handle: func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.Spanning()) },
		}, {
			method: "POST", path: "/api/v1/reload", summary: "This one node reads its configuration again.", body: struct{}{},
			status: 200, answer: ReloadAnswer{}, failures: []int{400, 409, 422, 503}, handle: a.reload,
		}, {
			method: "GET", path: "/api/v1/audit", summary: "What this node was asked to change, by whom, and what came of it; newest first.",
			params: []parameter{{name: "limit", about: "At most so many; 100 if absent, 1000 at most.", number: true}}, status: 200, answer: AuditAnswer{}, failures: []int{400},
			handle: a.auditRecords,
		},
	}, a.rangeOperations())
}

// serve registers the calls that a port has. A call by another method is told which there are.
func (a *api) serve(mux *http.ServeMux, has func(*operation) bool) {
	methods := map[string][]string{}
	for _, o := range a.operations() {
		if !has(&o) {
			continue
		}
		mux.HandleFunc(o.method+" "+o.path, o.checked())
		methods[o.path] = append(methods[o.path], o.method)
	}
	for path, list := range methods {
		slices.Sort(list)
		allowed := strings.Join(list, ", ")
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allowed)
			fail(w, &apiError{Status: http.StatusMethodNotAllowed, ErrorView: ErrorView{
				Error: clipped(r.Method, 40) + " is not possible here", Hint: "Possible are: " + allowed + ".",
			}})
		})
	}
}

func (a *api) checkKeyspace(w http.ResponseWriter, r *http.Request) {
	findings, err := a.office.InspectKeyspace(r.Context(), r.URL.Query().Get("keyspace"))
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, FindingsAnswer{orEmpty(findings)})
}
