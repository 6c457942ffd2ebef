package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
)

// outlook is what a session goes by when it plans, routes and chooses. It is immutable: a coordinator and its branches take it along.
type outlook struct {
	env      *env
	user, db string
	table    *fib.Table
	begun    begun
	catalog  *sqlkey.Catalog
	under    sqlkey.Env
	settings settings
	params   params
	wrote    []wrote
	own      own
	told     map[string]uint64 // what the client has been told of the results of statements in the request, by server-side name: see resultOf
}

// outlook is the core's.
func (c *core) outlook() *outlook {
	o := &outlook{
		env: c.env, user: c.user, db: c.db, table: c.table, begun: c.begun.copied(), catalog: c.catalog, under: c.under, settings: c.settings, params: c.params,
		wrote: slices.Clone(c.wrote), own: c.own,
	}
	o.own.token, o.params.changed = slices.Clone(c.own.token), slices.Clone(c.params.changed)
	for i := range c.ops {
		if s := c.ops[i].stmt; s != nil && s.name != "" && s.shape.Result != 0 {
			if o.told == nil {
				o.told = make(map[string]uint64)
			}
			o.told[c.serverName(s)] = s.shape.Result
		}
	}
	if o.table == nil {
		o.table = c.env.fib.Load()
	}
	if o.catalog == nil {
		o.catalog = c.env.catalog(o.table)
	}
	return o
}

// core makes a core that decides as the session would. It serves nobody.
func (o *outlook) core() *core {
	c := newCore(o.env, o.user, o.db)
	c.table, c.catalog, c.under, c.settings, c.params, c.own = o.table, o.catalog, o.under, o.settings, o.params, o.own
	c.wrote, c.own.token = slices.Clone(o.wrote), slices.Clone(o.own.token)
	c.came = o.env.now()
	c.served = c.came
	c.seg.reads = 1
	return c
}

// host is a session as its coordinator sees it: a scatter.Host.
type host struct {
	// constant
	server  *Server
	id      pool.Identity
	session uint64
	base    settings  // that are brought into force before a branch's transaction begins
	implied []setting // see core.implied

	// atomic
	now atomic.Pointer[outlook]

	finds findings // has a lock of its own

	// owned by the coordinator's goroutine
	last   *outlook
	router *core
	sure   bool // the node had a lease when Shards was last called
}

// see has the coordinator go by what the session goes by. The session calls it before it sends a request.
func (h *host) see(c *core) { h.now.Store(c.outlook()) }

func (h *host) core() *core {
	if o := h.now.Load(); o != h.last {
		h.last, h.router = o, o.core()
	}
	return h.router
}

// Plan is scatter.Host's.
func (h *host) Plan(sql string, types []uint32) *sqlkey.Plan {
	c := h.core()
	return c.env.planner.PlanTyped(c.catalog, &c.under, sql, types)
}

// Route is scatter.Host's.
func (h *host) Route(plan *sqlkey.Plan, args sqlkey.Args) (*fib.Slot, *pg.Error) {
	n, e := h.core().route(plan, args)
	if e == nil && n.many {
		e = pg.NewError(pg.CodeFeatureNotSupported, "the statement's keys belong to different shards").WithHint("Send one statement for each shard.")
	}
	return n.slot, e
}

// Anywhere is scatter.Host's.
func (h *host) Anywhere(plan *sqlkey.Plan, write bool) (*fib.Slot, *pg.Error) {
	c := h.core()
	if slot := AnySlot(c.table, c.catalog, c.db, plan.Copies, plan.Catalogs || len(c.wrote) > 0, write); slot != nil {
		return slot, nil
	}
	return nil, noShard(c.db)
}

