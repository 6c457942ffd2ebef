package gossip

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

// peer is a live node.
type peer struct {
	member   rib.Member
	node     memberlist.Node // our own copy
	answered time.Time       // when its last digest was answered
	pulls    bucket          // of its pulls that are answered
	leaving  time.Time       // when it said goodbye; zero: it has not
	reads    byte            // newest level
}

// leaves tells whether the node has said goodbye. A word that nothing comes of was somebody else's, and is forgotten: what a node that
// dies has may not be given to others as soon as what one has that leaves.
func (p *peer) leaves() bool { return !p.leaving.IsZero() && time.Since(p.leaving) < rib.Tombstone }

// Members returns the live nodes, this one included, by name.
func (s *Speaker) Members() []rib.Member {
	s.mu.Lock()
	members := make([]rib.Member, 0, len(s.peers)+1)
	self := s.cfg.Self
	self.Incarnation = s.own.incarnation
	members = append(members, self)
	for _, p := range s.peers {
		members = append(members, p.member)
	}
	s.mu.Unlock()
	slices.SortFunc(members, func(a, b rib.Member) int { return strings.Compare(a.Name, b.Name) })
	return members
}

// Present returns the names, sorted, of the live nodes, this one included, and of those that died less than a tombstone ago:
// whatever they had they may still have. A node that has said goodbye is not among them.
func (s *Speaker) Present() []string {
	s.mu.Lock()
	names := make([]string, 0, len(s.peers)+1)
	names = append(append(names, s.cfg.Self.Name), s.order...)
	now := time.Now()
	for name, l := range s.lost {
		if now.Sub(l.at) < rib.Tombstone {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	slices.Sort(names)
	return slices.Compact(names)
}

// isMember is for memberlist's callbacks: it takes no lock.
func (s *Speaker) isMember(name string) bool {
	_, ok := (*s.names.Load())[name]
	return ok || name == s.cfg.Self.Name
}

// memberEvent is called by hear, which calls membersChanged after it.
func (s *Speaker) memberEvent(e event) {
	name := e.node.Name
	if e.gone {
		s.memberGone(name)
		return
	}
	m, reads, err := memberOf(&e.node, s.cluster)
	if err != nil {
		return // NotifyAlive refused it already
	}
	s.mu.Lock()
	p := s.peers[name]
	if p == nil {
		p = new(peer)
		s.peers[name] = p
		s.order = insert(s.order, name)
		s.regions[m.Region] = insert(s.regions[m.Region], name)
		s.log.Info("node joined", "node", name, "region", m.Region, "addr", m.Addr)
	}
	if was := p.member.Region; was != m.Region && was != "" { // it was started anew elsewhere
		s.leaveRegion(name, was)
		s.regions[m.Region] = insert(s.regions[m.Region], name)
	}
	if m.Incarnation > p.member.Incarnation { // it is back
		p.leaving = time.Time{}
	}
	p.member, p.node, p.reads = m, e.node, reads
	delete(s.lost, name)
	s.known[idOf(name)] = name // beyond maxKnown: members are bounded by themselves
	s.known[idOf(m.Region)] = m.Region
	s.mu.Unlock()
	s.cfg.Health.MemberUp(m)
	s.changed()
	s.own.matrixDue.Store(true) // a newcomer should not wait a minute for our row
}

func (s *Speaker) memberGone(name string) {
	s.mu.Lock()
	p := s.peers[name]
	if p == nil {
		s.mu.Unlock()
		return
	}
	delete(s.peers, name)
	s.order = remove(s.order, name)
	s.leaveRegion(name, p.member.Region)
	delete(s.matrix, idOf(name))
	left := p.leaves()
	if !left {
		s.count.deaths.Add(1)
		s.remember(p)
	}
	s.mu.Unlock()
	s.cfg.Health.MemberGone(name, time.Now())
	s.changed()
	s.log.Info("node gone", "node", name, "region", p.member.Region, "left", left)
}

// leaveRegion needs mu.
func (s *Speaker) leaveRegion(name, region string) {
	if s.regions[region] = remove(s.regions[region], name); len(s.regions[region]) == 0 {
		delete(s.regions, region)
	}
}

// insert and remove change a sorted list.
func insert(sorted []string, s string) []string {
	i, _ := slices.BinarySearch(sorted, s)
	return slices.Insert(sorted, i, s)
}

func remove(sorted []string, s string) []string {
	if i, ok := slices.BinarySearch(sorted, s); ok {
		return slices.Delete(sorted, i, i+1)
	}
	return sorted
}

// membersChanged needs mu.
func (s *Speaker) membersChanged() {
	s.live.Store(int64(len(s.peers)))
	names := make(map[string]struct{}, len(s.peers))
	written := s.reads
	for name, p := range s.peers {
		written = min(written, p.reads)
		names[name] = struct{}{}
	}
	s.names.Store(&names)
	s.written.Store(uint32(written))
	s.sumsStale.Store(true) // drains are part of them, or are not any more
}
