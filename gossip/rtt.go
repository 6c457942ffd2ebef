package gossip

import (
	"cmp"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

const (
	rttSamples = 5
	rttWeight  = 0.3
	rowTime    = time.Minute // a row is told again at least this often
	rowMargin  = time.Millisecond
	rowTellers = 3 // nodes of a region that tell their rows: the others' say the same, and would fill the network
)

// smoothed is the median of five samples, averaged.
type smoothed struct {
	samples []time.Duration
	value   time.Duration
}

func (m *smoothed) add(d time.Duration) {
	m.samples = append(m.samples, d)
	if len(m.samples) > rttSamples {
		m.samples = m.samples[1:]
	}
	sorted := slices.Sorted(slices.Values(m.samples))
	median := sorted[len(sorted)/2]
	if len(m.samples) == 1 {
		m.value = median
		return
	}
	m.value += time.Duration(rttWeight * float64(median-m.value))
}

// measure pings one node of each region once a second, each in turn; of very many regions as many as a row has room for.
func (s *Speaker) measure() {
	t := time.NewTicker(tick)
	defer t.Stop()
	turn := make(map[string]*place)
	for {
		select {
		case <-s.done:
			return
		case <-t.C:
		}
		regions := s.targets(turn)
		if _, others := regions[s.cfg.Self.Region]; !others {
			s.sample(s.cfg.Self.Region, 0)
		}
		for region, node := range regions {
			s.wg.Go(func() { s.ping(region, &node) })
		}
		s.tellRow()
	}
}

// targets picks the next node of each region, and if there are too many regions at once, of those that have had the fewest turns.
func (s *Speaker) targets(turn map[string]*place) map[string]memberlist.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	for region := range turn {
		if s.regions[region] == nil {
			delete(turn, region)
		}
	}
	asked := make([]string, 0, len(s.regions))
	for region, names := range s.regions {
		if turn[region] == nil {
			turn[region] = &place{next: rand.IntN(len(names))} // or nodes that started together would all ask the same one
		}
		asked = append(asked, region)
	}
	if len(asked) > maxRow {
		slices.SortFunc(asked, func(a, b string) int { return cmp.Compare(turn[a].turns, turn[b].turns) })
		asked = asked[:maxRow]
	}
	targets := make(map[string]memberlist.Node, len(asked))
	for _, region := range asked {
		names, p := s.regions[region], turn[region]
		p.turns, p.next = p.turns+1, p.next+1
		targets[region] = s.peers[names[p.next%len(names)]].node
	}
	return targets
}

// place is how far measure is with a region's nodes.
type place struct{ turns, next int }

func (s *Speaker) ping(region string, n *memberlist.Node) {
	rtt, err := s.list.Load().Ping(n.Name, &net.UDPAddr{IP: n.Addr, Port: int(n.Port)})
	if err == nil && rtt >= 0 {
		s.sample(region, rtt)
	}
}

func (s *Speaker) sample(region string, rtt time.Duration) {
	s.cfg.Health.Distance(region, rtt, time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.own.rtt[region]
	if m == nil {
		m = new(smoothed)
		s.own.rtt[region] = m
	}
	m.add(rtt)
}

// tellRow tells this node's row of the matrix if it has changed enough, or if it is time.
func (s *Speaker) tellRow() {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tells(&s.cfg.Self) {
		return
	}
	due := s.own.matrixDue.Swap(false) || now.Sub(s.own.lastRowAt) >= rowTime || len(s.own.rtt) != len(s.own.lastRow)
	for region, m := range s.own.rtt {
		was := s.own.lastRow[region]
		due = due || (m.value-was).Abs() > was/10+rowMargin
	}
	if !due || len(s.own.rtt) == 0 || now.Sub(s.own.lastRowAt) < minGap {
		if due {
			s.own.matrixDue.Store(true) // later
		}
		return
	}
	s.own.rowSeq = min(s.own.rowSeq+1, maxSeq)
	r := row{observer: s.self, stamp: rib.Stamp{Incarnation: s.own.incarnation, Seq: s.own.rowSeq}, rtt: make(map[id]time.Duration)}
	s.own.lastRow, s.own.lastRowAt = make(map[string]time.Duration), now
	for region, m := range s.own.rtt {
		s.own.lastRow[region] = m.value
		r.rtt[idOf(region)] = m.value
	}
	s.tell("row"+s.cfg.Self.Name, appendRow(nil, &r), false)
}

// tells tells whether a node, this or a live one, is one of the first of its region, whose rows count. It needs mu.
func (s *Speaker) tells(m *rib.Member) bool {
	before := 0
	if s.cfg.Self.Region == m.Region && s.cfg.Self.Name < m.Name {
		before++
	}
	names := s.regions[m.Region]
	for i := range min(len(names), rowTellers) {
		if names[i] < m.Name {
			before++
		}
	}
	return before < rowTellers
}

// hearRow takes a live node's row.
func (s *Speaker) hearRow(r row) {
	if r.observer == s.self {
		s.mu.Lock()
		newer := r.stamp.Compare(rib.Stamp{Incarnation: s.own.incarnation, Seq: s.own.rowSeq}) > 0
		s.mu.Unlock()
		if newer { // somebody else said it: go on above it
			s.mine(rib.Stamp{Incarnation: r.stamp.Incarnation, Seq: maxSeq})
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name, ok := s.known[r.observer]
	if _, live := s.peers[name]; !ok || !live || !s.plausible(name, r.stamp) {
		return
	}
	if old, ok := s.matrix[r.observer]; ok && r.stamp.Compare(old.stamp) <= 0 {
		return
	}
	s.matrix[r.observer] = r
	s.tell("row"+name, appendRow(nil, &r), false)
}

// rows returns the rows of the nodes asked for, encoded.
func (s *Speaker) rows(asked map[id]struct{}) (msgs [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := range asked {
		if r, ok := s.matrix[o]; ok {
			msgs = append(msgs, appendRow(nil, &r))
		}
	}
	return msgs
}

// RTTs returns the round trips between regions as far as this node has heard: from region, to region. Several nodes of a
// region are taken by their median. A region's way to itself is there too.
func (s *Speaker) RTTs() map[string]map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]map[string][]time.Duration)
	add := func(from, to string, d time.Duration) {
		if all[from] == nil {
			all[from] = make(map[string][]time.Duration)
		}
		all[from][to] = append(all[from][to], d)
	}
	for to, m := range s.own.rtt {
		add(s.cfg.Self.Region, to, m.value)
	}
	for observer, r := range s.matrix {
		p, ok := s.peers[s.known[observer]]
		if !ok || !s.tells(&p.member) { // what a node said while it was one of the first says nothing of today
			continue
		}
		for region, d := range r.rtt {
			if to, ok := s.known[region]; ok {
				add(p.member.Region, to, d)
			}
		}
	}
	matrix := make(map[string]map[string]time.Duration, len(all))
	for from, tos := range all {
		matrix[from] = make(map[string]time.Duration, len(tos))
		for to, ds := range tos {
			slices.Sort(ds)
			matrix[from][to] = ds[len(ds)/2]
		}
	}
	return matrix
}
