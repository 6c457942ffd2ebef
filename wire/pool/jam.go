package pool

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// This file is about those who hold connections while they wait for others. Two of them may each wait for what the other holds, and then
// nobody would ever get anything.

// Holder is who may hold several connections at a time.
type Holder struct {
	// constant
	since time.Time

	// atomic
	held atomic.Int64 // connections that he holds
}

// NewHolder makes one that holds nothing.
func NewHolder() *Holder { return &Holder{since: time.Now()} }

// holds reports whether h, which may be nil, holds anything.
func (h *Holder) holds() bool { return h != nil && h.held.Load() > 0 }

// Claim is how somebody wants a connection.
type Claim struct {
	Sure   bool    // see Pools.Get
	By     *Holder // who takes it, and says so by Conn.HeldBy; nil: somebody who holds no others
	Placed func()  // called, perhaps more than once, when he does not stand in line, or not any more; nil: nobody is told
}

func (c *Claim) placed() {
	if c.Placed != nil {
		c.Placed()
	}
}

// HeldBy tells who has the connection; nil: nobody who might wait for others. It is called again, with nil, before the connection is given back.
func (c *Conn) HeldBy(h *Holder) {
	if c.home == nil {
		return
	}
	c.home.mu.Lock()
	defer c.home.mu.Unlock()
	if c.holder != nil {
		c.holder.held.Add(-1)
	}
	if c.holder = h; h != nil {
		h.held.Add(1)
	}
}

// ErrJam is that all who could give up the connection that was waited for wait themselves, in the end, for one that is held by who has got this error.
var ErrJam = errors.New("pool: those who hold connections wait for each other's")

// jamLook is how often those who wait and may hold others look whether anybody will ever give up what they wait for.
const jamLook = 100 * time.Millisecond

// jams reports whether h has to give up, so that others can go on: it is the youngest of those who wait for each other.
func (p *Pools) jams(h *Holder) bool {
	if !h.holds() {
		return false
	}
	all := p.all()
	slices.SortFunc(all, func(a, b *backendPool) int { return cmp.Compare(a.name, b.name) }) // nobody else holds two of their locks
	for _, bp := range all {
		bp.mu.Lock()
		defer bp.mu.Unlock()
	}
	waits := make(map[*Holder][]*backendPool)
	for _, bp := range all {
		for _, w := range bp.queue.all() {
			if w.by != nil {
				waits[w.by] = append(waits[w.by], bp)
			}
		}
	}
	stuck := make(map[*backendPool]bool) // at first whatever may be; what somebody will give up a connection of is taken out
	for _, bp := range all {
		stuck[bp] = bp.queue.n > 0 && bp.idleN == 0 && bp.total >= bp.bound()
	}
	for changed := true; changed; {
		changed = false
		for _, bp := range all {
			if stuck[bp] && bp.moves(waits, stuck) {
				stuck[bp], changed = false, true
			}
		}
	}
	var last *Holder
	for _, bp := range all {
		if !stuck[bp] {
			continue
		}
		for c := range bp.conns {
			if c.holder != nil && (last == nil || c.holder.since.After(last.since)) {
				last = c.holder
			}
		}
	}
	return last == h
}

// moves reports whether somebody will give up a connection, as he waits for nothing, or for what he will get. mu is held.
func (bp *backendPool) moves(waits map[*Holder][]*backendPool, stuck map[*backendPool]bool) bool {
	held := 0
	for c := range bp.conns {
		if c.holder == nil {
			continue // idle, or of somebody who waits for no other
		}
		if !slices.ContainsFunc(waits[c.holder], func(on *backendPool) bool { return stuck[on] }) {
			return true
		}
		held++
	}
	return held < bp.total
}

// all lists those who wait.
func (q *queue) all() (list []*waiter) {
	for _, l := range q.lines {
		for el := l.waiters.Front(); el != nil; el = el.Next() {
			list = append(list, el.Value.(*waiter))
		}
	}
	return list
}
