package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"rangefinder/cluster"
	"rangefinder/wire"
	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// consoleLook fills in what a SHOW of the ledger shows, by the calls that the admin API makes.
func (n *Node) consoleLook(ctx context.Context, c console.Command, into *console.Snapshot) *pg.Error {
	err := n.lookAt(ctx, c, into)
	return consoleError(ctx, err)
}

func (n *Node) lookAt(ctx context.Context, c console.Command, into *console.Snapshot) error {
	switch c.View {
	case "KEYSPACES":
		o := n.fib.Load().Ownership()
		for i := range o.Keyspaces {
			ks, v := &o.Keyspaces[i], keyspaceView(&o.Keyspaces[i])
			one := console.Keyspace{Name: v.Name, Database: v.Database, Method: v.Method, Key: strings.Join(v.Types, ", "), Ranges: v.Ranges, Shards: strings.Join(ks.Shards(), ", ")}
			var tables []string
			for _, t := range v.Tables {
				tables = append(tables, t.Schema+"."+t.Name+" ("+strings.Join(t.Columns, ", ")+")")
			}
			one.Tables = strings.Join(tables, ", ")
			into.Keyspaces = append(into.Keyspaces, one)
		}
	case "RANGES":
		ranges, _, found := n.Ranges(ctx, c.Keyspace)
		if !found {
			return noKeyspace(c.Keyspace)
		}
		into.Ranges = consoleRanges(ranges)
	case "MOVES":
		if c.Move != 0 {
			m, err := n.Move(ctx, c.Move)
			into.Moves = []console.Move{*consoleMove(&m)}
			return err
		}
		v, err := n.Moves(ctx)
		for i := range v.Moves {
			into.Moves = append(into.Moves, *consoleMove(&v.Moves[i]))
		}
		return err
	case "LENT":
		for _, l := range n.Loans().Loans {
			into.Loans = append(into.Loans, console.Loan{Keyspace: l.Keyspace, Bounds: l.Range, Shard: l.Target, From: l.From, Until: l.Until, Why: l.Why})
		}
	case "HISTORY":
		v, err := n.History(ctx, HistoryQuery{Keyspace: c.Keyspace, Limit: min(cmp.Or(c.Limit, historyShown), maxEvents)})
		for i := range v.Events {
			into.Events = append(into.Events, consoleEvent(&v.Events[i]))
		}
		return err
	}
	return nil
}

func consoleRanges(list []RangeView) []console.Range {
	ranges := make([]console.Range, 0, len(list))
	for i := range list {
		ranges = append(ranges, console.Range{Keyspace: list[i].Keyspace, Bounds: list[i].bounds(), Shard: list[i].Shard, Epoch: list[i].Epoch, Rate: list[i].Rate, Hot: hotText(list[i].Hot)})
	}
	return ranges
}

func consoleMove(m *MoveView) *console.Move {
	return &console.Move{
		ID: m.ID, Keyspace: m.Keyspace, Bounds: m.Range, From: m.From, To: m.To, Phase: m.Phase, Step: m.Step, Part: m.Part, Rows: m.Rows, Bytes: m.Bytes,
		Left: time.Duration(m.LeftMS) * time.Millisecond, Lag: time.Duration(m.LagMS) * time.Millisecond, Changed: m.Changed, Paused: m.Paused,
		Thawed: m.Thawed, Waits: m.Missing, Problem: m.Problem, Why: m.Why,
	}
}

func consoleEvent(x *EventView) console.Event {
	e := console.Event{Epoch: x.Epoch, Change: x.change(), Keyspace: x.Keyspace, Bounds: cmp.Or(x.Range, x.Subject), From: x.From, To: x.To, Move: x.Move,
		Author: x.Author, Reason: x.Reason, Request: x.RequestID}
	if x.At != nil {
		e.At = *x.At
	}
	return e
}

