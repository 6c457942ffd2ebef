package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// Split puts bounds into ranges, on whichever node leads; so do the others here. Who asks, and under which id, is ctx's.
func (n *Node) Split(ctx context.Context, s cluster.SplitSpec) (RangesAnswer, error) {
	sign(ctx, &s.Origin)
	return onLeader(ctx, n, "/api/v1/ranges/split", s, func(ctx context.Context) (v RangesAnswer, err error) {
		ks := n.table.Owners().Get().KeyspaceByName(s.Keyspace)
		if ks == nil {
			return v, noKeyspace(s.Keyspace)
		}
		m, err := rib.MethodByName(ks.Method)
		if err != nil {
			return v, err
		}
		var bounds []rib.Key
		for _, at := range s.At {
			key, err := m.ParseBound(ks.Types, at)
			if err == nil && rib.Lowest(m, ks.Types, key) {
				err = errors.New("there is no key below it")
			}
			if err != nil || len(key) == 0 {
				return v, badBound(ks, at, err)
			}
			bounds = append(bounds, key)
		}
		if ks, err = n.ledger().Split(ctx, s); err != nil {
			return v, err
		}
		has := func(k rib.Key) bool {
			return slices.ContainsFunc(bounds, func(b rib.Key) bool { return b.Compare(k) == 0 })
		}
		return n.changed(ks, func(r *rib.Range) bool { return has(r.From) || has(r.To) }), nil
	})
}

// Merge makes one range of several of one owner.
func (n *Node) Merge(ctx context.Context, s cluster.MergeSpec) (RangesAnswer, error) {
	sign(ctx, &s.Origin)
	return onLeader(ctx, n, "/api/v1/ranges/merge", s, func(ctx context.Context) (v RangesAnswer, err error) {
		ks := n.table.Owners().Get().KeyspaceByName(s.Keyspace)
		if ks == nil {
			return v, noKeyspace(s.Keyspace)
		}
		low, high, err := ks.ParseInterval(s.Range)
		if err != nil {
			return v, badRange(ks, s.Range, err)
		}
		if ks, err = n.ledger().Merge(ctx, s); err != nil {
			return v, err
		}
		return n.changed(ks, func(r *rib.Range) bool { return rib.Meet(r.From, r.To, low, high) }), nil
	})
}

// sign puts the caller's name and id on what is to be in the history.
func sign(ctx context.Context, o *cluster.Origin) {
	o.Author = author(ctx)
	if o.RequestID == "" {
		o.RequestID = requestID(ctx)
	}
	if o.RequestID == "" {
		o.RequestID = randomHex(16)
	}
}

// changed are those ranges of a keyspace that a call was about.
func (n *Node) changed(ks *rib.Keyspace, about func(*rib.Range) bool) RangesAnswer {
	only := *ks
	only.Ranges = nil
	for i := range ks.Ranges {
		if about(&ks.Ranges[i]) {
			only.Ranges = append(only.Ranges, ks.Ranges[i])
		}
	}
	return RangesAnswer{Epoch: n.ledger().Epoch().String(), Ranges: rangeViews(&rib.Ownership{Keyspaces: []rib.Keyspace{only}}, "", -1, n.loadSeen())}
}

// HistoryQuery says which changes to list.
type HistoryQuery struct {
	Keyspace string // "": of all
	Range    string // of it; "": all
	Move     uint64 // 0: all
	Limit    int    // the newest so many
}

// HistoryAnswer is the answer of GET /api/v1/history.
type HistoryAnswer struct {
	Node   string      `json:"node"`   // whose it is: the leader, or, while there is none, a voter, which may lack the last changes
	Events []EventView `json:"events"` // newest first
}

// EventView is one change of the ledger.
type EventView struct {
	Epoch     string     `json:"epoch"`
	At        *time.Time `json:"at,omitempty"`   // by the clock of the node that led then
	Kind      string     `json:"kind"`           // keyspace, split, merge, move.start, move.advance, ...
	Author    string     `json:"author"`         // "": the cluster itself
	Reason    string     `json:"reason"`         //
	RequestID string     `json:"request_id"`     //
	Keyspace  string     `json:"keyspace"`       //
	Range     string     `json:"range"`          // "": the whole keyspace, or none
	From      string     `json:"from"`           // the shard that had the range
	To        string     `json:"to"`             // and the one that gets it
	Move      uint64     `json:"move,omitempty"` // its number
	Phase     string     `json:"phase"`          // that the move came into
	Subject   string     `json:"subject"`        // of what is about no range: the shard's or the node's name
}

