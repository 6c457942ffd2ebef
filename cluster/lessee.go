package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/rib"
)

const (
	leaseEvery = LeaseTerm / 4 // between two questions
	leaseWait  = LeaseTerm / 2 // for an answer, and for a stream: a lost one must leave time for another
)

// Acknowledgement is what a node says of itself with each question for a lease.
type Acknowledgement struct {
	Applied rib.Epoch // of the table by which statements are routed
	Settled rib.Epoch // see Leases.Acknowledged
	Drained []uint64  // moves, frozen or later, on whose range nothing of before runs any more; at most rib.MaxMoves
	Aware   []uint64  // moves that whatever is at work was routed with; at most rib.MaxMoves
}

// LesseeConfig is what a lessee needs.
type LesseeConfig struct {
	Ledger *Ledger
	Dial   func(ctx context.Context, addr string) (net.Conn, error) // opens a stream for leases to a node's cluster port
	State  func() Acknowledgement                                   // called before each question, by one goroutine
	Behind func(leader, addr string, e rib.Epoch)                   // the leader has a newer table; must not block; may be nil
}

// Lessee is a node's own part in leases: it asks the leader again and again. Its methods are safe for concurrent use.
type Lessee struct {
	// constant
	cfg  LesseeConfig
	made time.Time
	boot uint64
	poke chan struct{} // capacity 1: there is something new to say

	// atomic
	until atomic.Int64 // when the lease ends, in nanoseconds after made; 0: there was none yet

	// guarded by mu
	mu  sync.Mutex
	why string // it has none

	// owned by Run
	conn   net.Conn
	addr   string // conn's other end
	lost   bool   // whoever was asked last has not answered
	strays int    // questions to somebody
}

// NewLessee makes a lessee. Run starts it.
func NewLessee(cfg LesseeConfig) *Lessee {
	return &Lessee{cfg: cfg, made: time.Now(), boot: rand.Uint64(), poke: make(chan struct{}, 1), why: "it has not asked yet"}
}

// Held reports whether the node has a lease at this moment.
func (t *Lessee) Held() bool { return t.Left() > 0 }

// Left is how long the lease still lasts; 0: there is none.
func (t *Lessee) Left() time.Duration {
	return max(0, time.Duration(t.until.Load())-time.Since(t.made))
}

// HeldAt reports whether the node had a lease at a moment of the past, up to some time before it: slack. It is for who does not want to ask the
// clock.
func (t *Lessee) HeldAt(at time.Time, slack time.Duration) bool {
	return at.Sub(t.made) < time.Duration(t.until.Load())+slack
}

// Status returns how long the lease still lasts, and if there is none, why, and since when.
func (t *Lessee) Status() (left time.Duration, why string, without time.Duration) {
	if left = t.Left(); left > 0 {
		return left, "", 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return 0, t.why, time.Since(t.made) - time.Duration(t.until.Load())
}

// Poke has the lessee ask at once: there is something new to say.
func (t *Lessee) Poke() {
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// Run asks for leases until ctx ends. It is called once.
func (t *Lessee) Run(ctx context.Context) {
	defer t.hangUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.poke:
		case <-timer.C:
		}
		began := time.Now()
		err := t.ask(ctx)
		if err != nil {
			t.hangUp()
		}
		t.mu.Lock()
		if t.why = ""; err != nil {
			t.why = err.Error()
		}
		t.mu.Unlock()
		timer.Reset(max(0, leaseEvery-time.Since(began)))
	}
}

func (t *Lessee) hangUp() {
	if t.conn != nil {
		t.conn.Close()
		t.conn = nil
	}
}

// ask asks the leader once. Without an error there is a lease.
func (t *Lessee) ask(ctx context.Context) error {
	l := t.cfg.Ledger
	state := t.cfg.State()
	state.Settled = l.atMostKept(state.Settled)
	asked := time.Now() // the lease is counted from before the question is sent
	q := leaseQuestion{Node: l.cfg.Node, Boot: t.boot, ClusterID: l.ClusterID(), Holds: t.Held(), Applied: state.Applied, Settled: state.Settled, Drained: state.Drained, Aware: state.Aware}
	name, addr := l.Leader()
	if addr == "" || t.lost || name == l.cfg.Node && !l.IsLeader() {
		name, addr = t.somebody()
	}
	var a leaseAnswer
	switch {
	case name == l.cfg.Node:
		a = l.leases.answer(&q)
	case addr == "":
		return errors.New("no leader is known now")
	default:
		err := t.exchange(ctx, addr, &q, &a)
		if t.lost = err != nil; t.lost {
			return fmt.Errorf("ask %s at %s: %w", name, addr, err)
		}
	}
	if a.Epoch.Compare(l.Epoch()) > 0 && t.cfg.Behind != nil {
		t.cfg.Behind(name, addr, a.Epoch)
	}
	if a.Leader != "" && a.Leader != name {
		l.hearLeader(a.Leader, a.Addr)
	}
	if !a.Granted {
		return errors.New(name + " gives none: " + a.Why)
	}
	if q.Holds && !t.Held() { // the leader has gone by what is not so any more
		return errors.New("the answer of " + name + " came too late")
	}
	t.until.Store(int64(asked.Add(LeaseTerm).Sub(t.made)))
	return nil
}

// atMostKept is an epoch, or that of the table on disk if that is older: what a node has not on its disk it does not know any more after a
// crash, and then it may begin alone.
func (l *Ledger) atMostKept(e rib.Epoch) rib.Epoch {
	switch kept := l.kept.Load(); {
	case kept == nil:
		return rib.Epoch{}
	case kept.Compare(e) < 0:
		return *kept
	}
	return e
}

// somebody is a node to ask while it is not known who leads, or whoever is believed to does not answer: it says who does. It is a voter, and every other
// time any member: a node that is none itself may know no voter after its start, or such as are voters no more, until the table changes.
func (t *Lessee) somebody() (name, addr string) {
	l := t.cfg.Ledger
	list := l.Voters()
	if t.strays++; t.strays%2 == 0 || len(list) == 0 {
		list = list[:0]
		l.membersMu.Lock()
		for _, m := range l.members {
			list = append(list, Voter{Name: m.Name, Addr: m.Addr})
		}
		l.membersMu.Unlock()
	}
	list = slices.DeleteFunc(list, func(v Voter) bool { return v.Name == l.cfg.Node || v.Addr == "" })
	if len(list) == 0 {
		return "", ""
	}
	v := list[rand.IntN(len(list))]
	return v.Name, v.Addr
}

// exchange sends a question to a node and reads the answer, over the stream that is open or a new one.
func (t *Lessee) exchange(ctx context.Context, addr string, q *leaseQuestion, a *leaseAnswer) error {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	if t.conn != nil && t.addr != addr {
		t.hangUp()
	}
	if t.conn == nil {
		conn, err := t.cfg.Dial(ctx, addr)
		if err != nil {
			return err
		}
		t.conn, t.addr = conn, addr
	}
	conn := t.conn
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it only ends a wait
	if err := writeHead(conn, q); err != nil {
		return err
	}
	return readHead(conn, a)
}
