package wire

import (
	"math/bits"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pool"
)

// A session's reads see its own writes. A write is remembered by the time at which its end was heard of. The probes of this node say
// of each replica up to which time it has all that its primary had acknowledged (rib.Seen.Covers); a replica that covers the
// write's time may serve the session's reads, else the primary does.
//
// What a probe has seen holds for the server process that it saw: one that has crashed since may have gone back, to where it was
// consistent. All its connections have ended with it, so a connection that is older than the probe and still works belongs to the
// process that was probed. A younger one does not serve such a read.

// wrote is a session's last write to one shard.
type wrote struct {
	shard    string
	at       time.Duration // env.now when its end was heard of; 0: nothing was written
	timeline uint32        // of the primary, as far as this node knew; a replica of an earlier one follows somebody else
}

// noteWrite remembers that a transaction that wrote has ended on the server connection.
func (c *core) noteWrite() {
	w := wrote{shard: c.srvShard, at: c.env.now(), timeline: c.srvHop.Timeline}
	if c.slot != nil {
		c.slot.Wrote()
		if p := c.slot.Candidates().Writes; len(p) > 0 { // it may have been promoted since the connection was borrowed
			w.timeline = max(w.timeline, p[0].Timeline)
		}
	}
	for i := range c.wrote {
		if c.wrote[i].shard == w.shard {
			w.timeline = max(w.timeline, c.wrote[i].timeline)
			c.wrote[i] = w
			return
		}
	}
	c.wrote = append(c.wrote, w)
}

// owed is the write to a shard that reads of it must see.
func (c *core) owed(shard string) wrote {
	for i := range c.wrote {
		if c.wrote[i].shard == shard {
			return c.wrote[i]
		}
	}
	return wrote{}
}

// has reports whether a replica was last seen with that write.
func (c *core) has(h *fib.NextHop, w *wrote, seen *rib.Seen) bool {
	return seen != nil && !seen.Covers.IsZero() && seen.Addr == h.Backend.Addr && seen.Timeline >= w.timeline && seen.Covers.Sub(c.env.made) >= w.at
}

// heed makes the choice among hops what the session's reads ask for.
func (c *core) heed(list *fib.Candidates) {
	switch c.own.consistency() {
	case Primary:
		c.toPrimary()
	case Session:
		if c.after = c.owed(c.srvShard); c.after.at != 0 {
			c.follow(list.Reads)
		}
	}
}

// follow leaves the replicas that were seen with what the session wrote, drained ones only if all are, and the primary. If there are none, or the primary is
// closest, it is as for a write: the primary may have to be waited for, and must prove that it is one.
func (c *core) follow(hops []fib.NextHop) {
	for i := range hops[:bits.Len64(c.left)] {
		h := &hops[i]
		if !c.leads(h) && (h.Drained && !hops[0].Drained || !c.has(h, &c.after, h.Gauge.Seen.Load())) {
			c.left &^= 1 << i
		}
	}
	if c.left == 0 {
		c.toPrimary()
	}
}

// follows reports whether the request in hand must see a write, and may still run on a replica.
func (c *core) follows() bool { return c.after.at != 0 && !c.need.write }

// leads reports whether the hop is to the primary of the shard in hand.
func (c *core) leads(h *fib.NextHop) bool {
	w := c.list.Writes
	return len(w) > 0 && w[0].Backend == h.Backend
}

// toPrimary has the request in hand run on the primary, as a write does.
func (c *core) toPrimary() {
	c.need.write, c.hops, c.first, c.left = true, c.list.Writes, 0, every(len(c.list.Writes))
}

// unproven reports whether a read that has to see a write must not use the connection that was got for it.
func (c *core) unproven(conn *pool.Conn) bool {
	if !c.follows() {
		return false
	}
	seen := c.hop.Gauge.Seen.Load()
	return !c.has(c.hop, &c.after, seen) || !conn.Connected.Before(seen.Asked)
}

// every is a set of the first n hops, for core.left. There are no more than 64 copies of a shard to choose among.
func every(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}
