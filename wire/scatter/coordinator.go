package scatter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
	"rangefinder/wire/twophase"
)

// Config is what a Coordinator needs.
type Config struct {
	Host      Host
	Identity  pool.Identity
	Session   uint64 // see pool.Conn.Left
	MaxFrame  int    // bytes of one message of the session's
	Write     bool   // all branches are to be primaries
	Shared    *Shared
	Committer Committer // nil: a transaction may write on one shard only

	Panicked func(with any) // told of a panic, in the goroutine that has panicked; it ends the session and no other

	Watch func(twophase.Span) (forget func()) // has somebody look whether transactions wait for each other; nil: nobody does

	// Of a transaction that is open already: see Adopt.
	Begin  string   // what it has begun with; "": BEGIN
	Replay []string // what has been done in it that another branch has to repeat: SET, SET LOCAL, SAVEPOINT, in their order
	Marks  []Mark   // its savepoints
}

// Mark is a savepoint.
type Mark struct {
	Name string
	At   int // the length of Config.Replay with it
}

// Coordinator is the server that a session has instead of a backend: see the package's documentation. Serve runs it.
type Coordinator struct {
	// constant
	cfg Config
	nc  net.Conn // its end of the socket pair

	holder *pool.Holder   // of all its branches
	after  sync.WaitGroup // cancel requests for connections that are closed

	crashed atomic.Bool // see crash

	// guarded by mu
	mu      sync.Mutex
	stop    context.CancelCauseFunc // ends the request in hand; nil: there is none
	since   time.Time               // when that came
	live    map[*branch]struct{}    // all that are connected
	wrote   []Wrote
	notices []byte // of the shards of the statement in hand
	closed  bool

	// owned by Serve's goroutine
	in       []byte
	off      int
	unread   int // of in and of what is to come: bytes that are nobody's any more
	out      []byte
	gone     error // the session does not take what it is sent
	batch    []byte
	ops      []op
	ctx      context.Context // of the request in hand
	stmts    map[string]*stmt
	portals  map[string]*portal
	cursors  map[string]*sqlCursor // of SQL, but for those that were there when it began
	adopted  *branch               // see Adopt; nil: there is none
	branches map[string]*branch    // by shard
	watched  func()                // what Config.Watch returned; nil: nobody watches
	pending  []pending             // answers that are the session's if what comes behind them is in order
	skip     bool                  // discard up to the Sync
	block    bool                  // the session's transaction block is open
	failed   bool                  // the transaction has failed, be it a block or not
	readOnly bool
	unseen   []string // relations that it has made of sharded tables
	shaped   bool     // it may have made tables that the catalogs of one shard alone tell of
	writes   bool     // something in the request in hand must run on primaries
	begin    string
	journal  []string
	marks    []Mark
	held     []byte // of a Query: the last CommandComplete, until it is committed
	copying  bool   // it was a COPY FROM that came with a Sync, which is ignored as PostgreSQL does
}

// New makes a coordinator on nc. It does nothing before Serve.
func New(nc net.Conn, cfg Config) *Coordinator {
	c := &Coordinator{
		cfg: cfg, nc: nc, holder: pool.NewHolder(), live: make(map[*branch]struct{}), branches: make(map[string]*branch),
		stmts: make(map[string]*stmt), portals: make(map[string]*portal), cursors: make(map[string]*sqlCursor),
	}
	if cfg.Begin != "" {
		c.block, c.begin, c.journal, c.marks = true, cfg.Begin, cfg.Replay, cfg.Marks
	}
	return c
}

// Adopt makes a connection, with the transaction that is open on it, the branch on its shard. wrote: the transaction may have
// written there. It is called before Serve.
func (c *Coordinator) Adopt(l Link, shard string, b Adopted) {
	x := &branch{slot: b.Slot, conn: l.Conn, hop: l.Hop, write: b.Write, wrote: b.Wrote, opaque: b.Opaque, stale: true, status: pg.StatusInTx, rests: time.Now()}
	x.numbers = numbers{types: c.cfg.Host.Types(shard), of: c.cfg.Host}
	c.readOnly, c.shaped = b.ReadOnly, b.Shaped
	l.Conn.HeldBy(c.holder)
	c.branches[shard], c.adopted = x, x
	c.live[x] = struct{}{}
}

