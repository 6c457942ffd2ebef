package pool

import "time"

// Limits bound every pool of a node. SetLimits puts others in their place.
type Limits struct {
	Size int           // server connections to one backend, all users and databases together
	Wait time.Duration // how long a session waits for one of them, from now on; 0: it does not
	Idle time.Duration // an idle connection is closed after this; 0: never
}

// SetLimits changes the bounds. Sessions that wait get the places that are new; connections beyond the bound are closed, the
// idle ones at once, the others when they come back.
func (p *Pools) SetLimits(l Limits) {
	p.limits.Store(&l)
	for _, bp := range p.all() {
		bp.resize(l.Size)
	}
}

func (bp *backendPool) resize(size int) {
	var gone []*Conn
	bp.mu.Lock()
	bp.fill()
	for bp.idleN > 0 && bp.total-len(gone) > size {
		gone = append(gone, bp.popAnyIdle())
	}
	bp.mu.Unlock()
	for _, c := range gone {
		c.bye()
	}
}

// fill gives free places to those who wait longest. mu is held.
func (bp *backendPool) fill() {
	for el := bp.waiters.Front(); el != nil && !bp.closed && bp.total < bp.limits.Load().Size; el = bp.waiters.Front() {
		bp.waiters.Remove(el).(*waiter).grant <- nil
		bp.total++
	}
}

// Renew closes every idle connection, and those that are lent out or being made when they come back: connections from now on
// are to be made in another way.
func (p *Pools) Renew() {
	for _, bp := range p.all() {
		bp.renew(func(Identity) bool { return true })
	}
}

// Forget closes the pool of a backend that is not there any more. Who asks for that backend again gets a new one.
func (p *Pools) Forget(backend string) {
	p.mu.Lock()
	bp := p.byName[backend]
	delete(p.byName, backend)
	p.mu.Unlock()
	if bp != nil {
		bp.close()
	}
}
