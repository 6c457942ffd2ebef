package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// textArgs are arguments as a person types them: all in text form, their types left open.
type textArgs []string

// Arg returns argument i, from 1.
func (a textArgs) Arg(i int) (val []byte, format int16, oid uint32, null, ok bool) {
	if i < 1 || i > len(a) {
		return nil, 0, 0, false, false
	}
	return []byte(a[i-1]), 0, 0, false, true
}

// Route says where a statement would go, by the code that would send it there: the planner that sessions use, the table that
// they look up, and the comparator that orders the candidates.
func (n *Node) Route(_ context.Context, q RouteQuery) (RouteAnswer, error) {
	if n.server == nil {
		return RouteAnswer{}, &apiError{Status: 503, ErrorView: ErrorView{Error: "the node does not serve statements yet"}}
	}
	if q.Database == "" && len(n.cfg().Databases) > 0 {
		q.Database = n.cfg().Databases[0].Name
	}
	if q.User == "" && len(n.cfg().Users) > 0 {
		q.User = n.cfg().Users[0].Name
	}
	if !slices.ContainsFunc(n.cfg().Databases, func(d Listing) bool { return d.Name == q.Database }) {
		return RouteAnswer{}, badRequest(fmt.Sprintf("database %.64q is not configured", q.Database), "See [[databases]] in the node's configuration.")
	}
	catalog := n.server.Catalog()
	plan := n.planner.Plan(catalog, &sqlkey.Env{Database: q.Database, User: q.User}, q.SQL)
	if plan.Explained != nil {
		plan = plan.Explained
	}
	r := &wire.Route{
		SQL: q.SQL, Database: q.Database, User: q.User, Plan: plan, Table: n.fib.Load(), Catalog: catalog, Params: len(q.Args), Args: textArgs(q.Args), UTF8: true,
		Key: func(i int) (rib.Key, error) { return plan.AppendKey(nil, i, textArgs(q.Args), true) },
	}
	for _, d := range n.cfg().Databases {
		if d.Name == q.Database {
			r.Consistency = d.consistency()
			r.Scatter, _ = wire.ParseScatter(d.Scatter) // checked
		}
	}
	return explainPlan(r, n.state.Node, n.cfg().Region, false), nil
}

// whyThere says what the consistency of reads means for a read.
func whyThere(c wire.Consistency) string {
	switch c {
	case wire.Primary:
		return "read_consistency = primary: all reads go to the primary"
	case wire.Eventual:
		return "read_consistency = eventual: reads go to the closest copy, also after a write of the session"
	}
	return "read_consistency = session: after a write of the session its reads go to the primary until a replica is known to have it"
}

// unbound is said of a statement whose shards depend on parameters without a value.
const unbound = "; which of the shards, is said by parameters that have no value yet"

