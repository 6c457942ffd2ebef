package pool

import (
	"errors"
	"time"

	"rangefinder/wire/pg"
)

// This file is about backends that let nobody in: how often they are asked, and what becomes of those who wait.

const (
	// maxConnecting bounds the connections to one backend that are being made at a time: each is a new process there.
	maxConnecting = 8

	// maxLetGo is how often in a row a backend may let somebody in and end the connection at once before it counts as out of reach.
	maxLetGo = 4

	firstPause = 50 * time.Millisecond
	downPause  = time.Second     // the longest, while a backend is out of reach
	fullPause  = 2 * time.Second // the longest, while it has no connection left
)

// down is a backend that could not be connected to.
type down struct {
	err   *ConnectError
	pause time.Duration
	until time.Time
}

// full is a backend that has no connection left for an identity: by its max_connections, or a role's or database's limit.
type full struct {
	words *pg.Error
	pause time.Duration
	until time.Time
}

func longer(pause, longest time.Duration) time.Duration {
	if pause == 0 {
		return firstPause
	}
	return min(2*pause, longest)
}

// mayConnect reports whether one more connection may be begun now. Of a backend that could not be reached, one at a time. mu is held.
func (bp *backendPool) mayConnect() bool {
	if bp.down != nil {
		return bp.connecting == 0 && !time.Now().Before(bp.down.until)
	}
	return bp.connecting < maxConnecting
}

// unreachable is the error for who needs a new connection while the backend is not to be asked again; nil: it may be. mu is held.
func (bp *backendPool) unreachable(id Identity) error {
	if bp.down == nil || !time.Now().Before(bp.down.until) {
		return nil
	}
	e := *bp.down.err
	e.Identity = id
	return &e
}

// isFull reports whether the backend has said a moment ago that it has no connection left for id. mu is held.
func (bp *backendPool) isFull(id Identity) bool {
	f := bp.full[id]
	return f != nil && time.Now().Before(f.until)
}

// connectFailed draws conclusions from a connection that could not be made. It reports whether who wanted it should wait. mu is held.
func (bp *backendPool) connectFailed(id Identity, ce *ConnectError, gaveUp bool) (queues bool) {
	var pe *pg.Error
	switch {
	case errors.As(ce.Err, &pe) && pe.Code == pg.CodeTooManyConnections:
		f := bp.full[id]
		if f == nil {
			f = new(full)
			bp.full[id] = f
		}
		f.words, f.pause = pe, longer(f.pause, fullPause)
		f.until = time.Now().Add(f.pause)
		bp.refusals.Add(1)
		bp.later(f.pause)
		return true
	case gaveUp || !ce.Elsewhere(): // that says nothing of the backend; or it is there
		if ce.Login() {
			delete(bp.known, id) // nothing is made in advance for who is not let in
		}
		return false
	}
	if bp.down == nil {
		bp.down = new(down)
	}
	bp.down.err, bp.down.pause = ce, longer(bp.down.pause, downPause)
	bp.down.until = time.Now().Add(bp.down.pause)
	if bp.total-bp.idleN-bp.connecting == 0 { // nobody has a connection that could come back
		bp.queue.failAll(ce)
	}
	bp.later(bp.down.pause)
	return false
}

// later looks after the pause whether somebody still waits.
func (bp *backendPool) later(pause time.Duration) {
	time.AfterFunc(pause, func() {
		bp.mu.Lock()
		defer bp.mu.Unlock()
		bp.fill()
	})
}

// Reachable tells that a backend has been seen to answer: if it could not be connected to, it may be asked again at once.
func (p *Pools) Reachable(backend string) {
	p.mu.RLock()
	bp := p.byName[backend]
	p.mu.RUnlock()
	if bp == nil {
		return
	}
	bp.mu.Lock()
	defer bp.mu.Unlock()
	bp.down = nil
	bp.fill()
}
