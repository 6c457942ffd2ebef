package wire

import (
	"fmt"
	"math/bits"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// A session's reads see its own writes. A write is remembered by the time at which its end was heard of. The probes of this node say
// of each replica up to which time it has all that its primary had acknowledged (rib.Seen.Covers); a replica that covers the
// write's time may serve the session's reads, else the primary does.
//
// What a probe has seen holds for the server process that it saw: one that has crashed since may have gone back, to where it was
// consistent. All its connections have ended with it, so a connection that is older than the probe and still works belongs to the
// process that was probed. A younger one does not serve such a read.

// After a failover it must be asked first whether the new timeline has the write at all: see settle.

// wrote is a write to one shard that the session's reads must see: its own last one on a timeline, or what a token told it of.
type wrote struct {
	shard    string
	at       time.Duration // env.now when its end was heard of; 0: it is a token's
	lsn      uint64        // not before it; 0: not known yet, of one's own
	timeline uint32        // of the primary, as far as this node knew; a replica of an earlier one follows somebody else. 0: unknown
	unsure   bool          // nobody knows whether the shard's present timeline has it: only the primary may be read
	waited   bool          // the session did not say that it shall not wait for replicas
	unknown  bool          // the client was told that nobody knows whether it took effect: so it looks, and no error says that it is lost
}

// owing is all that the reads of one shard must see.
type owing struct {
	at       time.Duration
	lsn      uint64
	timeline uint32 // the latest
	least    uint32 // the earliest
	unsure   bool
	any      bool
}

// redraws is how often a read draws anew among the closest when the one that it drew lacks a write. After that it takes the first that has it.
const redraws = 8

// noteWrite remembers that a transaction that wrote has ended on the server connection.
func (c *core) noteWrite() {
	if c.coordinator != nil {
		for _, w := range c.coordinator.Wrote() {
			c.noteWriteOn(w.Slot.Shard(), w.Slot, w.Hop, w.Unknown)
		}
		return
	}
	c.noteWriteOn(c.srvShard, c.slot, c.srvHop, false)
}

// noteWriteOn remembers a write; unknown: or that it may be one.
func (c *core) noteWriteOn(shard string, slot *fib.Slot, hop *fib.NextHop, unknown bool) {
	w := wrote{shard: shard, at: c.env.now(), timeline: hop.Timeline, waited: !c.settings.alone && !c.settings.hasty, unknown: unknown}
	if slot != nil {
		slot.Wrote()
		// The backend may have been promoted since the connection was borrowed. If another one was, this was written on the old timeline.
		if p, b := slot.Candidates().Writes, hop.Backend; len(p) > 0 && p[0].Backend.Name == b.Name && p[0].Backend.Addr == b.Addr {
			w.timeline = max(w.timeline, p[0].Timeline)
		}
	}
	for i := range c.wrote {
		if o := &c.wrote[i]; o.shard == w.shard && o.unknown == w.unknown && (o.timeline >= w.timeline || o.timeline == 0) {
			w.timeline = max(w.timeline, o.timeline)
			*o = w
			return
		}
	}
	c.wrote = append(c.wrote, w) // one on an earlier timeline stays beside it: that may not be there any more
}

// owed is what reads of a shard must see.
func (c *core) owed(shard string) (o owing) {
	for _, list := range [...][]wrote{c.wrote, c.own.token} {
		for i := range list {
			w := &list[i]
			if w.shard != shard {
				continue
			}
			if !o.any || w.timeline < o.least {
				o.least = w.timeline
			}
			o.any = true
			o.at, o.timeline, o.unsure = max(o.at, w.at), max(o.timeline, w.timeline), o.unsure || w.unsure
			if w.at == 0 {
				o.lsn = max(o.lsn, w.lsn)
			}
		}
	}
	return o
}

// has reports whether a replica was last seen with all that.
func (c *core) has(h *fib.NextHop, o *owing, seen *rib.Seen) bool {
	if seen == nil || seen.Addr != h.Backend.Addr || seen.Doubt || o.timeline != 0 && seen.Timeline != o.timeline {
		return false
	}
	return (o.at == 0 || !seen.Covers.IsZero() && seen.Covers.Sub(c.env.made) >= o.at) &&
		(o.lsn == 0 || seen.Role == rib.Replica && seen.LSN >= o.lsn)
}

// heed makes the choice among hops what the session's reads ask for. It reports whether the request has got its answer by that, or
// waits: then there is nothing to choose.
func (c *core) heed(list *fib.Candidates) (done bool) {
	consistency := c.own.consistency()
	if consistency == Eventual {
		return false
	}
	if len(c.wrote)+len(c.own.token) > 0 && (!c.need.write || c.seg.reads > 0 || c.seg.opens || c.tx.open) {
		if c.after, done = c.due(list); done {
			return true
		}
	}
	switch {
	case c.need.write:
	case consistency == Primary:
		c.toPrimary()
	case c.after.any:
		c.follow(c.hops)
	}
	return false
}

// due is what the request in hand must see of its shard, which may have come to another timeline since.
func (c *core) due(list *fib.Candidates) (o owing, done bool) {
	o = c.owed(c.srvShard)
	if !o.any || len(list.Writes) == 0 {
		return o, false
	}
	now := list.Writes[0].Timeline
	if now > o.least {
		if e := c.settle(c.srvShard, now); e != nil {
			c.fail(e)
			return o, true
		}
		if c.locates.shard != "" {
			return o, true
		}
		c.warn()
		o = c.owed(c.srvShard)
	}
	if now != 0 && now < o.timeline {
		c.stall(pg.NewError(pg.CodeCannotConnectNow, fmt.Sprintf("shard %s has no primary of timeline %d, on which what is to be seen was written", c.srvShard, o.timeline)).
			WithDetail(fmt.Sprintf("The primary that this node knows, %s, is on timeline %d.", list.Writes[0].Backend.Name, now)).
			WithHint("Try again when this node has heard of the later one; or RESET " + ownLSN + ", if the token is wrong."))
		return o, true
	}
	return o, false
}

// follow leaves the replicas that were seen with what the session wrote, drained ones only if all are, and the primary. If there are none, or the primary is
// closest, it is as for a write: the primary may have to be waited for, and must prove that it is one.
func (c *core) follow(hops []fib.NextHop) {
	for i := range hops[:bits.Len64(c.left)] {
		h := &hops[i]
		if c.after.unsure || !c.leads(h) && (h.Drained && !hops[0].Drained || !c.has(h, &c.after, h.Gauge.Seen.Load())) {
			c.left &^= 1 << i
		}
	}
	if c.left == 0 {
		c.toPrimary()
		return
	}
	if c.left&every(c.list.ReadsNear) != 0 { // one as close has the write: its like share what the others would have got
		for range redraws {
			if c.left&(1<<c.first) != 0 {
				return
			}
			c.first = c.list.PickRead(c.env.random())
		}
	}
}

// follows reports whether the request in hand must see a write, and may still run on a replica.
func (c *core) follows() bool { return c.after.any && !c.need.write }

// leads reports whether the hop is to the primary of the shard in hand.
func (c *core) leads(h *fib.NextHop) bool {
	w := c.list.Writes
	return len(w) > 0 && w[0].Backend == h.Backend
}

// toPrimary has the request in hand run on the primary, as a write does.
func (c *core) toPrimary() {
	c.need.follows = c.need.follows || !c.need.write
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