// explainPlan puts a plan and a table together as a session does. open: parameters without a value are no error.
func explainPlan(r *wire.Route, node, region string, open bool) RouteAnswer {
	plan, table := r.Plan, r.Table
	write := plan.Intent == sqlkey.Write
	a := RouteAnswer{
		SQL: r.SQL, Database: r.Database, User: r.User, Node: node, Region: region,
		Target: targetName(plan.Target), Intent: "read", WhyWrite: plan.WhyWrite, Keyspace: plan.KeyspaceName,
		Tables: plan.Tables, Reason: plan.Reason, Hint: plan.Hint, Copies: plan.Copies, Notes: r.Notes, Candidates: []CandidateView{}, LeftOut: []CandidateView{},
	}
	switch {
	case plan.Own != sqlkey.OwnNone:
		return a
	case write:
		a.Intent = "write"
	case plan.Target != sqlkey.None:
		a.Reason = strings.TrimPrefix(a.Reason+"; "+whyThere(r.Consistency), "; ")
		if write = r.Consistency == wire.Primary || r.Primary; write && r.Consistency != wire.Primary {
			a.Reason += "; in this transaction it goes to the primary"
		}
	}
	for _, k := range plan.Keys {
		a.Keys = append(a.Keys, k.Text)
	}
	var e fib.Explanation
	switch plan.Target {
	case sqlkey.None:
		if plan.Hintable() {
			a.Reason += "; a comment can say where it runs: /* rangefinder: key=... */ or /* rangefinder: shard=... */"
		}
		a.Error = statementError(plan.Err)
		return a
	case sqlkey.Unsharded:
		if table.Slot(plan.Shard) == nil {
			a.Error = statementError(wire.UnknownShard(plan.Shard, plan))
			return a
		}
		if problem := wire.LacksCopy(plan.Copies, plan.Shard); problem != nil {
			a.Error = statementError(problem)
			return a
		}
		e = table.ExplainShard(plan.Shard, r.Database, write)
	case sqlkey.Any:
		slot := wire.AnySlot(table, r.Catalog, r.Database, plan.Copies, plan.Catalogs, write)
		if slot == nil {
			a.Error = &StatementError{Code: pg.CodeCannotConnectNow, Message: "no shard is known yet", Hint: "See which backends nodes have announced: rangefinder status."}
			return a
		}
		e = table.ExplainShard(slot.Shard(), r.Database, write)
	case sqlkey.Many:
		one, failed := a.explainMany(r, open)
		if failed != nil || one == "" {
			a.Error = failed
			return a
		}
		e = table.ExplainShard(one, r.Database, write)
	case sqlkey.Keyed:
		keyspace := table.Ownership().Keyspace(plan.Keyspace)
		if keyspace == nil {
			a.Error = &StatementError{Code: pg.CodeCannotConnectNow, Message: "the routing table does not hold keyspace " + plan.KeyspaceName + " yet", Hint: "Ask again in a moment."}
			return a
		}
		var failed *StatementError
		if open && slices.ContainsFunc(plan.Keys, func(k sqlkey.KeyRef) bool { return k.Needs() > r.Params }) {
			a.Shards = keyspace.Shards()
			a.Reason += unbound
			return a
		}
		if e, failed = explainKeys(r, keyspace, write, open); failed != nil {
			a.Error = failed
			return a
		}
	}
	a.Shard, a.Range, a.Epoch = e.Shard, e.Range, e.Epoch
	for _, v := range e.Backends {
		c := CandidateView{Place: v.Order, Backend: v.Backend, Region: v.Region, Addr: v.Addr, Role: v.Role, CostMS: v.CostMS, Healthy: v.Healthy, Drained: v.Drained, Reason: v.Reason}
		if v.Order > 0 {
			a.Candidates = append(a.Candidates, c)
		} else {
			c.Reason = strings.TrimPrefix(c.Reason, "left out: ")
			a.LeftOut = append(a.LeftOut, c)
		}
	}
	if e.Prefers != "" && !write {
		a.Reason = strings.TrimPrefix(a.Reason+"; reads of database "+r.Database+" are "+e.Prefers, "; ")
	}
	if e.Problem != "" {
		a.Reason = strings.TrimPrefix(a.Reason+"; "+e.Problem, "; ")
	}
	if len(a.Candidates) == 0 {
		a.Error = &StatementError{Code: pg.CodeCannotConnectNow, Message: "shard " + e.Shard + " has no backend for this statement now", Detail: e.Problem}
	}
	return a
}

// explainMany says which shards a statement needs, and what becomes of their answers; one is the shard if that is all.
func (a *RouteAnswer) explainMany(r *wire.Route, open bool) (one string, failed *StatementError) {
	plan, table := r.Plan, r.Table
	if plan.Fan.Apart { // each of its statements goes its own way
		return "", nil
	}
	if plan.Fan.Everywhere {
		a.Shards = slices.Concat(plan.Copies, plan.Fan.Copies)
		for _, id := range plan.Fan.Keyspaces {
			if ks := table.Ownership().Keyspace(id); ks != nil {
				a.Shards = append(a.Shards, ks.Shards()...)
			}
		}
		slices.Sort(a.Shards)
		a.Shards = slices.Compact(a.Shards)
		a.explainEach(r, true)
		return "", nil
	}
	var cover fib.Cover
	if !cover.Reset(table, plan.Keyspace) {
		return "", &StatementError{Code: pg.CodeCannotConnectNow, Message: "the routing table does not hold keyspace " + plan.KeyspaceName + " yet", Hint: "Ask again in a moment."}
	}
	if _, err := plan.Shards(&cover, nil, r.Args, r.UTF8); err != nil && open && r.Params < plan.NumParams {
		a.Shards = table.Ownership().Keyspace(plan.Keyspace).Shards()
		a.Reason += unbound
		a.Asks, a.Final = plan.Fan.SQL, plan.Fan.Final
		return "", nil
	} else if err != nil {
		return "", statementError(err)
	}
	for _, s := range cover.Slots(nil) {
		a.Shards = append(a.Shards, s.Shard())
	}
	slices.Sort(a.Shards)
	for _, shard := range a.Shards {
		if problem := wire.LacksCopy(plan.Copies, shard); problem != nil {
			return "", statementError(problem)
		}
	}
	if len(a.Shards) == 1 {
		one, a.Shards = a.Shards[0], nil
		return one, nil
	}
	a.Asks, a.Final = plan.Fan.SQL, plan.Fan.Final
	if r.Scatter == wire.ScatterForbid && plan.Fan.Split == nil && plan.Fan.Copy == nil {
		return "", statementError(wire.Forbidden(plan))
	}
	a.explainEach(r, plan.Intent == sqlkey.Write)
	return "", nil
}