// Shards is scatter.Host's.
func (h *host) Shards(ctx context.Context, plan *sqlkey.Plan, args sqlkey.Args) ([]scatter.Share, *pg.Error) {
	c := h.core()
	var slots []*fib.Slot
	switch {
	case plan.Fan != nil && plan.Fan.Everywhere:
		for _, name := range slices.Concat(plan.Copies, plan.Fan.Copies) {
			slot := c.table.Slot(name)
			if slot == nil {
				return nil, UnknownShard(name, nil)
			}
			slots = append(slots, slot)
		}
		for _, id := range plan.Fan.Keyspaces {
			found, e := c.needs(plan.Within(id), nil)
			if e != nil {
				return nil, e
			}
			for _, slot := range found {
				if !slices.Contains(slots, slot) {
					slots = append(slots, slot)
				}
			}
		}
	case plan.Fan != nil && plan.Fan.Split != nil:
		h.sure = false
		return c.rowsOf(plan, args)
	default:
		found, e := c.needs(plan, args)
		if e != nil {
			return nil, e
		}
		slots = append(slots, found...)
	}
	if len(slots) == 0 { // no row can match: any shard says so
		slots = append(slots, c.anyOf(plan.Keyspace))
	}
	if slots[0] == nil {
		return nil, noShard(c.db)
	}
	slices.SortFunc(slots, func(a, b *fib.Slot) int { return cmp.Compare(a.Shard(), b.Shard()) })
	shares := make([]scatter.Share, len(slots))
	for i, slot := range slots {
		shares[i].Slot = slot
	}
	h.sure = false
	if f := plan.Fan; f != nil && !f.Everywhere && f.Deal == nil && (f.Copy == nil || !f.Copy.From) && len(shares) > 1 { // the rows of a COPY, and those that are dealt, go to the owners of their keys
		return shares, h.leaveOut(ctx, plan, shares)
	}
	return shares, nil
}

// Unique is scatter.Host's.
func (h *host) Unique() (int64, error) {
	if h.core().env.unique == nil {
		return 0, errNoUnique
	}
	return h.core().env.unique()
}

// Owner is scatter.Host's.
func (h *host) Owner(plan *sqlkey.Plan, key rib.Key) (*fib.Slot, *pg.Error) {
	owner, ok := h.core().table.Lookup(plan.Keyspace, key)
	if !ok || owner.Slot == nil {
		return nil, NoOwner(plan, "the row's key")
	}
	return owner.Slot, nil
}

// Describes is scatter.Host's.
func (h *host) Describes(plan *sqlkey.Plan) (*fib.Slot, *pg.Error) {
	c := h.core()
	c.catalog = c.env.catalog(c.table)
	if slot := c.homeOf(plan); slot != nil {
		return slot, nil
	}
	return nil, noShard(c.db)
}

// owners finds, in their order, who owns some keys: it is a sqlkey.Shards.
type owners struct {
	table    *fib.Table
	keyspace rib.KeyspaceID
	slots    []*fib.Slot
	err      error
}

// Begin is sqlkey.Shards's.
func (o *owners) Begin() {}

// Key is sqlkey.Shards's.
func (o *owners) Key(k rib.Key) error {
	owner, ok := o.table.Lookup(o.keyspace, k)
	if !ok || owner.Slot == nil {
		return o.err
	}
	o.slots = append(o.slots, owner.Slot)
	return nil
}

// Range is sqlkey.Shards's.
func (o *owners) Range(_, _ rib.Key) error { return o.err }

// rowsOf finds which rows of an INSERT belong to which shard.
func (c *core) rowsOf(plan *sqlkey.Plan, args sqlkey.Args) ([]scatter.Share, *pg.Error) {
	o := &owners{table: c.table, keyspace: plan.Keyspace, err: NoOwner(plan, "the key of one of its rows")}
	buf, err := plan.Shards(o, c.keyBuf[:0], args, c.clientUTF8())
	c.keyBuf = buf
	if err != nil {
		return nil, asError(err)
	}
	var shares []scatter.Share
	for row, slot := range o.slots {
		i := slices.IndexFunc(shares, func(s scatter.Share) bool { return s.Slot == slot })
		if i < 0 {
			i = len(shares)
			shares = append(shares, scatter.Share{Slot: slot})
		}
		shares[i].Rows = append(shares[i].Rows, row)
	}
	slices.SortFunc(shares, func(a, b scatter.Share) int { return cmp.Compare(a.Slot.Shard(), b.Slot.Shard()) })
	return shares, nil
}

