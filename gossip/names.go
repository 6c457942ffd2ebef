package gossip

import (
	"maps"
	"time"
)

// admit holds the number of records to its bound. It needs mu.
func (s *Speaker) admit(key recordKey) bool {
	if _, ok := s.records[key]; ok {
		return true
	}
	if len(s.records) >= maxRecords {
		s.count.overBound.Add(1)
		return false
	}
	s.records[key] = struct{}{}
	return true
}

// makeRoom lets a backend go that nobody who lives announces or can tell anything of, for a new one of a live author: whoever makes some up in
// the name of a dead node must not keep it out. It needs mu.
func (s *Speaker) makeRoom(author string) bool {
	if _, live := s.peers[author]; !live {
		return false
	}
	gone, ok := s.cfg.Health.MakeRoom()
	if ok {
		delete(s.backends, gone)
		s.count.overBound.Add(1)
		s.changed()
	}
	return ok
}

// learn remembers what a hash stands for. It needs mu.
func (s *Speaker) learn(name string) bool {
	h := idOf(name)
	if old, ok := s.known[h]; ok {
		return old == name
	}
	if len(s.known) >= maxKnown {
		s.count.overBound.Add(1)
		return false
	}
	s.known[h] = name
	return true
}

// retryPending tries observations again whose names may be known by now.
func (s *Speaker) retryPending(out *outgoing) {
	s.mu.Lock()
	var ready []observation
	for key, p := range s.pending {
		_, ok1 := s.known[p.backend]
		_, ok2 := s.known[p.observer]
		if ok1 && ok2 {
			ready = append(ready, p.observation)
			delete(s.pending, key)
		}
	}
	s.mu.Unlock()
	for _, o := range ready {
		s.hearObservation(o, out)
	}
}

func (s *Speaker) forgetPending(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.pending {
		if now.Sub(p.since) > pendingTime {
			delete(s.pending, key)
		}
	}
}

// recount makes the bounds follow what Health has forgotten. Names that nobody bears any more are forgotten too, or whoever makes some up
// could keep all new ones out for good; so is the way to regions in which nothing is any more.
func (s *Speaker) recount() {
	announcements, routes := s.cfg.Health.Newer(nil)
	records := make(map[recordKey]struct{}, len(announcements)+len(routes))
	backends := make(map[string]struct{}, len(announcements))
	known := make(map[id]string)
	regions := map[string]bool{s.cfg.Self.Region: true}
	bears := func(names ...string) {
		for _, name := range names {
			known[idOf(name)] = name
		}
	}
	bears(s.cfg.Self.Name, s.cfg.Self.Region)
	for i := range announcements {
		a := &announcements[i]
		bears(a.Backend.Name, a.Observer)
		regions[a.Backend.Region] = true
		backends[a.Backend.Name] = struct{}{}
		records[recordKey{kindAnnouncement, idOf(a.Backend.Name), idOf(a.Observer)}] = struct{}{}
	}
	for i := range routes {
		r := &routes[i]
		bears(r.Backend, r.Observer)
		records[recordKey{kindObservation, idOf(r.Backend), idOf(r.Observer)}] = struct{}{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.peers {
		bears(name, p.member.Region)
	}
	s.records, s.backends, s.known = records, backends, known
	maps.DeleteFunc(s.own.rtt, func(region string, _ *smoothed) bool { return s.regions[region] == nil && !regions[region] })
}
