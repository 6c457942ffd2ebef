package scatter

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// many runs a statement that several shards answer.
func (c *Coordinator) many(x *execution) *pg.Error {
	plan := x.stmt.plan
	fan := plan.Fan
	switch {
	case fan == nil:
		return c.cannot(x, nil)
	case plan.Explains != nil:
		return c.explain(x, plan.Explains, plan, plan.Explains.SQL)
	case fan.Unnamed != nil:
		return c.unnamed(x)
	case fan.Copy != nil && fan.Copy.Name != "" && fan.Copy.Columns == nil:
		return c.copyNamed(x)
	case fan.Copy != nil && fan.Copy.From:
		return c.copySplit(x)
	case fan.Copy != nil && !fan.Copy.Made:
		return c.copyOut(x)
	case fan.Steps:
		return c.steps(x)
	}
	if fan.Copy != nil {
		x = c.made(x)
	}
	shares, e := c.shares(plan, x)
	if e != nil {
		return e
	}
	if shares, e = c.having(x, shares); e != nil {
		return e
	}
	if e = c.cfg.Host.Scatter(plan, x.stmt.sql, len(shares)); e != nil {
		return e
	}
	if fan.Locks && x.alone && !c.block {
		return pg.NewError(pg.CodeNoActiveTransaction, "LOCK TABLE can only be used in transaction blocks")
	}
	if fan.Rekey != nil {
		return c.rekey(x, shares)
	}
	if fan.Deal != nil {
		return c.deal(x, shares)
	}
	if e = c.fills(fan, shares[0]); e != nil {
		return e
	}
	if fan.Copy != nil && len(shares) > 0 {
		if e = c.copyable(x, shares[0]); e != nil {
			return e
		}
	}
	if fan.Alike() && len(shares) > 1 {
		if e = c.copies(x, shares); e != nil || fan.Once != nil {
			return e
		}
	}
	if e = c.mayWrite(plan, shares); e != nil {
		return e
	}
	if fan.Final != "" && (len(fan.Order) == 0 || c.cfg.Shared.unordered(fan)) {
		return c.fan(x, shares, gathered)
	}
	if fan.Split != nil {
		return c.fan(x, shares, asWritten)
	}
	if len(fan.Order) == 0 || fan.Furthest && len(shares) == 1 {
		return ofOneShard(fan, c.fan(x, shares, asTheyCome))
	}
	if e = c.fan(x, shares, merged); e == errUnordered {
		if fan.Final == "" {
			return c.cannot(x, nil)
		}
		c.cfg.Shared.learn(fan)
		e = c.fan(x, shares, gathered)
	}
	return e
}

// shares are the shards that a statement needs, with what each is asked. If ranges have changed hands since the transaction began, its snapshots must not
// be older.
func (c *Coordinator) shares(plan *sqlkey.Plan, x *execution) ([]Share, *pg.Error) {
	shares, e := c.cfg.Host.Shards(c.ctx, plan, x.args())
	if e != nil && c.ctx.Err() != nil { // while it waited
		return nil, c.stopped()
	}
	if e != nil || len(c.branches) == 0 || !c.cfg.Host.Moved(plan, x.args()) {
		return shares, e
	}
	if e := c.renews(c.open()[0]); e != nil {
		return nil, e
	}
	return shares, nil
}

// renews asks a branch whether each statement of the transaction has a snapshot of its own; nil: it has.
func (c *Coordinator) renews(b *branch) *pg.Error {
	row, e := c.ask(b, &execution{stmt: &stmt{}, bind: noArguments}, "SELECT pg_catalog.current_setting('transaction_isolation')")
	if e != nil || len(row) == 1 && (row[0] == "read committed" || row[0] == "read uncommitted") {
		return e
	}
	return Outlived()
}

// Outlived is the error for a transaction whose one snapshot is older than the owner of a range that it comes to. Sessions say the same.
func Outlived() *pg.Error {
	return pg.NewError(pg.CodeSerializationFailure, "a range of keys has changed hands since the transaction began").
		WithDetail("The transaction sees its shards as they were before, and that is not where the rows are now.").
		WithHint("Nothing of the transaction takes effect: run it again.")
}

// lost is the error for a statement over shards that the node has planned with a lease which it has not any more. One that has ended a moment
// ago is waited for, as long as ctx, the request's or one of it, does not end.
func (c *Coordinator) lost(ctx context.Context) *pg.Error {
	switch {
	case !c.cfg.Host.Lost(ctx):
		return nil
	case ctx.Err() != nil:
		return c.stopped()
	}
	return pg.NewError(pg.CodeCannotConnectNow, "this node has lost the cluster while the statement waited for its turn").
		WithDetail("A range of keys may have begun to change hands, and its rows could have been met twice.").
		WithHint("Try it again, here or on another node.")
}

// errUnordered is that only PostgreSQL knows the order of the rows. It is known before any row has reached the session.
var errUnordered = pg.NewError(pg.CodeFeatureNotSupported, "rows that cannot be merged")

