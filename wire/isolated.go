package wire

import (
	"context"
	"time"

	"rangefinder/wire/pg"
)

// Isolated is what a database's sessions get, of sharded tables, on a node without a lease: one that has not reached the ledger's leader for
// a while, so that ranges may change hands without it.
type Isolated uint32

// The policies.
const (
	IsolatedServe        Isolated = iota // all: shards refuse writes to what has moved, and reads of it may be out of date
	IsolatedRefuseWrites                 // reads
	IsolatedRefuse                       // nothing
)

var isolations = [...]string{"serve", "refuse_writes", "refuse"}

func (i Isolated) String() string { return isolations[i] }

// ParseIsolated reads one by its name.
func ParseIsolated(name string) (Isolated, bool) {
	return byName[Isolated](isolations[:], name)
}

// isolated reports whether the request in hand, which is about sharded tables, is refused because the node has no lease. Where it is not, the
// client is told once that answers may be out of date.
func (c *core) isolated() bool {
	policy := IsolatedServe
	if c.own.isolatedDatabase != nil {
		policy = Isolated(c.own.isolatedDatabase.Load())
	}
	if policy == IsolatedServe || policy == IsolatedRefuseWrites && !c.seg.changes {
		if alone := c.env.alone(c.env.made.Add(c.came)); alone != c.alone {
			if c.alone = alone; alone {
				c.out = pg.AppendNotice(c.out, &pg.Error{
					Severity: "WARNING", Code: "01000", Message: "this node has lost the cluster: what it knows of who owns which keys may be out of date",
					Detail: "In a range that has moved meanwhile reads may be out of date, and UPDATE and DELETE may find no row. What would change one is refused by its shard.",
					Hint:   "Another node may have contact. What a node without contact does is said by isolated in [[databases]].",
				})
				c.outMark = len(c.out)
			}
		}
		return false
	}
	if c.env.leased() {
		return false
	}
	// 57P03: pools take the connection for broken, and the client tries another node.
	c.fail(pg.NewError(pg.CodeCannotConnectNow, "this node has lost the cluster: who owns the key is not sure").
		WithDetail("It has no lease, and this database has isolated = \"" + policy.String() + "\".").
		WithHint("Nothing was sent: try it on another node, or again in a moment."))
	return true
}

// leaseLook is how often who waits for a lease looks. One that has returned is not told of: it is asked for at each statement, and waited for almost never.
const leaseLook = 20 * time.Millisecond

// regains reports whether the node has a lease. One that has ended a moment ago is waited for: the ledger may just have another leader. What was planned
// before that still holds: the leader grants no lease to a node as long as something is at work there that was routed without a move (cluster.Leases).
func (e *env) regains(ctx context.Context) bool {
	for !e.leased() {
		if e.alone(time.Now()) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(leaseLook):
		}
	}
	return true
}