// historyPatience is how long the leader is looked for before the history of another voter will do.
const historyPatience = 3 * time.Second

// History lists the ledger's last changes, as the leader has them; without a leader, as some voter has them.
func (n *Node) History(ctx context.Context, q HistoryQuery) (v HistoryAnswer, err error) {
	here := func(context.Context) (HistoryAnswer, error) { return n.historyHere(ctx, q) }
	soon, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	v, err = onLeader(soon, n, q.path(), nil, here)
	if failed := (*apiError)(nil); passedOn(ctx) || ctx.Err() != nil || !errors.As(err, &failed) || failed.Status != http.StatusServiceUnavailable && failed.Status != http.StatusGatewayTimeout {
		return v, err
	}
	if v, here := n.historyHere(ctx, q); here == nil {
		return v, nil
	}
	for _, voter := range n.ledger().Voters() {
		ask, cancel := context.WithTimeout(ctx, leftTimeout)
		failed := n.askNode(ask, rib.Member{Name: voter.Name, Addr: voter.Addr}, q.path(), forwardedBody, &v)
		cancel()
		if failed == nil {
			return v, nil
		}
	}
	return HistoryAnswer{}, err
}

// historyHere is the history as this voter has it.
func (n *Node) historyHere(ctx context.Context, q HistoryQuery) (v HistoryAnswer, err error) {
	f := cluster.HistoryFilter{Keyspace: q.Keyspace, Move: q.Move}
	if q.Range != "" {
		ks := n.table.Owners().Get().KeyspaceByName(q.Keyspace)
		if ks == nil {
			return v, noKeyspace(q.Keyspace)
		}
		if f.Low, f.High, err = ks.ParseInterval(q.Range); err != nil {
			return v, badRange(ks, q.Range, err)
		}
	}
	events, err := n.ledger().History(ctx, f)
	if err != nil {
		return v, err
	}
	if len(events) == 0 && q.Keyspace != "" && n.table.Owners().Get().KeyspaceByName(q.Keyspace) == nil {
		return v, noKeyspace(q.Keyspace)
	}
	v.Node, v.Events = n.state.Node, []EventView{}
	for i := len(events) - 1; i >= 0 && len(v.Events) < q.Limit; i-- {
		v.Events = append(v.Events, eventView(&events[i]))
	}
	return v, nil
}

func eventView(e *cluster.Event) EventView {
	v := EventView{Epoch: e.Epoch.String(), Kind: e.Kind, Author: e.Author, Reason: e.Reason, RequestID: e.Request, Keyspace: e.Keyspace, Range: e.Range,
		From: e.From, To: e.To, Move: e.Move, Subject: e.Subject}
	if e.Phase != 0 {
		v.Phase = e.Phase.String()
	}
	if !e.At.IsZero() {
		v.At = &e.At
	}
	return v
}

// change is what happened, with the phase that a move came into.
func (e *EventView) change() string {
	if e.Move == 0 {
		return e.Kind
	}
	return strings.TrimSpace(e.Kind + " " + e.Phase)
}

func noKeyspace(name string) *apiError {
	return &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{Error: fmt.Sprintf("there is no keyspace %.100q", name), Hint: "See rangefinder keyspace list."}}
}

func badRange(ks *rib.Keyspace, text string, err error) *apiError {
	hint := "Write it as 1000-2000 or 1000..2000, its end is not part of it; ..1000 and 2000.. are open."
	switch {
	case ks.Method == "hash":
		hint = "Write it as 0x4000000000000000..0x8000000000000000, as 'rangefinder range list' shows positions, its end is not part of it; ..0x4000000000000000 and 0x8000000000000000.. are open. " +
			"Keys that follow each other have positions all over: there is no range of keys in a keyspace of the method hash."
	case ks.Listed():
		hint = "Name one of its values, as 'rangefinder range list' shows them."
	}
	return &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
		Code: codeBadRange, Error: fmt.Sprintf("range %.200q: %v", text, err), Hint: hint + " Nothing was changed.",
	}}
}

