package pool

import (
	"context"
	"time"

	"rangefinder/rib"
)

// login is the making of a connection, in a goroutine of its own.
type login struct {
	// constant
	id     Identity
	cancel context.CancelFunc
	over   chan struct{} // closed when it is
	hope   *hope         // of those for whom it was begun; nil: it is made in advance

	// guarded by the pool's mu
	gaveUp bool // whatever becomes of it, nobody counts on it
	done   bool // it is known what has become of it; what nobody wants may still be being closed
}

// begin begins a login in a place that is taken already; old has had it. spare: it is made in advance. mu is held.
func (bp *backendPool) begin(ctx context.Context, b *rib.Backend, id Identity, old *Conn, spare bool) *login {
	ctx, cancel := context.WithCancel(ctx)
	l := &login{id: id, cancel: cancel, over: make(chan struct{})}
	bp.underway[l] = struct{}{}
	bp.making.Go(func() {
		defer close(l.over)
		defer cancel()
		defer context.AfterFunc(bp.ctx, cancel)()
		c, err := bp.connect(ctx, b, id, old, spare)
		if !bp.made(l, c, err) && c != nil {
			c.Release()
		}
		bp.mu.Lock()
		defer bp.mu.Unlock()
		delete(bp.underway, l)
	})
	return l
}

// made says what has become of a login. It returns false if the connection, if there is one, is nobody's yet.
func (bp *backendPool) made(l *login, c *Conn, err error) bool {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	l.done = true
	if l.hope != nil {
		return bp.fulfil(l, c, err)
	}
	if err != nil && !l.gaveUp {
		bp.shunned[l.id] = time.Now().Add(shunFor)
	}
	return false
}

// giveUp ends a login that nobody waits for. mu is held.
func (bp *backendPool) giveUp(l *login) {
	if l.gaveUp || l.done {
		return
	}
	l.gaveUp = true
	l.cancel()
	if l.hope != nil {
		l.hope.logins--
		bp.endHope(l.id, l.hope)
	}
}

// Suspend lets no connection to a database be made in advance until Resume, and gives up logins of users of whom nobody waits; wait is for their end.
// What they may have made by then Reconnect closes. Whoever asks for a connection all the same gets it.
func (p *Pools) Suspend(database string) (wait func()) {
	p.mu.Lock()
	p.suspended[database] = true
	p.mu.Unlock()
	var idle []*login
	for _, bp := range p.all() {
		idle = append(idle, bp.giveUpIdle(database)...)
	}
	return func() {
		for _, l := range idle {
			<-l.over
		}
	}
}

// Resume takes Suspend back.
func (p *Pools) Resume(database string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.suspended, database)
}

func (p *Pools) isSuspended(database string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.suspended[database]
}

// giveUpIdle ends the logins to a database that nobody waits for.
func (bp *backendPool) giveUpIdle(database string) (list []*login) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	for l := range bp.underway {
		if h := bp.hopes[l.id]; l.id.Database == database && (h == nil || len(h.waiters) == 0) {
			list = append(list, l)
			bp.giveUp(l)
		}
	}
	return list
}