// consoleOrder carries out a command about ranges and moves as the admin API does: with the same checks, and a line in the history and the audit log.
func (n *Node) consoleOrder(ctx context.Context, by wire.Orderer, c console.Command) (console.Table, *pg.Error) {
	begin, id, who := time.Now(), randomHex(16), "console user "+by.User
	t, err := n.ordered(withCaller(withRequestID(ctx, id), caller{who: who, proved: true}), c)
	record := AuditView{Time: begin.UTC(), Who: who, Remote: by.Addr, RequestID: id, Call: c.Verb, Status: http.StatusOK, MS: ms(time.Since(begin))}
	if body, err := json.Marshal(c.Order); err == nil {
		record.Body = audited(body)
	}
	if err != nil {
		e := statusOf(err)
		record.Status, record.Code, record.Message = e.Status, cmp.Or(e.Code, codeOf(e.Status)), clipped(e.ErrorView.Error, 1000)
	}
	n.audit.add(record)
	return t, consoleError(ctx, err)
}

func (n *Node) ordered(ctx context.Context, c console.Command) (t console.Table, err error) {
	origin := cluster.Origin{Reason: c.Reason, RequestID: requestID(ctx)}
	switch c.Verb {
	case console.VerbSplit:
		v, err := n.Split(ctx, cluster.SplitSpec{Keyspace: c.Keyspace, At: c.At, Origin: origin})
		return console.Ranged(consoleRanges(v.Ranges)), err
	case console.VerbMerge:
		v, err := n.Merge(ctx, cluster.MergeSpec{Keyspace: c.Keyspace, Range: c.Range, Origin: origin})
		return console.Ranged(consoleRanges(v.Ranges)), err
	case console.VerbMap:
		v, err := n.MapRange(ctx, RoutingMapRequest{Range: c.Range, Target: c.To, TTL: c.TTL, Keyspace: c.Keyspace, Reason: c.Reason, RequestID: origin.RequestID})
		m := console.Mapping{Keyspace: v.Keyspace, Bounds: v.Range, From: v.From, To: v.Target, Changed: v.Changed, Move: v.Move, Phase: v.Phase, Epoch: v.Epoch}
		if v.Drained != nil {
			m.Waits = v.Drained.Missing
		}
		if v.Until != nil {
			m.Until = *v.Until
		}
		return console.Mapped(&m), err
	}
	var m MoveView
	if c.Verb == console.VerbMove {
		r := cluster.MoveRequest{Keyspace: c.Keyspace, Range: c.Range, To: c.To, Origin: origin}
		var ttl time.Duration
		if ttl, err = lentFor(c.TTL); err != nil {
			return t, err
		}
		if ttl > 0 {
			r.Until = time.Now().Add(ttl)
		}
		m, err = n.StartMove(ctx, r)
	} else {
		what := map[string]string{console.VerbPauseMove: movePause, console.VerbResumeMove: moveResume, console.VerbAbortMove: moveAbort}[c.Verb]
		m, err = n.ChangeMove(ctx, c.Move, what, MoveOrder{Reason: c.Reason, RequestID: origin.RequestID})
	}
	return console.Moved(consoleMove(&m)), err
}

// consoleError is an answer of the admin API to a client of Postgres.
func consoleError(ctx context.Context, err error) *pg.Error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return pg.NewError(pg.CodeQueryCanceled, "canceling statement due to user request").WithHint("It may have been carried out nevertheless: see SHOW MOVES and SHOW HISTORY.")
	}
	e := statusOf(err)
	return pg.NewError(stateOf(e), e.ErrorView.Error).WithDetail(e.Detail).WithHint(e.Hint)
}

// stateOf is the code of PostgreSQL's that comes closest to an answer of the API.
func stateOf(e *apiError) string {
	switch cmp.Or(e.Code, codeOf(e.Status)) {
	case codeNotFound, codeUnknownShard:
		return pg.CodeUndefinedObject
	case codeBadRequest, codeBadRange, codeTTL, codeCannotWork:
		return pg.CodeInvalidParameterValue
	case codeMoving, codeAlive, codeBackendUp:
		return pg.CodeObjectInUse
	case codeTooMany:
		return pg.CodeConfigurationLimitExceeded
	case codeUnknown:
		return pg.CodeStatementCompletionUnknown
	case codeUnavailable:
		return pg.CodeSystemError
	case codeInternal:
		return pg.CodeInternalError
	}
	return pg.CodeObjectNotInPrerequisiteState // something has to change first: conflict, several_owners, rows_present, obstacles, ...
}