// badBound is about what does not tell where a range begins; err nil: it is an open end.
func badBound(ks *rib.Keyspace, text string, err error) *apiError {
	if err == nil {
		err = errors.New("there is no key at which a range could begin")
	}
	hint := "A bound is a value of the key's type, as 1500; of a key of several columns the values of the first ones, separated by commas, as 'de,1500'."
	switch {
	case ks.Method == "hash":
		hint = "A bound is a position, as 0x4000000000000000: 'rangefinder range list' shows those that there are."
	case ks.Listed() || ks.Reference():
		hint = "Only keyspaces of the methods hash and range have ranges that can be split."
	}
	return &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
		Code: codeBadRange, Error: fmt.Sprintf("split at %.200q: %v", text, err), Hint: hint + " Nothing was changed.",
	}}
}

// rowsFound is how many rows of a range a shard holds.
type rowsFound struct {
	rows  int64
	least bool     // there may be more
	where []string // by table
}

// mostCounted is up to where rows are counted: whether there are any decides, and how many helps people no more beyond it.
const mostCounted = 10_000

func (c rowsFound) String() string { return number(c.rows, c.least) + " rows" }

func number(n int64, least bool) string {
	if least {
		return fmt.Sprintf("at least %d", n)
	}
	return fmt.Sprint(n)
}

// countRows counts the rows of a range on a shard's primary, table by table, up to mostCounted.
func (n *Node) countRows(ctx context.Context, ks *rib.Keyspace, low, high rib.Key, shard string) (c rowsFound, err error) {
	conn, err := n.connectPrimary(ctx, shard, ks.Database)
	if err != nil {
		return c, fmt.Errorf("shard %s: %w", shard, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return c, err
	}
	if _, err := conn.Exec(ctx, "SET search_path = pg_catalog; SET row_security = off"); err != nil { // an error is better than a count that is too low
		return c, fmt.Errorf("shard %s: %w", shard, err)
	}
	for _, t := range ks.Tables {
		if c.rows >= mostCounted { // what the other tables hold is not looked at
			c.least = true
			break
		}
		columns := rib.QuoteIdents(t.Columns)
		var rows int64
		sql := fmt.Sprintf("SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %d) AS few", t.SQL(), m.Predicate(columns, ks.Types, low, high), mostCounted-c.rows)
		if err := conn.QueryRow(ctx, sql, pgx.QueryExecModeExec).Scan(&rows); err != nil {
			return c, fmt.Errorf("shard %s, table %s: %w", shard, t.Name, err)
		}
		c.rows += rows
		c.least = c.rows >= mostCounted
		if rows > 0 {
			c.where = append(c.where, fmt.Sprintf("%s in %s.%s", number(rows, c.least), t.Schema, t.Name))
		}
	}
	return c, nil
}

// healthyShard says why a shard cannot be given a range now; nil if it can. It goes by the cluster's verdict: that this node could not reach
// a far server within a probe's time does not keep it from asking that longer.
func (n *Node) healthyShard(shard string) error {
	slot := n.fib.Load().Slot(shard)
	if slot == nil {
		return errors.New("no node has announced a backend of shard " + shard)
	}
	c := slot.Candidates()
	if len(c.Writes) == 0 {
		return fmt.Errorf("shard %s has no primary: %s", shard, c.WritesReason)
	}
	for _, b := range n.table.Snapshot().Backends {
		if b.Backend.Name == c.Writes[0].Backend.Name && b.Verdict == rib.Down {
			return fmt.Errorf("shard %s cannot take a range now: its primary %s is down: %s", shard, b.Backend.Name, b.Reason)
		}
	}
	return nil
}

// shardNamed checks the name of a shard that is to get a range. A backend's name is a mistake that is easy to make.
func (n *Node) shardNamed(name string) error {
	o := n.table.Owners().Get()
	if o.Shard(name) != nil {
		return nil
	}
	e := &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{Code: codeUnknownShard, Error: fmt.Sprintf("there is no shard %.100q", name)}}
	var names []string
	for _, s := range o.Shards {
		names = append(names, s.Name)
	}
	e.Hint = "There are: " + orNone(strings.Join(names, ", ")) + ". Nothing was changed."
	for _, b := range n.table.Snapshot().Backends {
		if b.Backend.Name == name {
			e.Hint = fmt.Sprintf("%s is a backend: name its shard, %s. Nothing was changed.", name, b.Backend.Shard)
		}
	}
	return e
}
