package wire

import (
	"slices"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/sqlkey"
)

// prepareHome notes where a statement can be prepared: any shard that has its tables, if nothing else in the segment says where
// to go.
func (c *core) prepareHome(plan *sqlkey.Plan) {
	c.seg.server = true
	if c.seg.home == nil && (plan.Target == sqlkey.Unsharded || plan.Target == sqlkey.Keyed || plan.Target == sqlkey.Many && !plan.Fan.Apart || plan.Copies != nil) {
		c.seg.home = plan
	}
}

// homeOf picks a shard that has the tables of a plan.
func (c *core) homeOf(plan *sqlkey.Plan) *fib.Slot {
	if plan.Target == sqlkey.Any {
		return c.anySlot(need{copies: plan.Copies})
	}
	if plan.Target == sqlkey.Unsharded {
		return c.table.Slot(plan.Shard)
	}
	if len(plan.Keys) > 0 && plan.Keys[0].Literal != nil {
		if owner, ok := c.table.Lookup(plan.Keyspace, plan.Keys[0].Literal); ok && owner.Slot != nil {
			return owner.Slot // of a schema, no other has its tables
		}
	}
	if plan.Target == sqlkey.Many { // by whose numbers for types its rows will be described
		if s := c.table.Slot(c.catalog.CatalogShard(c.db)); s != nil && c.owns(s, plan.Keyspace) && len(s.For(c.db).Reads) > 0 && s.For(c.db).Reads[0].Healthy {
			return s
		}
	}
	return c.anyOf(plan.Keyspace)
}

// owns reports whether a shard owns a part of a keyspace.
func (c *core) owns(s *fib.Slot, id rib.KeyspaceID) bool {
	keyspace := c.table.Ownership().Keyspace(id)
	return keyspace != nil && slices.ContainsFunc(keyspace.Ranges, func(r rib.Range) bool { return r.Shard == s.Shard() })
}

// anyOf picks a shard of a keyspace that can be asked now. A statement must not fail because a shard is down that it will never
// run on.
func (c *core) anyOf(id rib.KeyspaceID) *fib.Slot {
	var fallback *fib.Slot
	keyspace := c.table.Ownership().Keyspace(id)
	if keyspace == nil {
		return nil
	}
	for i := range keyspace.Ranges {
		s := c.table.Slot(keyspace.Ranges[i].Shard)
		if s == nil {
			continue
		}
		if reads := s.For(c.db).Reads; len(reads) > 0 && reads[0].Healthy {
			return s
		}
		if fallback == nil {
			fallback = s
		}
	}
	return fallback
}
