package gossip

import (
	"math/rand/v2"
	"slices"
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
	if !s.pushes.take(time.Now(), pushRate, pushBurst) {
		s.count.calmed.Add(1)
		return false
	}
	return true
}

// outgoing collects what must go out at once, until no lock is held.
type outgoing struct {
	msgs   [][]byte // to random nodes
	echoes [][]byte // to those whom this node has to look after
}

func (o *outgoing) add(p outgoing) {
	o.msgs, o.echoes = append(o.msgs, p.msgs...), append(o.echoes, p.echoes...)
}

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

// flush sends urgent messages at once, several in one packet: to a few random nodes, and echoes to a few that are always the same. By
// random nodes alone, as good as all hear a flip within two round trips, and one in some ten thousand is chosen by nobody, or
// loses all its copies. So every node is looked after by a few others, each of which echoes a flip when it hears it for the second time. The queue sends
// all of them too, for those whom none of these packets reaches. No lock may be held.
func (s *Speaker) flush(out outgoing) {
	s.push(out.msgs, s.randomPeers)
	s.push(out.echoes, s.wards)
}

func (s *Speaker) push(msgs [][]byte, peers func(k int) []memberlist.Node) {
	list := s.list.Load()
	if len(msgs) == 0 || list == nil {
		return
	}
	var batch []byte
	send := func() {
		for _, n := range peers(eagerPeers) {
			s.count.pushes.Add(1)
			if err := list.SendBestEffort(&n, batch); err != nil {
				s.log.Debug("push failed", "node", n.Name, "error", err)
			}
		}
		batch = nil
	}
	for _, m := range msgs {
		if len(batch)+len(m)+2 > maxBroadcast && batch != nil {
			send()
		}
		batch = appendBatched(batch, m)
	}
	send()
}

// wards returns copies of the k live nodes that this one looks after: the one behind it in the order of names, and others as far from
// each other. So each node has k that look after it, and they do not all stand in its own region.
func (s *Speaker) wards(k int) []memberlist.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.order)
	k = min(k, n)
	nodes := make([]memberlist.Node, 0, k)
	self, _ := slices.BinarySearch(s.order, s.cfg.Self.Name)
	for i := range k {
		nodes = append(nodes, s.peers[s.order[(self+i*n/k)%n]].node)
	}
	return nodes
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
