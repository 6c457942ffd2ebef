package memnet

import (
	"fmt"
	"hash/fnv"
	"math"
	"net"
	"strconv"
	"sync"
	"time"
)

// Everyone stands for every host in Cut, CutOneWay, Heal, SetRTT and SetLoss.
const Everyone = "*"

// Net is one network. All its methods may be called from any goroutine.
type Net struct {
	// constant
	seed uint64

	mu      sync.Mutex
	hosts   map[string]*Host // by name
	byIP    map[string]*Host
	byAddr  map[string]target      // addresses that were found before
	rtt     map[pair]time.Duration // both directions are stored
	loss    map[pair]float64
	cut     map[pair]bool // directed
	alone   map[string]bool
	frozen  map[*Host][]func() // what arrives at them when they are thawed
	jitter  float64
	links   uint64        // changes with whatever decides the fate of things between two hosts
	silent  bool          // packets are dropped
	changed chan struct{} // closed and replaced when a link is cut or healed
}

// pair is a directed pair of host names, regions or Everyone.
type pair struct{ from, to string }

// New makes a network without hosts, latency or loss. Two nets with one seed treat their packets alike.
func New(seed uint64) *Net {
	return &Net{
		seed:    seed,
		hosts:   make(map[string]*Host),
		byIP:    make(map[string]*Host),
		byAddr:  make(map[string]target),
		rtt:     make(map[pair]time.Duration),
		loss:    make(map[pair]float64),
		cut:     make(map[pair]bool),
		alone:   make(map[string]bool),
		frozen:  make(map[*Host][]func()),
		changed: make(chan struct{}),
	}
}

// Host adds a host, or returns the one that has the name. It gets an address of its own in 10.0.0.0/8.
func (n *Net) Host(name, region string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, ok := n.hosts[name]; ok {
		return h
	}
	i := len(n.hosts) + 1
	ip := net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)).To4()
	h := &Host{
		net:       n,
		name:      name,
		region:    region,
		ip:        ip,
		hash:      hash(name),
		links:     make(map[*Host]*link),
		listeners: make(map[int]*Listener),
		sockets:   make(map[int]*Transport),
		conns:     make(map[*Conn]struct{}),
		nextPort:  40000,
	}
	n.hosts[name] = h
	n.byIP[ip.String()] = h
	return h
}

// SetRTT sets the round trip between two hosts or two regions (or one region and itself). A pair of hosts goes before
// a host and a region, and that before a pair of regions. Unset: no delay.
func (n *Net) SetRTT(a, b string, rtt time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rtt[pair{a, b}] = rtt
	n.rtt[pair{b, a}] = rtt
	n.links++
}

// SetJitter lets every delay vary evenly by this fraction of itself up and down: 0.1 is ten percent.
func (n *Net) SetJitter(fraction float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.jitter = min(max(fraction, 0), 1)
	n.links++
}

// SetLoss sets the chance (0 to 1) that a packet between a and b, either way, is lost.
func (n *Net) SetLoss(a, b string, p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss[pair{a, b}] = p
	n.loss[pair{b, a}] = p
	n.links++
}

// SetSilent drops all packets, and lets streams go on as if nothing were lost.
func (n *Net) SetSilent(silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = silent
}

// Cut stops everything between a and b: hosts, regions or Everyone. What is on its way still arrives. Traffic inside a
// or inside b goes on, unless they are the same.
func (n *Net) Cut(a, b string) {
	n.mu.Lock()
	n.cut[pair{a, b}] = true
	n.cut[pair{b, a}] = true
	n.signal()
	n.mu.Unlock()
}

// CutOneWay stops what goes from one to the other; the way back stays open.
func (n *Net) CutOneWay(from, to string) {
	n.mu.Lock()
	n.cut[pair{from, to}] = true
	n.signal()
	n.mu.Unlock()
}

// Isolate cuts a host or a region off from everything outside it; inside the region traffic goes on.
func (n *Net) Isolate(name string) {
	n.mu.Lock()
	n.alone[name] = true
	n.signal()
	n.mu.Unlock()
}

// Rejoin undoes Isolate.
func (n *Net) Rejoin(name string) {
	n.mu.Lock()
	delete(n.alone, name)
	n.healed()
}

// Heal undoes Cut and CutOneWay of this very pair. Stalled streams go on.
func (n *Net) Heal(a, b string) {
	n.mu.Lock()
	delete(n.cut, pair{a, b})
	delete(n.cut, pair{b, a})
	n.healed()
}

// HealAll undoes every cut and every Isolate.
func (n *Net) HealAll() {
	n.mu.Lock()
	clear(n.cut)
	clear(n.alone)
	n.healed()
}

