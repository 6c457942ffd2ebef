package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster"
	"rangefinder/gossip/probe"
	"rangefinder/node/port"
	"rangefinder/rib"
)

const (
	shardRetry    = 5 * time.Second  // after a shard could not be recorded
	leaderWait    = 10 * time.Second // for a leader to be elected, within a call: longer than an election takes
	primaryWait   = 5 * time.Second  // for a recorded shard's primary to appear in the FIB
	shardTimeout  = 10 * time.Second // to ask a primary who it is
	forwardedBody = 16 << 20         // bytes of a forwarded answer: the longest history has some 6 MB
)

// CreateKeyspace makes a keyspace on whichever node leads: here, or over the cluster port. The request id makes it safe to ask
// the next leader when the first one is lost on the way.
func (n *Node) CreateKeyspace(ctx context.Context, r KeyspaceRequest) (KeyspaceView, error) {
	sign(ctx, &r.Origin)
	body := r
	body.Author = "" // the leader is told beside the body, where older ones look for it too
	return onLeader(ctx, n, "/api/v1/keyspaces", body, func(ctx context.Context) (KeyspaceView, error) { return n.createHere(ctx, r) })
}

// AddValues gives values of a list to shards, on whichever node leads, as CreateKeyspace does.
func (n *Node) AddValues(ctx context.Context, s cluster.ValuesSpec) (KeyspaceView, error) {
	sign(ctx, &s.Origin)
	body := s
	body.Author = ""
	return onLeader(ctx, n, "/api/v1/keyspaces/values", body, func(ctx context.Context) (KeyspaceView, error) { return n.addValuesHere(ctx, s) })
}

// AddTables gives a keyspace further tables, on whichever node leads, as CreateKeyspace does.
func (n *Node) AddTables(ctx context.Context, r TablesRequest) (KeyspaceView, error) {
	sign(ctx, &r.Origin)
	return onLeader(ctx, n, "/api/v1/keyspaces/tables", r, func(ctx context.Context) (KeyspaceView, error) { return n.addTablesHere(ctx, r) })
}

// DropKeyspace takes a keyspace out of the ledger, on whichever node leads. Its rows stay where they are.
func (n *Node) DropKeyspace(ctx context.Context, s cluster.DropSpec) (KeyspaceView, error) {
	sign(ctx, &s.Origin)
	return onLeader(ctx, n, "/api/v1/keyspaces/drop", s, func(ctx context.Context) (KeyspaceView, error) { return n.dropHere(ctx, s) })
}

// leads returns a *cluster.NotLeaderError unless this node leads.
func (n *Node) leads() error {
	if n.ledger().IsLeader() {
		return nil
	}
	name, addr := n.ledger().Leader()
	return &cluster.NotLeaderError{Leader: name, Addr: addr}
}

// onLeader has the leader carry out a call: this node, by here, or the one that leads, by the request's body at a path of its API.
func onLeader[V any](ctx context.Context, n *Node, path string, body any, here func(context.Context) (V, error)) (V, error) {
	var deadline time.Time
	if passedOn(ctx) { // by a node that took this one for the leader: it asks again, and whom to ask is for it to find out
		view, err := here(ctx)
		if err != nil {
			return view, statusOf(err)
		}
		return view, nil
	}
	for {
		view, err := tryLeader(ctx, n, path, body, here)
		if err == nil {
			return view, nil
		}
		failed := statusOf(err)
		if failed.Status != http.StatusServiceUnavailable && failed.Status != http.StatusGatewayTimeout {
			return view, failed
		}
		if deadline.IsZero() { // from now on: looking at the shards may have taken long
			deadline = time.Now().Add(leaderWait)
		}
		if time.Now().After(deadline) || !pause(ctx, 100*time.Millisecond) {
			return view, failed
		}
		if n.ledger().Follows() {
			n.askLeader(ctx)
		}
	}
}

func tryLeader[V any](ctx context.Context, n *Node, path string, body any, here func(context.Context) (V, error)) (view V, err error) {
	if n.ledger().IsLeader() {
		return here(ctx)
	}
	name, addr := n.ledger().Leader()
	if addr == "" || name == n.state.Node {
		return view, &cluster.NotLeaderError{}
	}
	return view, n.forward(ctx, name, addr, path, body, &view)
}

// forward asks another node over the cluster port, which is protected by the cluster key. A leader may take long over its answer;
// it is given up when another one leads. call nil: GET.
func (n *Node) forward(ctx context.Context, name, addr, path string, call, into any) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go n.watchLeader(ctx, name, cancel)
	method, body := http.MethodGet, []byte(nil)
	if call != nil {
		method = http.MethodPost
		var err error
		if body, err = json.Marshal(call); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(authorHeader, author(ctx))
	if id := requestID(ctx); id != "" {
		req.Header.Set(requestIDHeader, id)
	}
	resp, err := n.clusterClient(addr).Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return &apiError{Status: http.StatusServiceUnavailable, RetryAfter: retryLeader, ErrorView: ErrorView{
			Error: fmt.Sprintf("the leader %s at %s cannot be asked: %v", name, addr, err),
			Hint:  "Look with 'rangefinder keyspace list' before you repeat it.",
		}}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, forwardedBody))
	if err != nil {
		return fmt.Errorf("read the answer of the leader %s: %w", name, err)
	}
	if resp.StatusCode/100 != 2 {
		failed := &apiError{Status: resp.StatusCode}
		if err := json.Unmarshal(text, &failed.ErrorView); err != nil {
			return fmt.Errorf("the leader %s answered %s and no JSON", name, resp.Status)
		}
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			failed.RetryAfter = time.Duration(seconds) * time.Second
		}
		return failed
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the answer of the leader %s: %w", name, err)
	}
	return nil
}

