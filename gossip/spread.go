package gossip

import (
	"math/rand/v2"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

// broadcast is a queued message; a newer one of the same name replaces it.
type broadcast struct {
	name string
	msg  []byte
}

var _ memberlist.NamedBroadcast = (*broadcast)(nil)

// Name implements memberlist.NamedBroadcast.
func (b *broadcast) Name() string { return b.name }

// Message implements memberlist.Broadcast.
func (b *broadcast) Message() []byte { return b.msg }

// Finished implements memberlist.Broadcast.
func (b *broadcast) Finished() {}

// Invalidates implements memberlist.Broadcast.
func (b *broadcast) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(*broadcast)
	return ok && other.name == b.name
}

func (k recordKey) queueName() string {
	var b [17]byte
	b[0] = k.kind
	for i := range 8 {
		b[1+i] = byte(k.backend >> (8 * i))
		b[9+i] = byte(k.observer >> (8 * i))
	}
	return string(b[:])
}

const (
	pushRate  = 64   // flips a second that this node pushes, its own and others'
	pushBurst = 1024 // and at once: a region may fall
)

// mayPush spends one of the flips that this node may push. Whoever holds the cluster key could otherwise make each flip into four
// packets of each node.
func (s *Speaker) mayPush() bool {
	s.pushMu.Lock()
	defer s.pushMu.Unlock()
	now := time.Now()
	s.pushes = min(s.pushes+pushRate*now.Sub(s.pushed).Seconds(), pushBurst)
	s.pushed = now
	if s.pushes < 1 {
		s.count.calmed.Add(1)
		return false
	}
	s.pushes--
	return true
}

// outgoing collects what must go out at once, until no lock is held.
type outgoing struct{ msgs [][]byte }

func (o *outgoing) add(p outgoing) { o.msgs = append(o.msgs, p.msgs...) }

// tell queues a message, and returns it for flush if it is urgent. It may be called with mu held.
func (s *Speaker) tell(name string, msg []byte, urgent bool) (out outgoing) {
	if len(msg) > maxBroadcast {
		s.count.tooBig.Add(1)
		s.log.Error("broadcast is too big", "bytes", len(msg), "limit", maxBroadcast)
		return out
	}
	s.queue.QueueBroadcast(&broadcast{name: name, msg: msg})
	if urgent && s.mayPush() {
		s.count.flips.Add(1)
		out.msgs = append(out.msgs, msg)
	}
	return out
}

// flush sends urgent messages to a few random nodes at once, several in one packet. The queue sends them too, for those
// whom none of these packets reaches. No lock may be held.
func (s *Speaker) flush(out outgoing) {
	list := s.list.Load()
	if len(out.msgs) == 0 || list == nil {
		return
	}
	var batch []byte
	push := func() {
		for _, n := range s.randomPeers(eagerPeers) {
			s.count.pushes.Add(1)
			if err := list.SendBestEffort(&n, batch); err != nil {
				s.log.Debug("push failed", "node", n.Name, "error", err)
			}
		}
		batch = nil
	}
	for _, m := range out.msgs {
		if len(batch)+len(m)+2 > maxBroadcast && batch != nil {
			push()
		}
		batch = appendBatched(batch, m)
	}
	push()
}

// randomPeers returns copies of up to k live nodes.
func (s *Speaker) randomPeers(k int) []memberlist.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.order)
	k = min(k, n)
	nodes := make([]memberlist.Node, 0, k)
	seen := make(map[int]struct{}, k)
	for len(nodes) < k {
		i := rand.IntN(n)
		if _, ok := seen[i]; ok {
			continue
		}
		seen[i] = struct{}{}
		nodes = append(nodes, s.peers[s.order[i]].node)
	}
	return nodes
}

// peerNode returns a copy of a live node.
func (s *Speaker) peerNode(name string) (memberlist.Node, rib.Member, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[name]
	if !ok {
		return memberlist.Node{}, rib.Member{}, false
	}
	return p.node, p.member, true
}