// Freeze is what SIGSTOP on a host's processes looks like from the network: nothing leaves it, streams to and from it stall, dialing it is
// not answered, and packets wait in its sockets until Thaw. Its timers go on meanwhile: what it does by them nobody sees.
func (n *Net) Freeze(h *Host) {
	n.mu.Lock()
	if _, ok := n.frozen[h]; !ok {
		n.frozen[h] = nil
	}
	n.signal()
	n.mu.Unlock()
}

// Thaw undoes Freeze.
func (n *Net) Thaw(h *Host) {
	n.mu.Lock()
	waiting := n.frozen[h]
	delete(n.frozen, h)
	n.healed()
	for _, arrive := range waiting {
		arrive()
	}
}

// Close closes every host: transports, listeners and connections. No goroutine of the net is left behind (it has none:
// timers deliver, and they find their receivers closed).
func (n *Net) Close() {
	n.mu.Lock()
	hosts := make([]*Host, 0, len(n.hosts))
	for _, h := range n.hosts {
		hosts = append(hosts, h)
	}
	n.mu.Unlock()
	for _, h := range hosts {
		h.Close()
	}
}

// healed is called with mu held and releases it: stalled stream data gets its time of arrival now.
func (n *Net) healed() {
	n.signal()
	var conns []*Conn
	for _, h := range n.hosts {
		for c := range h.conns {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.out.restart()
		c.in.restart()
	}
}

func (n *Net) signal() {
	n.links++
	close(n.changed)
	n.changed = make(chan struct{})
}

// fate decides what happens to the next thing that goes from one host to another.
type fate struct {
	delay time.Duration
	lost  bool
	cut   bool
	still bool           // it is cut only in that the receiver is frozen
	luck  func() float64 // more draws for this thing
}

// link is the way from one host to another, and what is set for it.
type link struct {
	links uint64 // as Net.links was when the others were looked up
	rtt   float64
	loss  float64
	cut   bool
	still bool   // see fate
	count uint64 // things that have gone this way
}

// fateLocked needs mu.
func (n *Net) fateLocked(from, to *Host) fate {
	l := from.links[to]
	if l == nil {
		l = &link{links: n.links - 1}
		from.links[to] = l
	}
	if l.links != n.links {
		l.links, l.rtt = n.links, float64(lookup(n.rtt, from, to))
		if from != to {
			severed := n.isCutLocked(from, to) || n.frozenLocked(from)
			l.still = !severed && n.frozenLocked(to)
			l.loss, l.cut = lookup(n.loss, from, to), severed || l.still
		}
	}
	i := l.count
	l.count++
	state := n.seed ^ from.hash*3 ^ to.hash*5 ^ i*0x9e3779b97f4a7c15
	luck := func() float64 {
		state = mix(state + 0x9e3779b97f4a7c15)
		return float64(state>>11) / (1 << 53)
	}
	f := fate{luck: luck, cut: l.cut, still: l.still}
	if from != to {
		f.lost = luck() < l.loss
	}
	f.delay = time.Duration(math.Max(l.rtt/2*(1+n.jitter*(2*luck()-1)), 0))
	return f
}

func (n *Net) isCutLocked(from, to *Host) bool {
	for name := range n.alone {
		inside := func(h *Host) bool { return h.name == name || h.region == name }
		if inside(from) != inside(to) {
			return true
		}
	}
	if len(n.cut) == 0 {
		return false
	}
	for _, a := range [...]string{from.name, from.region, Everyone} {
		for _, b := range [...]string{to.name, to.region, Everyone} {
			if n.cut[pair{a, b}] {
				return true
			}
		}
	}
	return false
}

func (n *Net) frozenLocked(h *Host) bool {
	_, ok := n.frozen[h]
	return ok
}

// lookup finds the most particular entry for two hosts.
func lookup[V any](m map[pair]V, from, to *Host) (v V) {
	for _, p := range [...]pair{
		{from.name, to.name},
		{from.name, to.region}, {from.region, to.name},
		{from.region, to.region},
		{from.name, Everyone}, {Everyone, to.name},
		{from.region, Everyone}, {Everyone, to.region},
		{Everyone, Everyone},
	} {
		if v, ok := m[p]; ok {
			return v
		}
	}
	return v
}

// target is what an address means.
type target struct {
	host *Host
	port int
}

// find returns the host that has the address's IP, and the port.
func (n *Net) find(addr string) (*Host, int, error) {
	n.mu.Lock()
	t, ok := n.byAddr[addr]
	n.mu.Unlock()
	if ok {
		return t.host, t.port, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, 0, err
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return nil, 0, fmt.Errorf("memnet: port of %q: %w", addr, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := n.byIP[host]
	if !ok {
		h, ok = n.hosts[host]
	}
	if ok {
		n.byAddr[addr] = target{h, p}
		return h, p, nil
	}
	return nil, 0, &net.AddrError{Err: "no such host on this memnet", Addr: addr}
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// mix is splitmix64's finalizer.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
