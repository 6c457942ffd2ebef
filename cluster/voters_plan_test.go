package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"rangefinder/rib"
)

// planOf is a plan of voters by their names, among members that are named after their regions.
func planOf(servers []string, members []rib.Member, drained ...string) *voterPlan {
	p := &voterPlan{members: members, known: map[string]rib.Member{}, drained: map[string]bool{}, gone: map[string]bool{}, steady: map[string]bool{}, self: "a1", want: 3}
	for _, name := range servers {
		p.servers = append(p.servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name + ":1")})
	}
	for _, m := range members {
		p.known[m.Name] = m
	}
	for _, name := range drained {
		p.drained[name] = true
	}
	return p
}

// step is what a plan does next: a name, one with a minus if it is removed, or nothing.
func (p *voterPlan) step(t interface{ Fatalf(string, ...any) }) string {
	add, remove := p.next()
	switch {
	case add != nil && remove != "":
		t.Fatalf("it adds %s and removes %s at once", add.Name, remove)
	case add != nil:
		return add.Name
	case remove != "":
		return "-" + remove
	}
	return ""
}

func TestPlanVoters(t *testing.T) {
	member := func(name, region string) rib.Member {
		return rib.Member{Name: name, Region: region, Addr: name + ":1"}
	}
	all := []rib.Member{member("a1", "iad"), member("a2", "iad"), member("b1", "fra"), member("c1", "syd")}
	more := append([]rib.Member{member("a3", "iad")}, all...)
	for _, c := range []struct {
		name    string
		servers string
		members []rib.Member
		want    string
		drained string
		steady  string
	}{
		{"another region first", "a1", all, "b1", "", ""},
		{"then the third region", "a1 b1", all, "c1", "", ""},
		{"a dead voter's region counts", "a1 gone", all, "c1", "", ""},
		{"the same region if there is no other", "a1", all[:2], "a2", "", ""},
		{"three are enough", "a1 b1 c1", all, "", "", "a1 a2 b1 c1"},
		{"one that was gone for long gives its place to another", "a1 b1 dead", all, "c1", "", ""},
		{"and leaves when that has it", "a1 b1 c1 dead", all, "-dead", "", ""},
		{"nobody else is there", "a1 b1 dead", []rib.Member{all[0], all[2]}, "", "", ""},
		{"a drained voter gives its place away", "a1 b1 a2", all, "c1", "b1", ""},
		{"and leaves", "a1 b1 a2 c1", all, "-b1", "b1", ""},
		{"who leads stays", "a1 b1 c1 a2", all, "", "a1", "a1 a2 b1 c1"},
		{"those that are gone for a moment are not replaced", "a1 b1 gone", all, "", "", ""},
		{"nobody new", "a1", all[:1], "", "", ""},
		{"a drained one is passed over", "a1", all, "c1", "b1", ""},
		{"rather the same region", "a1", all[:3], "a2", "b1", ""},
		{"alone it does not become one", "a1", []rib.Member{all[0], all[2]}, "", "b1", ""},
		{"as a voter it counts while there is nobody else", "a1 b1 c1", []rib.Member{all[0], all[2], all[3]}, "", "b1", ""},
		{"of two drained voters each is replaced", "a1 b1 c1", more, "a2", "b1 c1", ""},
		{"and leaves before the next", "a1 a2 b1 c1", more, "-b1", "b1 c1", ""},
		{"three of a region stay while the others are new", "a1 a2 a3", more, "", "", "a1 a2 a3"},
		{"one gives its place to another region", "a1 a2 a3", more, "b1", "", "a1 a2 a3 b1 c1"},
		{"to one that has been there for long", "a1 a2 a3", more, "c1", "", "a1 a2 a3 c1"},
		{"that is not drained", "a1 a2 a3", more, "c1", "b1", "a1 a2 a3 b1 c1"},
		{"and leaves when that has it, in the region", "a1 a2 a3 b1", more, "-a3", "", ""},
		{"first one that does not live now", "a1 a2 a3 b1", more[:1], "-a2", "", ""},
		{"then the next", "a1 a2 b1", more, "c1", "", "a1 a2 a3 b1 c1"},
		{"which is the last", "a1 a2 b1 c1", more, "-a2", "", ""},
		{"while a voter is away all stays", "a1 a2 gone", more, "", "", "a1 a2 a3 b1 c1"},
		{"also one of the region", "a1 a2 a3", more, "", "", "a1 a2 b1 c1"},
		{"who leads and is drained leaves it to the next", "a1 a2 a3", more, "", "a1", "a1 a2 a3 b1 c1"},
	} {
		p := planOf(strings.Fields(c.servers), c.members, strings.Fields(c.drained)...)
		for _, m := range append([]rib.Member{member("gone", "fra")}, more...) {
			p.known[m.Name] = m
		}
		p.gone["dead"] = true
		for _, name := range strings.Fields(c.steady) {
			p.steady[name] = true
		}
		if got := p.step(t); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestPlanVotersComesToRest: whatever comes and goes, one thing changes at a time, there are neither fewer voters than there shall be nor more than one above that, and when nothing
// comes and goes any more, all comes to rest soon, with no voter made or removed in vain, and none where another region would have done better.
func TestPlanVotersComesToRest(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := planOf(nil, nil)
		p.want = rapid.SampledFrom([]int{1, 3, 5}).Draw(r, "want")
		var all []rib.Member
		for i := range rapid.IntRange(1, 12).Draw(r, "nodes") {
			m := rib.Member{Name: fmt.Sprintf("n%d", i), Region: rapid.SampledFrom([]string{"iad", "fra", "syd", "gru", "sin"}).Draw(r, "region"), Addr: "x:1"}
			all, p.known[m.Name] = append(all, m), m
		}
		p.self = all[0].Name
		p.apply(r, p.self)
		lives := map[string]bool{}
		for _, m := range all {
			lives[m.Name] = m.Name == p.self || rapid.Bool().Draw(r, "lives")
		}
		members := func() {
			p.members = nil
			for _, m := range all {
				if lives[m.Name] {
					p.members = append(p.members, m)
				} else {
					p.steady[m.Name] = false
				}
			}
		}
		for range rapid.IntRange(0, 60).Draw(r, "steps") {
			name := rapid.SampledFrom(all).Draw(r, "whom").Name
			switch rapid.IntRange(0, 5).Draw(r, "what") {
			case 0:
				p.drained[name] = !p.drained[name]
			case 1:
				lives[name] = !lives[name] || name == p.self
				p.gone[name] = p.gone[name] && !lives[name]
			case 2:
				p.gone[name] = !lives[name]
			case 3:
				p.steady[name] = lives[name]
			}
			members()
			p.move(r)
		}

		for _, m := range all { // nothing comes or goes any more
			p.steady[m.Name], p.gone[m.Name] = lives[m.Name], !lives[m.Name]
		}
		members()
		changed := map[string]bool{}
		for {
			step := p.move(r)
			if step == "" {
				break
			}
			if name := strings.TrimPrefix(step, "-"); changed[name] {
				r.Fatalf("%s for the second time", step)
			} else {
				changed[name] = true
			}
		}
		if p.drained[p.self] { // the next leader goes on
			return
		}
		regions, staying, leaving, able := map[string]int{}, 0, 0, 0
		voter := map[string]bool{}
		for _, s := range p.servers {
			name := string(s.ID)
			voter[name] = true
			if name != p.self && (p.gone[name] || p.drained[name]) {
				leaving++
				continue
			}
			staying++
			regions[p.known[name].Region]++
		}
		for _, m := range p.members {
			if !p.drained[m.Name] {
				able++
			}
		}
		if staying < min(able, p.want) || staying >= p.want && leaving > 0 {
			r.Fatalf("%d voters that stay of %d that could be, and %d that do not", staying, able, leaving)
		}
		for _, m := range p.members {
			if voter[m.Name] || p.drained[m.Name] || regions[m.Region] > 0 {
				continue
			}
			for region, n := range regions {
				if n > 1 {
					r.Fatalf("%s has %d voters, and %s of %s is none", region, n, m.Name, m.Region)
				}
			}
		}
	})
}

