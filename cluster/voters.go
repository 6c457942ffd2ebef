package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// watchVoters tells which voters have not been among the members for Config.Replace, and which members have been there without a break for as long, as
// this node has seen it for so long as it leads. l.reconcileMu is held.
func (l *Ledger) watchVoters(members []rib.Member) (gone, steady map[string]bool) {
	gone, steady = make(map[string]bool), make(map[string]bool)
	now := time.Now()
	note := func(before, after map[string]time.Time, name string) (long bool) {
		since, ok := before[name]
		if !ok {
			since = now
		}
		after[name] = since
		return now.Sub(since) >= l.cfg.Replace
	}
	missing, present := make(map[string]time.Time), make(map[string]time.Time)
	for _, m := range members {
		steady[m.Name] = note(l.present, present, m.Name)
	}
	for _, s := range l.raft.GetConfiguration().Configuration().Servers {
		name := string(s.ID)
		if _, ok := present[name]; !ok && name != l.cfg.Node {
			gone[name] = note(l.missing, missing, name)
		}
	}
	l.missing, l.present = missing, present
	return gone, steady
}

// wanted is how many voters there shall be.
func (l *Ledger) wanted(members []rib.Member) int {
	if l.cfg.Voters > 0 {
		return l.cfg.Voters
	}
	regions := make(map[string]bool)
	for _, m := range members {
		regions[m.Region] = true
	}
	if len(regions) >= 5 {
		return 5
	}
	return 3
}

// nextChange returns the member to make a voter next, or the voter to remove; neither: all is well.
func (l *Ledger) nextChange(p *voterPlan) (add *rib.Member, remove string) {
	p.servers, p.want = l.raft.GetConfiguration().Configuration().Servers, l.wanted(p.members)
	if p.want == 3 && len(p.servers) >= 5 && l.cfg.Voters <= 0 {
		p.want = 5 // a region that is gone for a while does not change how many there are
	}
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	p.known = l.members
	return p.next()
}

// voterPlan is what the leader goes by when it changes the voters.
type voterPlan struct {
	servers []raft.Server         // the voters
	members []rib.Member          // that live now
	known   map[string]rib.Member // and those that lived before, for their regions
	drained map[string]bool       // members
	gone    map[string]bool       // voters that have not been members for long
	steady  map[string]bool       // members that have been there for long without a break
	tried   map[string]bool       // members that are not to be made voters now
	self    string                // who leads, and stays
	want    int                   // how many there shall be
}

// next decides whom to add, or whom to remove. There are never more than one above want, nor does one leave when there are no more than that. It leaves alone the
// address of a voter that moved: addresses (reconcile.go) is where Raft asks, and changing it in the configuration makes raft 1.8.0 read and write it
// at once from two goroutines.
func (p *voterPlan) next() (add *rib.Member, remove string) {
	voters, regions, leaves := make(map[string]bool), make(map[string]int), ""
	staying := 0
	for _, s := range p.servers {
		name := string(s.ID)
		voters[name] = true
		if name != p.self && (p.gone[name] || p.drained[name]) {
			if leaves == "" || p.gone[name] && !p.gone[leaves] {
				leaves = name
			}
			continue
		}
		staying++
		regions[p.known[name].Region]++
	}
	if len(p.servers) > p.want && leaves != "" {
		return nil, leaves
	}
	if staying < p.want {
		return p.candidate(voters, regions, func(rib.Member) bool { return true }), ""
	}
	if surplus := p.surplus(regions); surplus != "" && !p.drained[p.self] { // who leads and is drained leaves as well, when another one leads
		switch {
		case staying > p.want:
			return nil, surplus
		case !slices.ContainsFunc(p.servers, func(s raft.Server) bool { return !p.steady[string(s.ID)] }):
			return p.candidate(voters, regions, func(m rib.Member) bool { return m.Region != "" && regions[m.Region] == 0 && p.steady[m.Name] }), ""
		}
	}
	return nil, ""
}

// candidate is the member to make a voter next, of the region with the fewest; nil: none may be.
func (p *voterPlan) candidate(voters map[string]bool, regions map[string]int, may func(rib.Member) bool) *rib.Member {
	list := slices.DeleteFunc(slices.Clone(p.members), func(m rib.Member) bool {
		return voters[m.Name] || p.drained[m.Name] || p.tried[m.Name] || m.Addr == "" || m.Name == "" || !may(m)
	})
	if len(list) == 0 {
		return nil
	}
	best := slices.MinFunc(list, func(a, b rib.Member) int {
		return cmp.Or(cmp.Compare(regions[a.Region], regions[b.Region]), cmp.Compare(a.Name, b.Name))
	})
	return &best
}

// surplus is the voter that is missed least, of a region that has others: one that does not live now, else one of the region with the most; "": there
// is none.
func (p *voterPlan) surplus(regions map[string]int) string {
	best := rib.Member{}
	lives := func(name string) int {
		if slices.ContainsFunc(p.members, func(m rib.Member) bool { return m.Name == name }) {
			return 1
		}
		return 0
	}
	for _, s := range p.servers {
		m := p.known[string(s.ID)]
		if m.Name == "" || m.Name == p.self || p.gone[m.Name] || p.drained[m.Name] || m.Region == "" || regions[m.Region] < 2 {
			continue
		}
		if best.Name == "" || cmp.Or(cmp.Compare(lives(m.Name), lives(best.Name)), cmp.Compare(regions[best.Region], regions[m.Region]), cmp.Compare(best.Name, m.Name)) < 0 {
			best = m
		}
	}
	return best.Name
}
