package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"
)

const (
	maxLost        = maxMembers     // nodes that are missing and remembered: all may go at one stroke
	lostTime       = 24 * time.Hour // and for how long
	rejoinInterval = 5 * time.Second
	aloneInterval  = 2 * time.Second
	resolveTimeout = 5 * time.Second
	namesInterval  = time.Minute // between tries of seeds that are host names, while others live
)

// lostPeer is a node that died, as far as memberlist can tell: it may be behind a cut.
type lostPeer struct {
	addr        string
	region      string
	at          time.Time
	incarnation uint32
}

// remember needs mu. Beyond the bound it lets the one go that has been missing for the longest.
func (s *Speaker) remember(p *peer) {
	if len(s.lost) >= maxLost {
		oldest, at := "", time.Now()
		for name, l := range s.lost {
			if oldest == "" || l.at.Before(at) {
				oldest, at = name, l.at
			}
		}
		delete(s.lost, oldest)
	}
	s.lost[p.member.Name] = lostPeer{p.member.Addr, p.member.Region, time.Now(), p.member.Incarnation}
}

// Lost is a node that was there and has not said goodbye: it is dead, or behind a cut.
type Lost struct {
	Name   string
	Region string
	Addr   string    // of its cluster port, host:port
	Since  time.Time // when it was given up; it was last heard some seconds before
}

// Lost returns the nodes that are missing, by name, until they are back or for a day. Those that only the process before this one has
// met, and of which nothing is known yet, are not among them.
func (s *Speaker) Lost() []Lost {
	s.mu.Lock()
	list := make([]Lost, 0, len(s.lost))
	for name, l := range s.lost {
		if l.region == "" {
			continue
		}
		list = append(list, Lost{Name: name, Region: l.region, Addr: l.addr, Since: l.at})
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b Lost) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Forget lets those of the named nodes go that are missing, for an operator has said that they are gone for good: nobody misses them any more or
// looks for them, and what they had others may have. It returns where they were. One that is back all the same is a member like any other.
func (s *Speaker) Forget(names []string) (addrs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if l, missing := s.lost[name]; missing {
			addrs = append(addrs, l.addr)
			delete(s.lost, name)
		}
	}
	return addrs
}

// rejoin tries to reach nodes that memberlist has given up: it forgets the dead, and after a long cut both sides would
// stay apart for ever.
func (s *Speaker) rejoin() {
	for {
		wait := rejoinInterval
		if s.live.Load() == 0 || s.conflict() {
			wait = aloneInterval
		}
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-s.done:
			t.Stop()
			return
		case <-t.C:
		}
		addrs := s.lostAddrs()
		if name := s.seedName(); len(addrs) == 0 && name != "" {
			addrs = s.strangers(name)
		}
		if len(addrs) == 0 {
			continue
		}
		s.count.rejoins.Add(1)
		if _, err := s.Join(addrs); err != nil {
			s.log.Debug("rejoin failed", "error", err)
		}
	}
}

// conflict tells whether others may refuse this node because they remember it under another address.
func (s *Speaker) conflict() bool { return int64(s.clock()) < s.conflictUntil.Load() }

// lostAddrs picks whom to try. In a large cluster not everybody tries everybody: together the nodes try each lost one
// about three times in an interval.
func (s *Speaker) lostAddrs() (addrs []string) {
	var seeds []string
	if s.cfg.Seeds != nil {
		seeds = s.cfg.Seeds()
	}
	here := make(map[string]struct{})
	if list := s.list.Load(); list != nil {
		here[list.LocalNode().Address()] = struct{}{}
	}
	conflict := s.conflict()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var live []string
	for _, p := range s.peers {
		here[p.member.Addr] = struct{}{}
		live = append(live, p.member.Addr)
	}
	var missing []string
	for _, addr := range seeds {
		// Whether a host name is one of the members we cannot tell without a question: see seedName.
		if _, ok := here[addr]; !ok && (len(live) == 0 || numeric(addr)) {
			missing = append(missing, addr)
		}
	}
	for name, l := range s.lost {
		if now.Sub(l.at) > lostTime {
			delete(s.lost, name)
		} else if _, ok := here[l.addr]; !ok {
			missing = append(missing, l.addr)
		}
	}
	if conflict && len(live) > 0 {
		addrs = append(addrs, live[rand.IntN(len(live))])
	}
	chance := 1.0
	if n := len(live); n > 0 {
		chance = 3 * float64(len(missing)) / float64(n)
	}
	if len(missing) > 0 && rand.Float64() < chance {
		addrs = append(addrs, missing[rand.IntN(len(missing))])
		if len(live) == 0 { // nobody else tries for us
			for _, addr := range missing[:min(len(missing), 3)] {
				if addr != addrs[0] {
					addrs = append(addrs, addr)
				}
			}
		}
	}
	return addrs
}

// seedName picks a seed that is a host name, now and then: it may lead to nodes that are not among the live ones, and whose addresses
// nobody here has ever known, as after a cut in which one side was started anew. "": not now. It is called by rejoin alone.
func (s *Speaker) seedName() string {
	now := time.Now()
	if s.cfg.Seeds == nil || now.Sub(s.named) < namesInterval {
		return ""
	}
	s.named = now
	names := slices.DeleteFunc(slices.Clone(s.cfg.Seeds()), numeric)
	if len(names) == 0 {
		return ""
	}
	return names[rand.IntN(len(names))]
}

// strangers are the addresses of a host name at which no live node stands, as far as this node knows.
func (s *Speaker) strangers(name string) []string {
	addrs, err := s.resolve(name)
	if err != nil {
		s.log.Debug("a seed has no address", "seed", name, "error", err)
		return nil
	}
	here := make(map[string]bool)
	if list := s.list.Load(); list != nil {
		here[list.LocalNode().Address()] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		here[p.member.Addr] = true
	}
	return slices.DeleteFunc(addrs, func(addr string) bool { return here[addr] })
}

// resolve turns host:port into addresses with numbers. memberlist would ask the DNS server itself, by a query (ANY) that
// many refuse.
func (s *Speaker) resolve(addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{addr}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := s.cfg.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip.String(), port)
	}
	return addrs, nil
}

func numeric(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && net.ParseIP(host) != nil
}