// clusterClient calls another node over its cluster port.
func (n *Node) clusterClient(addr string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return n.port().Dial(ctx, port.KindAPI, addr)
		},
		DisableKeepAlives: true,
	}}
}

// addValuesHere looks on the shards for rows that would lie wrong and then asks the ledger.
func (n *Node) addValuesHere(ctx context.Context, s cluster.ValuesSpec) (view KeyspaceView, err error) {
	if err := n.leads(); err != nil {
		return view, err
	}
	with, err := s.With(n.table.Owners().Get())
	switch {
	case errors.Is(err, cluster.ErrValueTaken): // by this very request, it may be: the ledger knows
	case err != nil:
		return view, err
	default:
		if err := n.ensureShards(ctx, with); err != nil {
			return view, err
		}
		if err := n.checkShards(ctx, with, false); err != nil {
			return view, err
		}
	}
	made, err := n.ledger().AddValues(ctx, s)
	if err != nil {
		return view, err
	}
	n.log.Info("values added to a keyspace", "keyspace", made.Name, "values", len(s.Values), "epoch", n.ledger().Epoch().String())
	return keyspaceView(made), nil
}

// checkShards holds the shards' rows against a keyspace as it is or would be.
// planned: tables that no shard has are in order.
func (n *Node) checkShards(ctx context.Context, ks *rib.Keyspace, planned bool) error {
	n.log.Info("checking a keyspace against the shards", "keyspace", ks.Name, "ranges", len(ks.Ranges))
	err := cluster.CheckKeyspace(ctx, ks, func(ctx context.Context, shard string) (*pgx.Conn, error) {
		return n.connectPrimary(ctx, shard, ks.Database)
	})
	var obstacles *cluster.CheckError
	if planned && errors.As(err, &obstacles) {
		err = obstacles.Unplanned(len(ks.Shards()))
	}
	if errors.As(err, &obstacles) {
		return checkFailure(obstacles)
	}
	return err
}

// addTablesHere looks at the tables on the shards and then asks the ledger.
func (n *Node) addTablesHere(ctx context.Context, r TablesRequest) (view KeyspaceView, err error) {
	if err := n.leads(); err != nil {
		return view, err
	}
	o := n.table.Owners().Get()
	spec, err := r.resolve(o)
	if err != nil {
		return view, err
	}
	_, added, err := spec.With(o)
	switch {
	case errors.Is(err, cluster.ErrTableTaken): // by this very request, it may be: the ledger knows
	case err != nil:
		return view, err
	default:
		if err := n.checkShards(ctx, added, spec.Planned); err != nil {
			return view, err
		}
		for i := range added.Tables { // of a reference table as the check has found them
			spec.Tables[i].Columns = added.Tables[i].Columns
		}
	}
	made, err := n.ledger().AddTables(ctx, spec)
	if err != nil {
		return view, err
	}
	n.log.Info("tables added to a keyspace", "keyspace", made.Name, "tables", len(spec.Tables), "epoch", n.ledger().Epoch().String())
	view = keyspaceView(made)
	if added != nil {
		view.Warnings = n.warnOf(ctx, added)
	}
	return view, nil
}

// dropHere asks the ledger.
func (n *Node) dropHere(ctx context.Context, s cluster.DropSpec) (view KeyspaceView, err error) {
	if err := n.leads(); err != nil {
		return view, err
	}
	if ks := n.table.Owners().Get().KeyspaceByName(s.Keyspace); ks != nil {
		view = keyspaceView(ks)
	} else {
		view.Name = s.Keyspace
	}
	if err := n.ledger().DropKeyspace(ctx, s); err != nil {
		return KeyspaceView{}, err
	}
	n.log.Info("keyspace dropped", "keyspace", s.Keyspace, "epoch", n.ledger().Epoch().String())
	return view, nil
}

// warnOf tells what of a keyspace's tables will not be as on one server, and the way out of each.
func (n *Node) warnOf(ctx context.Context, ks *rib.Keyspace) []string {
	warnings := n.warnDependents(ctx, ks)
	findings := cluster.InspectTables(ctx, n.table.Owners().Get(), ks, func(ctx context.Context, shard string) (*pgx.Conn, error) {
		return n.connectPrimary(ctx, shard, ks.Database)
	})
	findings = slices.DeleteFunc(findings, func(f cluster.Finding) bool { return f.Table == "" }) // of the servers warnTwoPhase tells
	for i, f := range findings {
		if i == maxWarnings {
			return append(warnings, fmt.Sprintf("there are %d more findings: rangefinder keyspace check %s", len(findings)-i, ks.Name))
		}
		warnings = append(warnings, "table "+f.Table+": "+f.Problem+". "+f.Fix)
	}
	return warnings
}

