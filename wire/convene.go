package wire

import (
	"context"
	"maps"
	"slices"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
)

// This file is about requests that need more than one shard. A coordinator (package scatter) carries them out. To the core it is a server
// connection; what it asks the session for is in outlook.go.

// severalShards stands for the backend that a coordinator is not.
var severalShards = rib.Backend{Name: "several shards"}

// reaches reports whether the request in hand, which needs n, cannot run on the server connection alone.
func (c *core) reaches(n need) bool {
	return c.coordinator == nil && (n.many || n.slot != nil && n.slot.Shard() != c.srvShard || LacksCopy(n.copies, c.srvShard) != nil)
}

// convene has the request in hand run by a coordinator: by a new one, which gets the server connection if there is one.
func (c *core) convene() {
	switch {
	case c.seg.pin != "" || c.seg.asks != "":
		c.fail(scatter.Pins(c.seg.pin + c.seg.asks))
		return
	case c.tx.imported:
		c.fail(scatter.Imported())
		return
	case c.srv == nil && c.settled():
		return
	}
	c.left, c.after, c.hop = 0, owing{}, nil
	c.convening = true
}

// settled brings what the session's reads must see of any shard up to date. It reports whether the request has got its answer by that, or
// waits: see due.
func (c *core) settled() (done bool) {
	if c.own.consistency() == Eventual {
		return false
	}
	var shards []string
	for _, list := range [...][]wrote{c.wrote, c.own.token} {
		for i := range list {
			if !slices.Contains(shards, list[i].shard) {
				shards = append(shards, list[i].shard)
			}
		}
	}
	for _, shard := range shards {
		if slot := c.table.Slot(shard); slot != nil {
			c.srvShard, c.slot, c.list = shard, slot, slot.For(c.db)
			if _, done = c.due(c.list); done {
				return true
			}
		}
	}
	return false
}

// handsOver reports whether the server connection, with the transaction that is open on it, can become a coordinator's branch.
func (c *core) handsOver() bool {
	return c.coordinator == nil && c.status == 'T' && c.pinned == "" && !c.serverOpen && !c.scratch && !c.copyIn && !c.looseSync && !c.broken && !c.worn &&
		!c.tx.overfull && len(c.srvIn)+len(c.parting)+len(c.toServer) == 0
}

// convened has the session go on with a coordinator.
func (c *core) convened(conn *pool.Conn, by *scatter.Coordinator, host *host) {
	c.convening = false
	if c.srv == nil {
		c.status = 'I'
	}
	c.srv, c.coordinator, c.host, c.srvHop, c.srvShard = conn, by, host, nil, ""
	c.seeTypes()
	c.emit()
}

// opening is what another branch of the transaction that is open on the server connection begins with.
func (c *core) branching() (begin string, replay []string, marks []scatter.Mark) {
	if begin = c.tx.begin; begin == "" {
		begin = "BEGIN"
	}
	for _, m := range c.tx.marks {
		marks = append(marks, scatter.Mark{Name: m.name, At: m.deferred})
	}
	return begin, slices.Clone(c.tx.deferred), marks
}

// convene makes the coordinator that the core wants.
func (s *session) convene(ctx context.Context) {
	c := s.core
	from := c.srv
	if from != nil {
		s.mu.Lock()
		struck := s.struck
		s.mu.Unlock()
		if struck || s.ear != nil || s.joinWriter() != nil { // it is about to be lost: nothing can be made of it
			c.convening = false
			c.serverLost(errDeaf)
			return
		}
	} else if !s.pass(ctx) {
		return
	}
	theirs, ours, err := scatter.Pair()
	if err != nil {
		c.convening = false
		if from == nil {
			s.gate.leave()
		}
		c.fail(pg.NewError(pg.CodeInsufficientResources, "no sockets are left for a statement over several shards").WithDetail(err.Error() + "."))
		return
	}
	h := &host{server: s.server, id: s.id, session: c.id}
	cfg := scatter.Config{
		Host: h, Identity: s.id, Session: c.id, MaxFrame: 2 * c.env.maxFrame, Write: c.need.write, Shared: &s.server.scattered, Watch: s.server.cfg.Watch,
		Panicked: s.panicked,
	}
	h.base, h.implied = *c.wanted(), c.implied
	if c.own.across() {
		cfg.Committer = s.server.cfg.Committer
	}
	if from != nil {
		cfg.Begin, cfg.Replay, cfg.Marks = c.branching()
		h.base = c.tx.saved
	}
	h.see(c)
	by := scatter.New(theirs, cfg)
	conn := s.server.pools.Local(ours, &severalShards, s.id, maps.Collect(c.params.all()), by)
	conn.Applied = h.base.print
	conn.Params["in_hot_standby"] = "off"
	if from != nil {
		s.hearOf(from, nil)
		conn.Applied = from.Applied
		by.Adopt(scatter.Link{Conn: from, Hop: c.srvHop}, c.srvShard, scatter.Adopted{
			Slot: c.slot, Write: !from.Standby(), Wrote: c.tx.wrote, ReadOnly: c.tx.readOnly, Shaped: c.tx.shaped, Opaque: from.Left == c.id,
		})
	}
	s.server.helpers.Go(func() { by.Serve(s.server.ctx) })
	s.hearOf(conn, &s.raw.self)
	s.has.Store(conn)
	s.mu.Lock()
	s.running = conn
	if ctx.Err() != nil || s.killed.Load() || s.struck {
		s.strike()
	}
	s.mu.Unlock()
	c.convened(conn, by, h)
}
