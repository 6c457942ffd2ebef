package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What became of a row that a client wrote.
const (
	moveRefused byte = iota // it cannot be there
	moveUnknown             // nobody knows: under way, or its answer never came
	moveAcked
)

// What a row says that a client wrote.
const (
	moveInserted byte = iota // the insert was all
	moveFirst                // of a transaction that has not come to its update: nobody else may ever see it
	moveSecond               // of a whole transaction
	moveHeld                 // of one that held up a freeze
)

// moveNotes are the same as the column has them.
var moveNotes = []string{moveInserted: "new", moveFirst: "first", moveSecond: "second", moveHeld: "open"}

// moveRow is what a client knows of a row that it wrote.
type moveRow struct {
	fate byte
	note byte // what it says once it is there
}

// moveLoad is clients that write rows with numbers of their own, read, and do both in transactions.
type moveLoad struct {
	w    *moveWorld
	stop context.CancelFunc
	done sync.WaitGroup
	hold sync.RWMutex // held for writing, no client does anything

	// atomic
	count  atomic.Int64 // statements and transactions that succeeded
	calm   atomic.Bool  // nothing is being killed: every statement must succeed
	failed atomic.Int64 // while it was calm
	stale  atomic.Int64 // reads that did not see what had been acknowledged before they began

	// guarded by mu
	mu       sync.Mutex
	rows     []moveRow // by number
	took     []moveTook
	failures []string

	newest [moveCustomers]moveNewest
}

// moveNewest are the numbers of a customer's newest rows that were acknowledged, in a ring. A read looks for these, and not for all, so that it costs the same
// however long the load has run; that none of the others is lost is checked in the end.
type moveNewest struct {
	mu  sync.Mutex
	ids [moveKnown]int64
	n   int // how many have been put in
}

// Of how many rows a client knows that they must be there, and how many a read asks for: some are there that nobody has acknowledged yet.
const (
	moveKnown = 8
	moveRead  = 2 * moveKnown
)

func (n *moveNewest) add(id int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ids[n.n%len(n.ids)] = id
	n.n++
}

func (n *moveNewest) known() []int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.ids[:min(n.n, len(n.ids))])
}

// missed tells whether rows that were known before they were read are not among those with the highest numbers.
func missed(known, read []int64) bool {
	return slices.ContainsFunc(known, func(id int64) bool {
		return !slices.Contains(read, id) && (len(read) < moveRead || id > slices.Min(read))
	})
}

// moveTook is how long one statement, or one transaction, took.
type moveTook struct {
	end    time.Time
	took   time.Duration
	node   int
	moving bool // it was on the range that moves
	what   string
}

func (w *moveWorld) load(ctx context.Context, clients int) *moveLoad {
	ctx, stop := context.WithCancel(ctx)
	l := &moveLoad{w: w, stop: stop}
	l.calm.Store(true)
	for n := range clients {
		l.done.Go(func() { l.client(ctx, n) })
	}
	return l
}

func (l *moveLoad) end() {
	l.stop()
	l.done.Wait()
}

func (l *moveLoad) client(ctx context.Context, number int) {
	var conn *pgx.Conn
	at := 0
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for turn := number; ctx.Err() == nil; turn++ {
		if !l.calm.Load() { // there are many moves to come, which need not be as full
			_ = pause(ctx, 3*time.Millisecond)
		}
		l.hold.RLock()
		if conn == nil || conn.IsClosed() {
			at = turn % len(l.w.nodes)
			c, err := l.w.nodes[at].connect(ctx)
			if err != nil {
				l.hold.RUnlock()
				l.fail(ctx, err)
				conn = nil
				_ = pause(ctx, 50*time.Millisecond)
				continue
			}
			conn = c
		}
		l.do(ctx, conn, turn, at)
		l.hold.RUnlock()
	}
}

