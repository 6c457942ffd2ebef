package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It is called from many goroutines, some of them under memberlist's own lock and
// some after Shutdown: so it copies, never blocks and never calls memberlist.
type delegate struct{ s *Speaker }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.MergeDelegate    = delegate{}
	_ memberlist.PingDelegate     = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	if len(d.s.meta) > limit {
		return nil // Open refuses such a name; memberlist would panic
	}
	return d.s.meta
}

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(msg []byte) {
	if len(msg) > maxMessage || !d.s.inbox.put(msg) {
		d.s.count.dropped.Add(1)
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.s.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate: a digest, never the records.
func (d delegate) LocalState(bool) []byte {
	g := d.s.digest(false)
	return appendDigest(nil, &g)
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(buf []byte, _ bool) { d.NotifyMsg(buf) }

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.come(n, 1); d.event(n, false) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.event(n, false) }

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.come(n, -1); d.event(n, true) }

// come counts the nodes that memberlist has let in, which hear may be behind with.
func (d delegate) come(n *memberlist.Node, more int64) {
	if n.Name != d.s.cfg.Self.Name {
		d.s.letIn.Add(more)
	}
}

func (d delegate) event(n *memberlist.Node, gone bool) {
	if n.Name == d.s.cfg.Self.Name {
		return
	}
	if _, reads, err := memberOf(n, d.s.cluster); err == nil && !gone && uint32(reads) < d.s.written.Load() {
		d.s.written.Store(uint32(reads)) // at once: what is said from now on it will read
		d.s.sumsStale.Store(true)
	}
	d.s.inbox.putEvent(n, gone)
}

// NotifyAlive implements memberlist.AliveDelegate: nodes of another cluster, and more than we can hold, are not let in.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if _, _, err := memberOf(n, d.s.cluster); err != nil {
		d.s.count.refused.Add(1)
		return err
	}
	if d.s.letIn.Load() >= maxMembers {
		if !d.s.isMember(n.Name) {
			d.s.count.overBound.Add(1)
			return fmt.Errorf("gossip: node %q: %d nodes are known already", n.Name, maxMembers)
		}
	}
	return nil
}

// NotifyMerge implements memberlist.MergeDelegate: a join with a cluster that has strangers in it is refused whole.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.State != memberlist.StateAlive && n.State != memberlist.StateSuspect {
			continue
		}
		if _, _, err := memberOf(n, d.s.cluster); err != nil {
			d.s.count.refused.Add(1)
			return err
		}
	}
	return nil
}

// NotifyConflict implements memberlist.ConflictDelegate. When a restarted node has another address than its peers
// remember, they refuse it until they have seen its old self die: we must come again.
func (d delegate) NotifyConflict(existing, _ *memberlist.Node) {
	if existing.Name == d.s.cfg.Self.Name {
		d.s.conflictUntil.Store(int64(d.s.clock() + time.Minute))
	}
}

// AckPayload implements memberlist.PingDelegate.
func (d delegate) AckPayload() []byte { return appendAck(nil, d.s.current()) }

// NotifyPingComplete implements memberlist.PingDelegate: once a second some node tells us the sum of what it holds.
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, payload []byte) {
	if len(payload) == 0 {
		return
	}
	theirs, err := decodeAck(payload)
	if err != nil {
		d.s.count.malformed.Add(1)
		return
	}
	d.s.compare(n.Name, theirs)
}
