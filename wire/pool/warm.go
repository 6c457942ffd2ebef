package pool

import (
	"io"
	"maps"
	"net"
	"time"

	"rangefinder/wire/pg"
)

const (
	warmRate   = 2                      // connections to one backend that are made in advance, a second
	shunFor    = time.Minute            // that no standby is made where one could not be
	goodbye    = 100 * time.Millisecond // for a backend to end a connection
	oldestPart = 5                      // connections live up to a fifth less long than they may, so that not all end at once
)

// Join tells that a session of that identity is there: see Limits.Min. Leave takes it back.
func (p *Pools) Join(id Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.present[id]++
}

// Leave takes one Join back.
func (p *Pools) Leave(id Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.present[id]--; p.present[id] == 0 {
		delete(p.present, id)
	}
}

func (p *Pools) isPresent(id Identity) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.present[id] > 0
}

// least is how many connections an identity with sessions should have here, whether it has use for them now or not. mu is held.
func (bp *backendPool) least(id Identity, standby bool) int {
	l, n := bp.limits.Load(), 0
	if _, been := bp.known[id]; been {
		n = l.Min
	}
	if standby {
		n = max(n, l.Standby)
	}
	return n
}

// warm makes connections for identities that have sessions, up to the least number they should have.
func (bp *backendPool) warm(t *tending) {
	if bp.resting.Load() {
		return
	}
	bp.mu.Lock()
	defer bp.mu.Unlock()
	maps.DeleteFunc(bp.shunned, func(_ Identity, until time.Time) bool { return time.Now().After(until) })
	begun := 0
	for id := range bp.known {
		begun = bp.makeUpTo(id, bp.least(id, false), bp.bound(), begun)
	}
	for at := range t.standby {
		if at.pool == bp && bp.shunned[at.id].IsZero() {
			begun = bp.makeUpTo(at.id, bp.least(at.id, true), bp.bound()/standbyPart, begun)
		}
	}
}

// makeUpTo begins logins for an identity until it has the least number, if there is room, and returns how many were begun in all. mu is held.
func (bp *backendPool) makeUpTo(id Identity, least, room, begun int) int {
	for ; begun < warmRate && bp.held(id) < least && bp.total < room && bp.mayConnect() && bp.full[id] == nil && !bp.closed && !bp.pools.isSuspended(id.Database); begun++ {
		bp.take(id)
		bp.begin(bp.ctx, bp.backend, id, nil, true)
	}
	return begun
}

// old reports whether the connection has lived for long enough.
func (c *Conn) old(now, lifetime time.Duration) bool {
	return lifetime > 0 && now-c.Connected.Sub(c.home.start) > lifetime-time.Duration(c.jitter*float64(lifetime)/oldestPart)
}

// retire closes a connection that is in order, and waits a moment until its backend has closed it too: only then another one may
// have its place there.
func (c *Conn) retire() {
	c.forgetEvents()
	c.abrupt(false)
	c.Net.SetDeadline(time.Now().Add(goodbye))
	if _, err := c.Net.Write(pg.AppendTerminate(nil)); err == nil {
		io.Copy(io.Discard, c.Net)
	}
	c.Net.Close()
}

// KeepAlive has the kernel ask whether the other side is still there.
func KeepAlive(conn net.Conn, cfg net.KeepAliveConfig) {
	if c, ok := conn.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		c.SetKeepAliveConfig(cfg)
	}
}
