package pool

import (
	"context"
	"slices"
	"sync"
	"time"

	"rangefinder/rib"
)

// Dial makes a connection that belongs to no pool: it does not count against Config.Size, and is ended by closing its Net.
// Errors: *ConnectError, ErrClosed, or ctx's.
func (p *Pools) Dial(ctx context.Context, b *rib.Backend, id Identity) (*Conn, error) {
	bp, err := p.of(b)
	if err != nil {
		return nil, err
	}
	c, err := bp.dial(ctx, b, id, false)
	if err != nil {
		return nil, &ConnectError{Backend: bp.name, Addr: bp.addr, Err: err}
	}
	c.forgetEvents() // it is closed without the pools
	return c, nil
}

// notified are the notifications that sessions have sent over one connection a moment ago, so that who hears one can tell whose
// it is: a server knows its connections only.
type notified struct {
	// guarded by mu
	mu   sync.Mutex
	list []notification // the oldest first
}

type notification struct {
	from             uint32
	channel, payload string // "": not known
	at               time.Time
}

const (
	maxNotified  = 64
	keepNotified = 3 * time.Second // a server delivers within milliseconds what was committed
)

// Notifies records that a client sends a notification over the connection. channel and payload are "" if they are not known.
// Inside a transaction block PostgreSQL sends equal ones once.
func (c *Conn) Notifies(from uint32, channel, payload string, inBlock bool, now time.Time) {
	c.notified.mu.Lock()
	defer c.notified.mu.Unlock()
	n := &c.notified
	if last := len(n.list) - 1; inBlock && last >= 0 && channel != "" && n.list[last].from == from && n.list[last].channel == channel && n.list[last].payload == payload {
		return
	}
	if len(n.list) >= maxNotified {
		n.list = slices.Delete(n.list, 0, 1)
	}
	n.list = append(n.list, notification{from, channel, payload, now})
}

// NotNotified takes back what a client was about to send: its transaction is rolled back.
func (c *Conn) NotNotified(from uint32) {
	c.notified.mu.Lock()
	defer c.notified.mu.Unlock()
	c.notified.list = slices.DeleteFunc(c.notified.list, func(n notification) bool { return n.from == from })
}

// take finds who has sent a notification; 0: not known. What was sent before it will not come any more.
func (n *notified) take(channel, payload string, now time.Time) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, x := range n.list {
		if now.Sub(x.at) > keepNotified || x.channel != "" && (x.channel != channel || x.payload != payload) {
			continue
		}
		n.list = slices.Delete(n.list, 0, i+1)
		return x.from
	}
	return 0
}

// Notifier tells which client has sent a notification that came from the server process pid of a backend: as Conn.Notifies was
// told. 0: it is not known.
func (p *Pools) Notifier(backend string, pid uint32, channel, payload string) uint32 {
	p.mu.RLock()
	bp := p.byName[backend]
	p.mu.RUnlock()
	if bp == nil {
		return 0
	}
	var conn *Conn
	bp.mu.Lock()
	for c := range bp.conns {
		if c.PID == pid {
			conn = c
			break
		}
	}
	bp.mu.Unlock()
	if conn == nil {
		return 0
	}
	return conn.notified.take(channel, payload, time.Now())
}
