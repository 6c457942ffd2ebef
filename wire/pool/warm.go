package pool

import (
	"io"
	"net"
	"time"

	"rangefinder/wire/pg"
)

const (
	warmRate   = 2                      // connections to one backend that are made in advance, a second
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

// warm makes connections for identities that have sessions and have been here, up to the least number they should have.
func (bp *backendPool) warm(present func(Identity) bool) {
	least := bp.limits.Load().Min
	if least == 0 || bp.resting.Load() {
		return
	}
	bp.mu.Lock()
	defer bp.mu.Unlock()
	begun := 0
	for id := range bp.known {
		if !present(id) {
			delete(bp.known, id)
			continue
		}
		for ; begun < warmRate && bp.held(id) < least && bp.total < bp.bound() && bp.mayConnect() && bp.full[id] == nil && !bp.closed; begun++ {
			bp.take(id)
			b := bp.backend
			bp.making.Go(func() {
				if c, err := bp.connect(bp.ctx, b, id, nil); err == nil {
					c.Release()
				}
			})
		}
	}
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