// apply changes the voters.
func (p *voterPlan) apply(r *rapid.T, step string) {
	if name, removed := strings.CutPrefix(step, "-"); removed {
		for i, s := range p.servers {
			if string(s.ID) == name {
				p.servers = append(p.servers[:i:i], p.servers[i+1:]...)
				return
			}
		}
		r.Fatalf("%s is no voter", name)
	}
	for _, s := range p.servers {
		if string(s.ID) == step {
			r.Fatalf("%s is a voter already", step)
		}
	}
	p.servers = append(p.servers, raft.Server{ID: raft.ServerID(step)})
}

// move does what is next, and looks whether it may be done.
func (p *voterPlan) move(r *rapid.T) (step string) {
	before, steady := len(p.servers), true
	regions, staying := map[string]int{}, 0
	for _, s := range p.servers {
		name := string(s.ID)
		steady = steady && p.steady[name]
		if name == p.self || !p.gone[name] && !p.drained[name] {
			staying++
			regions[p.known[name].Region]++
		}
	}
	if step = p.step(r); step == "" {
		return ""
	}
	p.apply(r, step)
	name, removed := strings.CutPrefix(step, "-")
	switch {
	case removed && name == p.self:
		r.Fatalf("who leads is removed")
	case removed && before <= p.want:
		r.Fatalf("%s, with %d voters before and %d wanted", step, before, p.want)
	case removed && !p.gone[name] && !p.drained[name] && (staying <= p.want || regions[p.known[name].Region] < 2):
		r.Fatalf("%s, of a region with %d and of %d in all", step, regions[p.known[name].Region], staying)
	case !removed && before > p.want:
		r.Fatalf("%s is one more, of %d", step, before)
	case !removed && p.drained[name]:
		r.Fatalf("%s is drained", step)
	case !removed && staying >= p.want && (!steady || !p.steady[name] || regions[p.known[name].Region] > 0):
		r.Fatalf("%s has not been there for long, or a voter has not, or it is of a region that has one", step)
	}
	return step
}
