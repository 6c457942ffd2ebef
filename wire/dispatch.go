package wire

import (
	"slices"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
)

// dispatch sends the request in hand on its way: to the connection that the session holds, or to the closest backend.
func (c *core) dispatch(n need) {
	n.write = n.write || c.ownConn && n.slot != nil || c.serializable() // whatever comes later must be able to run there
	c.toReference(&n)
	c.need, c.outMark, c.flushed, c.redo, c.copied = n, len(c.out), false, false, false
	if c.status == 'I' && !c.serverOpen {
		c.begun.by(c.table.Ownership())
	}
	if c.moves.keyed && (c.isolated() || c.holdsBack()) {
		return
	}
	switch {
	case c.srv != nil && c.reaches(n) && !c.handsOver():
		e := LacksCopy(n.copies, c.srvShard)
		if e == nil {
			e = c.elsewhere(n)
		}
		c.fail(e)
		return
	case c.srv == nil && n.many || c.srv != nil && c.reaches(n):
		c.convene()
		return
	case c.moves.outrun && c.srv != nil && c.coordinator == nil: // its snapshot may be older: a coordinator asks the server whether it is
		if c.handsOver() && c.seg.pin == "" && c.seg.asks == "" {
			c.convene()
		} else {
			c.fail(scatter.Outlived())
		}
		return
	case c.coordinator != nil && (c.seg.pin != "" || c.seg.asks != ""):
		c.fail(scatter.Pins(c.seg.pin + c.seg.asks))
		return
	case c.srv != nil && c.coordinator == nil && c.status == 'I' && !c.serverOpen && c.deposed():
		return
	case c.srv != nil:
		c.emit()
		return
	}
	slot := n.slot
	if slot == nil {
		slot = c.anySlot(n)
	}
	if slot == nil {
		c.fail(noShard(c.db))
		return
	}
	cand := slot.For(c.db)
	c.slot, c.list, c.srvShard = slot, cand, slot.Shard()
	c.hops, c.first, c.after = cand.Reads, 0, owing{}
	if n.write {
		c.hops = cand.Writes
	} else if len(cand.Reads) > 0 {
		c.first = cand.PickRead(c.env.random())
	}
	if !n.write && c.kind == 'S' && !c.seg.runs { // drivers have a write described before they send it
		c.hops = forQuestions(slot, c.db)
	}
	c.left = every(len(c.hops))
	if c.heed(cand) {
		return
	}
	switch {
	case c.need.write && c.left == 0:
		c.stall(c.headless())
		return
	case c.left == 0:
		c.fail(pg.NewError(pg.CodeCannotConnectNow, "shard "+slot.Shard()+" has no backend that can be used now").
			WithHint("See why with: rangefinder route '…', or /debug/fib on the node's HTTP port." + c.leftAlone()))
		return
	}
	c.wanting = true
	c.setHop()
}

// headless is the error for what needs a primary while there is none.
func (c *core) headless() *pg.Error {
	return pg.NewError(pg.CodeCannotConnectNow, "shard "+c.srvShard+" has no primary that takes writes now").
		WithDetail(c.list.WritesReason + ".").
		WithHint("Nothing was sent: try again when one has been promoted; see why with: rangefinder route '…'." + c.bound())
}

// elsewhere is the error for a statement that needs another shard than the session's connection belongs to, while that cannot be left.
func (c *core) elsewhere(n need) *pg.Error {
	what := "the statement"
	if c.plan != nil {
		what = describe(c.plan, &c.values)
	}
	needs := what + " needs several shards"
	if n.slot != nil && !n.many {
		needs = what + " belongs to " + n.slot.Shard()
	}
	if c.pinned != "" && c.status == 'I' {
		return pg.NewError(pg.CodeFeatureNotSupported, needs+", but this session is tied to "+c.srvShard).
			WithDetail("The session's state cannot be moved: " + c.pinned + ".").
			WithHint("Use another connection for the other shard.")
	}
	e := pg.NewError(pg.CodeFeatureNotSupported, needs+", but this transaction is open on "+c.srvShard).
		WithDetail("The transaction cannot go on elsewhere as things stand.").
		WithHint("Use one transaction for each shard.")
	switch {
	case c.pinned != "":
		e = e.WithDetail("The session is tied to its connection: " + c.pinned + ".")
	case c.tx.overfull:
		e = e.WithDetail("Too much has been set in it, or too many savepoints, for it to go on elsewhere.")
	case c.serverOpen:
		e = e.WithDetail("It began with messages that end in a Flush.").WithHint("Send a Sync, or a statement of each shard in one block.")
	}
	return e
}

// anySlot picks the shard for a statement that names none. After a write it goes where whatever the session has made would be.
func (c *core) anySlot(n need) *fib.Slot {
	return AnySlot(c.table, c.env.catalog(c.table), c.db, n.copies, n.catalogs || len(c.wrote) > 0, n.write)
}

// AnySlot picks the shard for a statement with the target Any: the closest one that has the database, or always the same one
// for a write and for the catalogs (Plan.Catalogs). It is nil if no shard is known that could run it: one that no
// backend serves is better than none, for it says why. Explanations call it too, so that they
// say what sessions do. With copies it is one of these shards.
func AnySlot(table *fib.Table, catalog *sqlkey.Catalog, database string, copies []string, catalogs, write bool) *fib.Slot {
	shards := catalog.Shards(database)
	if copies != nil {
		shards = copies
	}
	if usual := catalog.CatalogShard(database); (catalogs || write) && (copies == nil || slices.Contains(copies, usual)) {
		// Reads of the catalogs do without the usual shard when nothing of it is known, as after a restart all alone.
		if s := table.Slot(usual); s != nil && (write || len(s.For(database).Reads) > 0) {
			return s
		}
	}
	var best, bare *fib.Slot
	var first *fib.NextHop
	for _, shard := range shards {
		s := table.Slot(shard)
		if s == nil {
			continue
		}
		if bare == nil {
			bare = s
		}
		hops := s.For(database).Reads
		if write {
			hops = s.For(database).Writes
		}
		if len(hops) == 0 || best != nil && !hops[0].Healthy {
			continue
		}
		if best == nil || !first.Healthy || hops[0].Closer(first) {
			best, first = s, &hops[0]
		}
	}
	if best == nil {
		best = bare
	}
	return best
}

// forQuestions are the backends to ask what no row is read for, in the order to try them: what the node itself has to know before a client
// comes in, and what a statement is that is only prepared. They are those of the database's reads, and then the shard's others: reads may be
// pinned to where nothing answers, and who comes to write finds the primary wherever it is.
func forQuestions(slot *fib.Slot, database string) []fib.NextHop {
	own, all := slot.For(database), slot.Candidates()
	if own == all {
		return own.Reads
	}
	hops := own.Reads
	for _, h := range all.Reads {
		if !slices.ContainsFunc(hops, func(o fib.NextHop) bool { return *o.Backend == *h.Backend }) {
			hops = append(hops[:len(hops):len(hops)], h)
		}
	}
	return hops
}

func noShard(database string) *pg.Error {
	return pg.NewError(pg.CodeCannotConnectNow, "no shard is known to hold database "+database).
		WithHint("Set the key \"shard\" of [[databases]], make a keyspace, or wait for the node to hear of backends: see /debug on its HTTP port.")
}
