package wire

import (
	"fmt"

	"rangefinder/wire/pg"
)

// A session that is tied to its server connection, or has one of its own, chooses a backend once. If the shard gets another primary later while the
// old one lives on, whatever the session wrote there would be acknowledged and lost; so at the next statement outside a transaction the
// table is asked again.

// deposed ends the session, or refuses its write, if its connection leads to a primary whose time is over. It reports whether it did.
func (c *core) deposed() bool {
	slot := c.table.Slot(c.srvShard)
	if slot == nil {
		return false
	}
	list := slot.For(c.db)
	if list == c.reigns || c.srv.Standby() {
		return false
	}
	h := c.srvHop
	switch {
	case len(list.Writes) == 0 && list.SplitBrain:
		if !c.need.write {
			return false
		}
		c.list = list
		c.fail(c.headless())
		return true
	case len(list.Writes) == 0 || list.Writes[0].Backend.Name == h.Backend.Name || list.Writes[0].Timeline <= h.Timeline:
		c.reigns = list
		return false
	}
	next := &list.Writes[0]
	why := c.pinned
	if why == "" {
		why = `pool_mode = "session"`
	}
	c.terminate(pg.NewError(pg.CodeAdminShutdown, fmt.Sprintf("shard %s has another primary than the one that this session is tied to", c.srvShard)).
		WithDetail(fmt.Sprintf("The session has a connection to %s, and %s was promoted after it, to timeline %d: what was written to the old one would be lost. The session's state cannot be moved: %s.",
			h.Backend.Name, next.Backend.Name, next.Timeline, why)).
		WithHint("Nothing was sent: connect again."))
	return true
}
