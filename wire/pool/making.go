package pool

import (
	"context"

	"rangefinder/rib"
)

// login is the making of a connection, in a goroutine of its own.
type login struct {
	id     Identity
	giveUp context.CancelFunc
	over   chan struct{} // closed when it is
}

// begin begins a login in a place that is taken already; old has had it. spare: it is made in advance. What becomes of it goes to then. mu is held.
func (bp *backendPool) begin(ctx context.Context, b *rib.Backend, id Identity, old *Conn, spare bool, then func(*Conn, error)) context.CancelFunc {
	ctx, giveUp := context.WithCancel(ctx)
	l := &login{id, giveUp, make(chan struct{})}
	bp.underway[l] = struct{}{}
	bp.making.Go(func() {
		defer close(l.over)
		defer giveUp()
		defer context.AfterFunc(bp.ctx, giveUp)()
		then(bp.connect(ctx, b, id, old, spare))
		bp.mu.Lock()
		defer bp.mu.Unlock()
		delete(bp.underway, l)
	})
	return giveUp
}

// Suspend closes the idle connections to a database, and lets none be made in advance until Resume. Logins that nobody waits for end, and have
// ended when it returns. Whoever asks for a connection all the same gets it.
func (p *Pools) Suspend(database string) {
	p.mu.Lock()
	p.suspended[database] = true
	p.mu.Unlock()
	p.Reconnect(database)
	for _, bp := range p.all() {
		for _, l := range bp.idleLogins(database) {
			l.giveUp()
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

// idleLogins are those to a database that nobody waits for.
func (bp *backendPool) idleLogins(database string) (list []*login) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	for l := range bp.underway {
		if h := bp.hopes[l.id]; l.id.Database == database && (h == nil || len(h.waiters) == 0) {
			list = append(list, l)
		}
	}
	return list
}
