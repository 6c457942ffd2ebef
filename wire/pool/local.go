package pool

import (
	"context"
	"net"
	"time"

	"rangefinder/rib"
)

// Local serves a connection that leads to no backend but into this process.
type Local interface {
	// Cancel cancels what runs for the connection. It returns when that has been done, as Conn.Cancel does.
	Cancel(ctx context.Context) error
	// Closed tells, without waiting, that nobody has the connection any more.
	Closed()
}

// Local makes a connection of nc, whose other end l serves. It belongs to no pool: it does not count against Limits.Size, and Release closes
// it. params are what its server has reported; they are the connection's from now on.
func (p *Pools) Local(nc net.Conn, b *rib.Backend, id Identity, params map[string]string, l Local) *Conn {
	c := &Conn{ID: p.ids.Add(1), Backend: b, Identity: id, Net: nc, Params: params, Connected: time.Now(), local: l}
	c.plug(p.watch)
	return c
}

// Local is who serves the connection; nil: it leads to a backend.
func (c *Conn) Local() Local { return c.local }

// IsLocal reports whether the connection leads to no backend.
func (c *Conn) IsLocal() bool { return c.local != nil }