// Changed is scatter.Host's.
func (h *host) Changed(name string, desc []byte) *pg.Error {
	told := h.now.Load().told[name]
	if told == 0 {
		return nil
	}
	if now, err := resultOf(desc); err != nil || now == told {
		return nil
	}
	return changedResult()
}

// Home is scatter.Host's.
func (h *host) Home() string {
	c := h.core()
	return c.catalog.CatalogShard(c.db)
}

// types is what is known of the types of the session's database; nil: nothing.
func (h *host) types() *oids.Database {
	if all := h.server.types.Load(); all != nil {
		return (*all)[h.id.Database]
	}
	return nil
}

// Types is scatter.Host's.
func (h *host) Types(shard string) *oids.Map {
	if d := h.types(); d != nil {
		return d.Map(shard)
	}
	return nil
}

// Carries is scatter.Host's.
func (h *host) Carries(oid uint32) bool {
	d := h.types()
	return d != nil && d.Carries(oid)
}

// Learn is scatter.Host's.
func (h *host) Learn(ctx context.Context) {
	if h.server.cfg.Learn != nil {
		h.server.cfg.Learn(ctx, h.id.Database)
	}
}

// MustWrite is scatter.Host's.
func (h *host) MustWrite(plan *sqlkey.Plan) bool {
	return plan.Tx == sqlkey.TxNone && (!repeatable(plan) || plan.OfPrimary)
}

// Failed is scatter.Host's.
func (h *host) Failed(hop *fib.NextHop, sqlstate string) {
	h.now.Load().env.metrics.BackendError(hop.Backend.Name, sqlstate)
	if pg.OfServer(sqlstate) {
		hop.Gauge.Failed()
	}
}

// Choose is scatter.Host's.
func (h *host) Choose(slot *fib.Slot, write bool) scatter.Chooser {
	c := h.now.Load().core()
	c.finds = &h.finds
	return &chooser{h: h, c: c, need: need{slot: slot, write: write}}
}

// chooser finds a connection as a session does for a request of its own: its core takes the same decisions.
type chooser struct {
	h     *host
	c     *core
	need  need
	begun bool
	last  *pool.Conn // what was returned last
	again bool       // the same hop has been tried twice, for its connection was old
}

// Next is scatter.Chooser's.
func (x *chooser) Next(ctx context.Context, claim pool.Claim) (scatter.Link, *pg.Error) {
	c := x.c
	if !x.begun {
		x.begun = true
		c.dispatch(x.need)
	} else if e := x.failed(); e != nil {
		return scatter.Link{}, e
	}
	for {
		switch {
		case c.wanting:
			conn, err := x.get(ctx, claim)
			if errors.Is(err, pool.ErrJam) {
				return scatter.Link{}, pg.NewError(pg.CodeDeadlockDetected, "deadlock detected").
					WithDetail("Transactions over several shards wait for each other's connections to backends; this one waits for " + c.hop.Backend.Name + ".").
					WithHint("Repeat the transaction. It happens where pool.size is small beside the number of clients that use several shards.")
			}
			if err != nil {
				c.refused(err)
				continue
			}
			if c.unproven(conn) {
				conn.Release()
				c.slot.Wrote()
				c.nextHop()
				continue
			}
			if c.shuns(conn) {
				if outgrown(conn) {
					conn.Discard()
				} else {
					conn.Release()
				}
				c.nextHop()
				continue
			}
			switch e, lost := x.prepare(ctx, conn); {
			case lost:
				x.last = conn
				if e := x.failed(); e != nil {
					return scatter.Link{}, e
				}
			case e != nil:
				return scatter.Link{}, e
			default:
				x.last = conn
				return scatter.Link{Conn: conn, Hop: c.hop}, nil
			}
		case c.noPrimary != nil:
			if claim.Placed != nil {
				claim.Placed()
			}
			x.standBy(ctx)
		case c.locates.shard != "":
			if claim.Placed != nil {
				claim.Placed()
			}
			c.located(x.h.server.awaitLocation(ctx, c))
		default:
			return scatter.Link{}, answerOf(c.out)
		}
	}
}