// fan asks all shards, and puts their answers together in one way.
func (c *Coordinator) fan(x *execution, shares []Share, how way) (e *pg.Error) {
	plan, fan := x.stmt.plan, x.stmt.plan.Fan
	f := &fanout{c: c, x: x, fan: fan, write: c.writeFor(plan), how: how, alone: x.alone && plan.Intent == sqlkey.Read, stop: make(chan struct{}), bad: make(chan *pg.Error, 1), memory: ration{of: &c.cfg.Shared.Memory}}
	if f.offset, f.limit, e = counts(fan, x.args()); e != nil {
		return e
	}
	f.ctx, f.cut = context.WithCancel(c.ctx)
	defer f.cut()
	if fan.Furthest && how == merged {
		f.limit = 1
	}
	if how == gathered { // Final has its own
		f.offset, f.limit = 0, -1
	}
	f.begin(shares)
	switch how {
	case merged, asWritten:
		e = f.merge()
	case gathered:
		e = f.gather()
	default:
		e = f.concat()
	}
	return f.end(e)
}

// ofOneShard says where what is defined on all shards may be defined if it needs a table that they do not all have.
func ofOneShard(fan *sqlkey.Fan, e *pg.Error) *pg.Error {
	if e == nil || e.Code != pg.CodeUndefinedTable || fan.Home == "" || e.Hint != "" {
		return e
	}
	return e.WithHint("A table that no keyspace holds is on " + fan.Home + " alone. Have what needs it defined there, by a comment before the statement: /* rangefinder: shard=" + fan.Home +
		" */. Of a function, SET check_function_bodies = off leaves the check out.")
}

// ofColumn says what to do about a name that the plan takes for an output's and that a table's column has: PostgreSQL would group by the column.
func ofColumn(fan *sqlkey.Fan, e *pg.Error) *pg.Error {
	if e.Code != pg.CodeAmbiguousColumn {
		return e
	}
	for _, name := range fan.Outputs {
		if strings.Contains(e.Message, `"`+name+`"`) {
			return pg.NewError(pg.CodeFeatureNotSupported, "GROUP BY names both a column and an output: "+name).
				WithDetail("The column is meant, of which this node did not know when it planned the statement for several shards.").
				WithHint("Qualify the column (table." + name + "), or give the output another name (AS).")
		}
	}
	return e
}

// way is how the shards' rows become the session's.
type way uint8

const (
	asTheyCome way = iota
	merged         // by their order
	asWritten      // in the order of the rows of an INSERT that they come of
	gathered       // and then PostgreSQL makes the answer of them
)

// cannot is where a statement ends that is not run here: because its plan cannot be carried out, or because it needs more memory than it
// may have (why is not nil then). Nothing of it has taken effect, and nothing of it has reached the session. This is the one place where
// another executor, which is given the statement and the shards' rows as foreign tables, is to take over later.
func (c *Coordinator) cannot(x *execution, why *pg.Error) *pg.Error {
	if why != nil {
		return why
	}
	e := pg.NewError(pg.CodeFeatureNotSupported, "the statement needs several shards, and cannot be put together from their answers")
	if fan := x.stmt.plan.Fan; fan != nil && fan.Why != "" {
		e = e.WithDetail(fan.Why + ".")
	}
	return e.WithHint("Bind it to one shard by its key, or simplify it.")
}

// counts are OFFSET and LIMIT. limit is -1 if there is none.
func counts(fan *sqlkey.Fan, args sqlkey.Args) (offset, limit int64, e *pg.Error) {
	limit = -1
	if fan.Offset.Set {
		offset, e = count(fan.Offset, args, "OFFSET", 0)
	}
	if fan.Limit.Set && e == nil {
		limit, e = count(fan.Limit, args, "LIMIT", -1)
	}
	return offset, limit, e
}

func count(n sqlkey.FanCount, args sqlkey.Args, what string, null int64) (int64, *pg.Error) {
	if n.Param == 0 {
		return int64(min(n.Value, 1<<62)), nil
	}
	val, format, _, isNull, ok := args.Arg(n.Param)
	var v int64
	var err error
	switch {
	case !ok:
		return 0, pg.NewError(pg.CodeUndefinedParameter, "there is no parameter $"+strconv.Itoa(n.Param))
	case isNull:
		return null, nil
	case format == pg.FormatText:
		v, err = strconv.ParseInt(strings.TrimSpace(string(val)), 10, 64)
	case len(val) == 8:
		v = int64(binary.BigEndian.Uint64(val))
	case len(val) == 4:
		v = int64(int32(binary.BigEndian.Uint32(val)))
	case len(val) == 2:
		v = int64(int16(binary.BigEndian.Uint16(val)))
	default:
		err = strconv.ErrSyntax
	}
	if err != nil {
		return 0, pg.NewError(pg.CodeInvalidTextRepresentation, "parameter $"+strconv.Itoa(n.Param)+" is no number for "+what)
	}
	if v < 0 {
		code := "2201W" // invalid_row_count_in_limit_clause
		if what == "OFFSET" {
			code = "2201X"
		}
		return 0, pg.NewError(code, what+" must not be negative")
	}
	return v, nil
}
