package pool

import (
	"net"
	"time"
)

// Limits bound every pool of a node. SetLimits puts others in their place.
type Limits struct {
	Size int           // server connections to one backend, all users and databases together
	Wait time.Duration // how long a session waits for one of them, from now on; 0: it does not
	Idle time.Duration // an idle connection is closed after this; 0: never
	// Connect bounds the making of one, authentication included; 0: no limit.
	Connect time.Duration

	Lifetime  time.Duration // a connection is closed when it is free and this old, or up to a fifth less; 0: never
	Min       int           // connections that are kept ready for each user and database with sessions, at the backends they have used
	Standby   int           // the same at the backend that their reads would go to next, see Config.Next, where three quarters of the places are free
	KeepAlive net.KeepAliveConfig
	// Prepared is how many prepared statements a connection keeps; those used longest ago are closed when there are more. 0: no
	// limit.
	Prepared int
}

// MinPrepared is the least that Limits.Prepared may be, beside 0: one request may need so many statements at a time.
const MinPrepared = 100

// SetLimits changes the bounds. Sessions that wait get the places that are new; connections beyond the bound are closed, the
// idle ones at once, the others when they come back.
func (p *Pools) SetLimits(l Limits) {
	p.limits.Store(&l)
	p.resize()
}

// SetShare bounds the pools further: n is what the cluster's budget leaves to this node. n < 0: nothing is shared out.
func (p *Pools) SetShare(n int) {
	if p.share.Swap(int64(n)) != int64(n) {
		p.resize()
	}
}

// Share is what SetShare was given last; -1: nothing.
func (p *Pools) Share() int { return int(p.share.Load()) }

func (p *Pools) resize() {
	for _, bp := range p.all() {
		bp.resize()
	}
}

func (bp *backendPool) resize() {
	var gone []*Conn
	bp.mu.Lock()
	bp.fill()
	for bp.idleN > 0 && bp.total-len(gone) > bp.bound() {
		gone = append(gone, bp.popAnyIdle())
	}
	bp.mu.Unlock()
	farewell(gone)
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