// failed goes on to the next candidate after the last connection has failed.
func (x *chooser) failed() *pg.Error {
	c := x.c
	old := x.last.Connected.Sub(c.env.made) < c.came
	switch {
	case c.left != 0 || c.follows():
		c.env.metrics.Failover(x.last.Backend.Name)
		c.wanting = true
		c.nextHop()
	case old && !x.again: // it may have broken long ago
		x.again, c.wanting = true, true
	default:
		return pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+x.last.Backend.Name+" of shard "+x.need.slot.Shard()+" was lost").
			WithHint("Nothing has taken effect: try it again.")
	}
	return nil
}

// get gets a connection to the hop whose turn it is.
func (x *chooser) get(ctx context.Context, claim pool.Claim) (*pool.Conn, error) {
	pools, b, write := x.h.server.pools, x.c.hop.Backend, x.c.need.write
	began := time.Now()
	claim.Sure = write
	for {
		conn, err := pools.Take(ctx, b, x.h.id, claim)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case !write || !conn.Standby():
			return conn, nil
		case conn.Connected.After(began):
			x.h.server.cfg.Recheck(b.Name)
			conn.Release()
			return nil, errStandby
		}
		conn.Discard()
	}
}

// prepare brings the session's settings into force on a connection. lost: it has broken.
func (x *chooser) prepare(ctx context.Context, conn *pool.Conn) (e *pg.Error, lost bool) {
	want := x.h.base.print
	if conn.Applied != want || unclean(conn, x.h.session) {
		if e, lost = x.enforce(ctx, conn, want); e != nil || lost {
			return e, lost
		}
	}
	if x.h.base.strays(x.h.implied, conn.Params) {
		return x.enforce(ctx, conn, x.h.base.above(x.h.implied).print)
	}
	return nil, false
}

// enforce has a connection's settings be those that a text brings about.
func (x *chooser) enforce(ctx context.Context, conn *pool.Conn, text string) (_ *pg.Error, lost bool) {
	left := unclean(conn, x.h.session)
	stop := context.AfterFunc(ctx, func() { conn.Net.SetDeadline(longAgo) })
	silent := time.AfterFunc(deafPatience, func() {
		ctx, cancel := context.WithTimeout(ctx, deafAfter)
		defer cancel()
		if conn.Silent(ctx) {
			conn.Net.SetDeadline(longAgo)
		}
	})
	_, err := ask(conn, behindReset(conn, left, text))
	if !silent.Stop() && err == nil { // its deadline may pass at any moment
		err = errDeaf
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		cleaned(conn, left, text)
		return nil, false
	}
	conn.Discard()
	var e *pg.Error
	return e, !errors.As(err, &e)
}

// standBy waits for the shard's next primary.
func (x *chooser) standBy(ctx context.Context) {
	wait := x.h.server.live.Load().FailoverWait
	if left := x.c.patience(wait); left > 0 {
		x.c.stoodBy(wait, x.h.server.awaitPrimary(ctx, x.c, left))
	}
}

// answerOf is the error that a core has answered with.
func answerOf(out []byte) *pg.Error {
	if typ, n, err := pg.Next(out, maxServerFrame); err == nil && n > 0 && typ == pg.TypeErrorResponse {
		if e, err := pg.DecodeError(out[pg.HeaderSize:n]); err == nil {
			return e
		}
	}
	return pg.NewError(pg.CodeInternalError, fmt.Sprintf("no way to a shard was found, and no reason: %d bytes", len(out)))
}