// do does one thing, and notes what came of it.
func (l *moveLoad) do(ctx context.Context, conn *pgx.Conn, turn, node int) {
	customer := rand.Int64N(moveCustomers)
	began := time.Now()
	var what string
	var err error
	if turn%4 == 2 {
		what, err = "read", l.read(ctx, conn, customer)
	} else {
		var id int64
		committing := true
		if what = "insert"; turn%4 == 3 {
			what, id = "transaction", l.sends(moveSecond)
			committing, err = l.transaction(ctx, conn, customer, id)
		} else {
			id = l.sends(moveInserted)
			err = insertParcel(ctx, conn, customer, id, moveInserted)
		}
		switch {
		case err == nil:
			l.newest[customer].add(id)
			l.heard(id, moveAcked)
		case !committing || !unsure(err):
			l.heard(id, moveRefused)
		}
	}
	if err != nil {
		l.fail(ctx, fmt.Errorf("%s after %s: %w", what, time.Since(began).Round(time.Millisecond), err))
		if conn.PgConn().TxStatus() != 'I' {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
		return
	}
	l.count.Add(1)
	if l.calm.Load() {
		end := time.Now()
		l.mu.Lock()
		l.took = append(l.took, moveTook{end, end.Sub(began), node, l.w.moves(customer), what})
		l.mu.Unlock()
	}
}

func (l *moveLoad) read(ctx context.Context, c *pgx.Conn, customer int64) error {
	known := l.newest[customer].known()
	rows, _ := c.Query(ctx, fmt.Sprintf("SELECT id FROM parcels WHERE customer = $1 ORDER BY id DESC LIMIT %d", moveRead), customer)
	read, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err == nil && missed(known, read) {
		l.stale.Add(1)
	}
	return err
}

// transaction writes a row and changes it. committing: it has come to its COMMIT.
func (l *moveLoad) transaction(ctx context.Context, c *pgx.Conn, customer, id int64) (committing bool, err error) {
	if _, err = c.Exec(ctx, "BEGIN"); err != nil {
		return false, err
	}
	if err = insertParcel(ctx, c, customer, id, moveFirst); err == nil {
		_, err = c.Exec(ctx, "UPDATE parcels SET note = $3 WHERE customer = $1 AND id = $2", customer, id, moveNotes[moveSecond])
	}
	if err != nil {
		_, _ = c.Exec(ctx, "ROLLBACK")
		return false, err
	}
	_, err = c.Exec(ctx, "COMMIT")
	return true, err
}

func insertParcel(ctx context.Context, c *pgx.Conn, customer, id int64, note byte) error {
	_, err := c.Exec(ctx, "INSERT INTO parcels (customer, id, note) VALUES ($1, $2, $3)", customer, id, moveNotes[note])
	return err
}

// unsure tells whether an error leaves open what became of a statement: all do but those that a server has told that goes on.
func unsure(err error) bool {
	var pe *pgconn.PgError
	return !errors.As(err, &pe) || pe.Code[:2] == "08" || pe.Code[:2] == "57" || pe.Code == "40003"
}

// sends is the number of a row that is about to be written, to say that in the end.
func (l *moveLoad) sends(note byte) (id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id = int64(max(1, len(l.rows))) // the rows that were there before have numbers below 1
	for int64(len(l.rows)) <= id {
		l.rows = append(l.rows, moveRow{})
	}
	l.rows[id] = moveRow{moveUnknown, note}
	return id
}

// heard keeps what became of it.
func (l *moveLoad) heard(id int64, fate byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[id].fate = fate
}

func (l *moveLoad) fail(ctx context.Context, err error) {
	if ctx.Err() != nil || !l.calm.Load() {
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < 5 {
		l.failures = append(l.failures, err.Error())
	}
}

// rate is how many statements succeed in a second, over some time.
func (l *moveLoad) rate(ctx context.Context, d time.Duration) (float64, error) {
	from, began := l.count.Load(), time.Now()
	err := pause(ctx, d)
	return float64(l.count.Load()-from) / time.Since(began).Seconds(), err
}

// movePauses are how long clients waited around the flip.
type movePauses struct {
	p99, longest float64 // ms
	count        int
	by           string // node and what of the longest
	others       float64
}

func (p movePauses) String() string {
	return fmt.Sprintf("%s; of %d on the range; max of the others %.1f ms", p.by, p.count, p.others)
}

// around looks at what was under way in a time, whenever it ended: the 99th percentile of what was on the moving range, and the longest of all.
func (l *moveLoad) around(from, to time.Time) (p movePauses) {
	l.mu.Lock()
	defer l.mu.Unlock()
	milli := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	var list []time.Duration
	for _, t := range l.took {
		if t.end.Before(from) || t.end.Add(-t.took).After(to) {
			continue
		}
		if ms := milli(t.took); ms > p.longest {
			p.longest, p.by = ms, fmt.Sprintf("%s at node-%d", t.what, t.node)
		}
		if t.moving {
			list = append(list, t.took)
		} else {
			p.others = max(p.others, milli(t.took))
		}
	}
	slices.Sort(list)
	if p.count = len(list); p.count > 0 {
		p.p99 = milli(list[p.count*99/100])
	}
	return p
}