// InspectKeyspace asks the shards what is wrong with a keyspace's tables, from this node.
func (n *Node) InspectKeyspace(ctx context.Context, name string) ([]cluster.Finding, error) {
	o := n.table.Owners().Get()
	ks := o.KeyspaceByName(name)
	if ks == nil {
		return nil, &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{Error: fmt.Sprintf("there is no keyspace %.100q", name), Hint: "See rangefinder keyspace list."}}
	}
	return cluster.Inspect(ctx, o, ks, func(ctx context.Context, shard string) (*pgx.Conn, error) {
		return n.connectPrimary(ctx, shard, ks.Database)
	})
}

// createHere checks everything against the shards themselves and then asks the ledger.
func (n *Node) createHere(ctx context.Context, r KeyspaceRequest) (view KeyspaceView, err error) {
	if err := n.leads(); err != nil {
		return view, err
	}
	var databases []string
	for _, d := range n.cfg().Databases {
		databases = append(databases, d.Name)
	}
	spec, err := r.resolve(databases)
	if err != nil {
		return view, err
	}
	ks, err := spec.Keyspace()
	if err != nil {
		return view, err
	}
	if err := n.ensureShards(ctx, ks); err != nil {
		return view, err
	}
	if err := n.checkShards(ctx, ks, spec.Planned); err != nil {
		return view, err
	}
	if ks.Reference() {
		spec.Tables = slices.Clone(spec.Tables)
		for i := range spec.Tables {
			spec.Tables[i].Columns = ks.Tables[i].Columns // as the check has found them
		}
	}
	made, err := n.ledger().CreateKeyspace(ctx, spec)
	if err != nil {
		return view, err
	}
	n.log.Info("keyspace made", "keyspace", made.Name, "id", made.ID, "epoch", n.ledger().Epoch().String())
	view = keyspaceView(made)
	view.Warnings = append(n.warnOf(ctx, made), n.warnTwoPhase(ctx, made)...)
	return view, nil
}

// checkFailure says what is wrong on the shards: rows in the wrong place are a conflict, all else is a request that cannot work.
func checkFailure(e *cluster.CheckError) *apiError {
	status, hint := http.StatusUnprocessableEntity, "Mend this on the shards and ask again; nothing was changed."
	for _, o := range e.Obstacles {
		if o.Rows > 0 {
			status, hint = http.StatusConflict, "Nothing was changed. A row must lie on the shard that owns its key before the keyspace is made."
		}
	}
	first, rest, _ := strings.Cut(e.Error(), "\n")
	return &apiError{Status: status, ErrorView: ErrorView{Error: strings.TrimSuffix(first, ":"), Detail: rest, Hint: hint}}
}

// connectPrimary connects to a shard's primary as the FIB has it: what is refused there is refused here.
func (n *Node) connectPrimary(ctx context.Context, shard, database string) (*pgx.Conn, error) {
	deadline := time.Now().Add(primaryWait)
	for {
		var why string
		if slot := n.fib.Load().Slot(shard); slot == nil {
			why = "no node has announced a backend of it"
		} else if c := slot.Candidates(); len(c.Writes) > 0 {
			return n.connect(ctx, c.Writes[0].Backend.Addr, database)
		} else {
			why = c.WritesReason
		}
		if time.Now().After(deadline) || !pause(ctx, 20*time.Millisecond) {
			return nil, fmt.Errorf("no primary: %s", why)
		}
	}
}

// connect opens a connection as the admin user, or as the probe's where none is configured.
func (n *Node) connect(ctx context.Context, addr, database string) (*pgx.Conn, error) {
	// Nothing of this may come from the process's environment or home: PGSERVICE and the like are another program's business.
	c, err := pgx.ParseConfig("host=127.0.0.1 port=1 user=x dbname=x sslmode=disable")
	if err != nil {
		return nil, err
	}
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, err
	}
	s := n.setup.Load()
	user, secret := s.cfg.Admin.User, s.secrets.Admin
	if user == "" {
		user, secret = s.cfg.Probe.User, s.secrets.Probe
	}
	c.Host, c.Port, c.User, c.Password, c.Database = host, uint16(p), user, secret.Reveal(), database
	c.DialFunc, c.ConnectTimeout = n.dialer.DialContext, shardTimeout
	c.TLSConfig, c.Fallbacks = n.backendTLS(addr), nil
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // the dialer does it
	c.RuntimeParams = map[string]string{"application_name": "rangefinder"}
	if !n.tellsPlain(addr) {
		c.RequireAuth = probe.NoPlain
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	return conn, probe.Refusal(err)
}