// Serve serves the session until that closes its end, or ctx ends. Then all branches are closed or given back.
func (c *Coordinator) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.Closed(); c.nc.Close() })
	defer stop()
	defer c.after.Wait()
	defer c.end()
	_ = c.guard(func() *pg.Error {
		for c.gone == nil {
			typ, body, err := c.next()
			if err != nil {
				break
			}
			c.message(ctx, typ, body)
		}
		return nil
	})
}

// end gives up what is left.
func (c *Coordinator) end() {
	c.nc.Close()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.unwatch()
	for shard, b := range c.branches {
		delete(c.branches, shard)
		if b.status != pg.StatusIdle {
			b.broken = true // a closed connection rolls back
		}
		c.release(b)
	}
}

// Cancel cancels what runs for the session on all branches: it is a pool.Local.
func (c *Coordinator) Cancel(ctx context.Context) error {
	c.mu.Lock()
	if c.stop != nil {
		c.stop(errCanceled)
	}
	c.mu.Unlock()
	return c.cancelAll(ctx)
}

func (c *Coordinator) cancelAll(ctx context.Context) error {
	c.mu.Lock()
	list := make([]*branch, 0, len(c.live))
	for b := range c.live {
		list = append(list, b)
	}
	c.mu.Unlock()
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, b := range list {
		wg.Go(func() {
			_ = c.guard(func() *pg.Error {
				errs[i] = b.cancel(ctx)
				return nil
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// cancelLive cancels what runs on all branches, and waits until their backends have taken that.
func (c *Coordinator) cancelLive() {
	ctx, cancel := context.WithTimeout(context.Background(), cancelLimit)
	defer cancel()
	_ = c.cancelAll(ctx) // what is not heard runs to its end
}

// cancelLimit bounds how long it may take.
const cancelLimit = 5 * time.Second

// Closed tells that the session does not listen any more: it is a pool.Local.
func (c *Coordinator) Closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.stop != nil {
		c.stop(errGone)
	}
	for b := range c.live {
		go b.strike() // a cancel request may be under way for one
	}
}

var (
	errGone     = errors.New("scatter: the session is gone")
	errCanceled = &pg.Error{Severity: "ERROR", Code: pg.CodeQueryCanceled, Message: "canceling statement due to user request"}
)

// stopped is why ctx has ended, or one of it.
func (c *Coordinator) stopped() *pg.Error {
	if e, ok := context.Cause(c.ctx).(*pg.Error); ok {
		return e
	}
	return errCanceled
}

// next reads the session's next message. The body holds until the next call.
func (c *Coordinator) next() (typ byte, body []byte, err error) {
	for {
		if c.unread > 0 {
			n := min(c.unread, len(c.in)-c.off)
			c.unread, c.off = c.unread-n, c.off+n
		}
		if c.unread == 0 {
			typ, n, err := pg.Next(c.in[c.off:], max(c.cfg.MaxFrame, readSize)+512) // it was bounded before; names may be longer now
			if err != nil {
				return 0, nil, err
			}
			if n > 0 {
				body = c.in[c.off+pg.HeaderSize : c.off+n]
				c.off += n
				return typ, body, nil
			}
		}
		if err := c.read(pg.Want(c.in[c.off:])); err != nil {
			return 0, nil, err
		}
	}
}

// read reads what there is of the session's, with room for want bytes from off on.
func (c *Coordinator) read(want int) error {
	if c.off > 0 {
		c.in = c.in[:copy(c.in, c.in[c.off:])]
		c.off = 0
	}
	if want = max(want, len(c.in)+1); want > cap(c.in) {
		grown := make([]byte, len(c.in), max(want, 4096, 2*cap(c.in)))
		copy(grown, c.in)
		c.in = grown
	}
	m, err := c.nc.Read(c.in[len(c.in):cap(c.in)])
	if c.in = c.in[:len(c.in)+m]; m == 0 && err != nil {
		return err
	}
	return nil
}

const clientFlush = 64 << 10

// emit sends the session something, sooner or later.
func (c *Coordinator) emit(p []byte) error {
	c.out = append(c.out, p...)
	if len(c.out) >= clientFlush {
		return c.flush()
	}
	return c.gone
}

// flush sends the session what is due. It waits for it to be taken.
func (c *Coordinator) flush() error {
	if c.gone == nil && len(c.out) > 0 {
		_, c.gone = c.nc.Write(c.out)
	}
	c.out = c.out[:0]
	return c.gone
}

// message handles one message of the session's. Those of the extended protocol are kept until it is known what ends them.
func (c *Coordinator) message(ctx context.Context, typ byte, body []byte) {
	switch typ {
	case pg.TypeParse, pg.TypeBind, pg.TypeDescribe, pg.TypeExecute, pg.TypeClose:
		if !c.skip {
			start := len(c.batch)
			c.batch = append(c.batch, body...)
			c.ops = append(c.ops, op{typ: typ, start: start, end: len(c.batch)})
		}
		return
	case pg.TypeCopyData, pg.TypeCopyDone, pg.TypeCopyFail: // the rest of a COPY that has failed
		return
	case pg.TypeSync, pg.TypeFlush, pg.TypeQuery, pg.TypeFunction:
	default:
		c.gone = fmt.Errorf("scatter: a message of type %q", typ)
		return
	}
	var stop context.CancelCauseFunc
	c.ctx, stop = context.WithCancelCause(ctx)
	defer stop(nil)
	c.mu.Lock()
	c.stop, c.since = stop, time.Now()
	if c.closed {
		stop(errGone)
	}
	c.mu.Unlock()
	c.touch(time.Now(), touchBetween)
	text := ""
	if typ == pg.TypeQuery {
		sql, err := pg.DecodeQuery(body)
		if err != nil {
			c.gone = err
			return
		}
		text = string(sql)
	}
	c.segment(typ == pg.TypeSync)
	c.copying = c.copying && typ == pg.TypeSync // else the Sync that comes is another one
	switch typ {
	case pg.TypeQuery:
		c.query(text)
	case pg.TypeFunction:
		c.fail(pg.NewError(pg.CodeFeatureNotSupported, "a function call of the fast-path protocol cannot be part of a transaction over several shards").
			WithHint("Call the function by SELECT."))
		c.ready()
	case pg.TypeSync:
		if c.copying { // PostgreSQL has read it as part of the COPY
			c.copying = false
			break
		}
		c.skip = false
		c.settle()
		c.ready()
	}
	if c.crashed.Load() {
		c.gone = errCrashed
	}
	_ = c.flush()
	c.touch(time.Now(), touchBetween)
	c.mu.Lock()
	c.stop = nil
	c.mu.Unlock()
}

// fail answers with an error.
func (c *Coordinator) fail(e *pg.Error) {
	c.pending = c.pending[:0]
	c.held = c.held[:0]
	c.out = pg.AppendError(c.out, e)
	c.failed = true
}

// settle ends the transaction at a Sync, or at the end of a Query, unless a block is open.
func (c *Coordinator) settle() {
	c.settlePending()
	if c.block {
		return
	}
	if c.failed {
		c.rollback(c.ctx)
	} else if e := c.commit(c.ctx); e != nil {
		c.fail(e)
	}
	c.clear()
}

// clear forgets the transaction.
func (c *Coordinator) clear() {
	c.block, c.failed, c.readOnly, c.writes, c.shaped = false, false, false, false, false
	c.begin, c.journal, c.marks, c.adopted = "", nil, nil, nil
	clear(c.cursors)
	for name, p := range c.portals {
		c.forget(p)
		delete(c.portals, name)
	}
}

// ready ends the answer to a request.
func (c *Coordinator) ready() {
	c.out = append(c.out, c.held...)
	c.held = c.held[:0]
	status := pg.StatusIdle
	switch {
	case c.block && c.failed:
		status = pg.StatusFailed
	case c.block:
		status = pg.StatusInTx
	}
	c.out = pg.AppendReady(c.out, status)
}

// query runs the statements of a Query's text.
func (c *Coordinator) query(text string) {
	if c.skip { // something before it has failed
		return
	}
	delete(c.stmts, "")
	texts := []string{text}
	plan := c.cfg.Host.Plan(text, nil)
	if plan.Statements > 1 {
		var err error
		if texts, err = sqlkey.Texts(text); err != nil {
			c.fail(pg.NewError(pg.CodeSyntaxError, err.Error()))
			texts = nil
		}
	}
	plans := make([]*sqlkey.Plan, len(texts))
	for i, t := range texts {
		plans[i] = c.cfg.Host.Plan(t, nil)
		c.writes = c.writes || c.cfg.Host.MustWrite(plans[i])
	}
	for i, t := range texts {
		c.out = append(c.out, c.held...)
		c.held = c.held[:0]
		s := &stmt{sql: t, plan: plans[i]}
		x := execution{stmt: s, bind: noArguments, simple: true, columns: true, alone: len(texts) == 1 && !c.block && len(c.branches) == 0}
		if e := c.execute(&x); e != nil {
			c.fail(e)
			break
		}
	}
	c.settle()
	c.ready()
}
