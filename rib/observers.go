package rib

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// MaxObservers is how many nodes watch one backend: enough for a majority that one wrong node does not sway, and few enough
// for the backend and for gossip.
const MaxObservers = 3

// Places are the live nodes by region, and how far the regions are from each other: what observers are chosen by.
type Places struct {
	nodes map[string][]nodeHash // by region
	rtt   map[string]map[string]time.Duration
	order map[string][]string // by region: all others, the nearest first
}

type nodeHash struct {
	name string
	hash uint64
}

// NewPlaces takes the live nodes and the matrix of round trips between regions, by from and to. What it does not hold is far.
func NewPlaces(members []Member, rtt map[string]map[string]time.Duration) *Places {
	p := &Places{nodes: map[string][]nodeHash{}, rtt: rtt, order: map[string][]string{}}
	for _, m := range members {
		p.nodes[m.Region] = append(p.nodes[m.Region], nodeHash{m.Name, hashOf(m.Name)})
	}
	return p
}

// Observers are the nodes that watch a backend, best first: up to three of its own region, by rendezvous hash, and if there are
// fewer, nodes of the regions nearest to it. near is the region to count from if the backend's own has no node.
//
// Every node works this out for itself and comes to the same, but for moments in which they have not heard the same; then there
// are a few observers more or less.
func (p *Places) Observers(b *Backend, near string) []string {
	home := b.Region
	if len(p.nodes[home]) == 0 {
		home = near
	}
	chosen := p.best(b.Name, home, nil)
	for _, region := range p.nearest(home) {
		if len(chosen) >= MaxObservers {
			break
		}
		chosen = p.best(b.Name, region, chosen)
	}
	return chosen
}

// best adds to chosen the nodes of a region that weigh the most for the backend, as far as there is room. There may be many
// backends and nodes, so it looks at each node once and sorts nothing.
func (p *Places) best(backend, region string, chosen []string) []string {
	var top [MaxObservers]struct {
		name   string
		weight uint64
	}
	room, n, hash := MaxObservers-len(chosen), 0, hashOf(backend)
	for _, node := range p.nodes[region] {
		weight, i := rendezvous(hash, node.hash), n
		for i > 0 && (top[i-1].weight < weight || top[i-1].weight == weight && top[i-1].name > node.name) {
			i--
		}
		if i >= room {
			continue
		}
		n = min(n+1, room)
		copy(top[i+1:n], top[i:n-1])
		top[i].name, top[i].weight = node.name, weight
	}
	for _, t := range top[:n] {
		chosen = append(chosen, t.name)
	}
	return chosen
}

// nearest are all other regions that have nodes, the nearest first.
func (p *Places) nearest(home string) []string {
	order, ok := p.order[home]
	if ok {
		return order
	}
	for region := range p.nodes {
		if region != home {
			order = append(order, region)
		}
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(p.step(home, a), p.step(home, b)), strings.Compare(a, b))
	})
	p.order[home] = order
	return order
}

// step is the distance between two regions in steps of a factor of two: nodes hold slightly different matrices, and should come
// to the same all the same. Regions of one step are in the order of their names.
func (p *Places) step(from, to string) int {
	const far = 64
	d, ok := p.rtt[from][to]
	if back, known := p.rtt[to][from]; known && (!ok || back < d) {
		d, ok = back, true
	}
	if !ok {
		return far
	}
	step := 0
	for ; d > time.Millisecond; d /= 2 {
		step++
	}
	return step
}

// rendezvous is a node's weight for a backend, by both names' hashes. Who has the most watches it: so a node that comes or goes
// changes nothing for backends that it does not watch.
func rendezvous(backend, node uint64) uint64 {
	x := backend ^ node*0x9e3779b97f4a7c15
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func hashOf(name string) uint64 {
	f := fnv.New64a()
	f.Write([]byte(name))
	return f.Sum64()
}

// Watches tells whether this node is to watch the backend: it is one of its observers, or it lists the backend and nobody else has
// a say on it, as when those chosen cannot reach it.
func (s *Snapshot) Watches(v *BackendView, lists bool, p *Places) bool {
	if slices.Contains(p.Observers(&v.Backend, v.AuthorRegion), s.Self.Name) {
		return true
	}
	return lists && !slices.ContainsFunc(v.Routes, func(r Route) bool {
		return r.Observer != s.Self.Name && (r.State == Up || r.State == Down)
	})
}