// explainEach says where each shard's part of a statement would go first, by the comparator that orders the candidates.
func (a *RouteAnswer) explainEach(r *wire.Route, write bool) {
	for _, shard := range a.Shards {
		p := PartView{Shard: shard}
		e := r.Table.ExplainShard(shard, r.Database, write)
		for _, v := range e.Backends {
			if v.Order == 1 {
				p.Backend, p.Region, p.Addr, p.Role, p.CostMS, p.Reason = v.Backend, v.Region, v.Addr, v.Role, v.CostMS, v.Reason
			}
		}
		if p.Backend == "" {
			p.Reason = e.Problem
		}
		a.Parts = append(a.Parts, p)
	}
}

// explainKeys finds the one shard of all keys.
func explainKeys(r *wire.Route, keyspace *rib.Keyspace, write, open bool) (e fib.Explanation, failed *StatementError) {
	plan := r.Plan
	for i := range plan.Keys {
		key, err := r.Key(i)
		if err != nil {
			failed := statementError(err)
			if !open && r.Params < plan.NumParams {
				failed.Hint = strings.TrimSpace(failed.Hint + fmt.Sprintf(" The statement has %d parameters and %d values were given: add --arg (or &arg=).", plan.NumParams, r.Params))
			}
			return e, failed
		}
		one := r.Table.Explain(keyspace, key, write)
		if one.Shard == "" {
			return e, statementError(wire.NoOwner(plan, plan.Keys[i].Text))
		}
		if i > 0 && one.Shard != e.Shard {
			return e, statementError(wire.KeysDiffer(plan, i, plan.Keys[0].Text, plan.Keys[i].Text, e.Shard, one.Shard))
		}
		e = one
	}
	if problem := wire.LacksCopy(plan.Copies, e.Shard); problem != nil {
		return e, statementError(problem)
	}
	if problem := wire.HintContradicts(plan, e.Shard); problem != nil {
		return e, statementError(problem)
	}
	return e, nil
}

// explainRoute answers EXPLAIN (ROUTE).
func (n *Node) explainRoute(r *wire.Route) []string {
	a := explainPlan(r, n.state.Node, n.cfg().Region, true)
	if r.JSON {
		b, err := json.MarshalIndent(&a, "", "  ")
		if err != nil { // there is nothing in it that could not be written
			b = []byte("null")
		}
		return []string{string(b)}
	}
	var b strings.Builder
	a.write(&b)
	if a.Error != nil {
		fmt.Fprintf(&b, "%-10s%s %s\n", "error", a.Error.Code, a.Error.Message)
		for _, part := range [][2]string{{"detail", a.Error.Detail}, {"hint", a.Error.Hint}} {
			if part[1] != "" {
				fmt.Fprintf(&b, "%-10s%s\n", part[0], part[1])
			}
		}
	} else if len(a.Candidates)+len(a.LeftOut) > 0 {
		_ = a.writeCandidates(&b) // a builder takes all
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func statementError(err error) *StatementError {
	var e *pg.Error
	if !errors.As(err, &e) || e == nil {
		return &StatementError{Code: pg.CodeInternalError, Message: fmt.Sprint(err)}
	}
	return &StatementError{Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
}

func targetName(t sqlkey.Target) string {
	switch t {
	case sqlkey.Any:
		return "any shard"
	case sqlkey.Unsharded:
		return "unsharded"
	case sqlkey.Keyed:
		return "keyed"
	case sqlkey.Many:
		return "several shards"
	}
	return "none"
}
