package gossip

import (
	"encoding/binary"
	"time"

	"rangefinder/rib"
)

// recheckGap is the least time between two such words about one backend, said or heard: each costs its server a login. A backend of a shard
// without a primary is looked at as often anyway.
const recheckGap = 200 * time.Millisecond

// Recheck has those who observe a backend look at it now, this node too: it may have another role than they have told. Nobody answers that, but
// what they find comes as their observation. A word that is lost is lost: whoever goes on to miss a primary asks again.
func (s *Speaker) Recheck(v *rib.BackendView) {
	about := idOf(v.Backend.Name)
	s.mu.Lock()
	mayAsk := !s.closed && s.asked.may(about, time.Now())
	s.mu.Unlock()
	if !mayAsk {
		return
	}
	msg := appendRecheck(nil, about)
	for i := range v.Routes {
		if to, _, ok := s.peerNode(v.Routes[i].Observer); ok {
			s.send(to, msg)
		} else if v.Routes[i].Observer == s.cfg.Self.Name {
			s.hearRecheck(about)
		}
	}
}

// differs tells whether another observer sees a backend up in another role than this node last did: one of the two has not looked since, and as
// long as they differ the others may not know whom to believe.
func (s *Speaker) differs(r *rib.Route) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, ok := s.own.routes[r.Backend]
	return ok && r.State == rib.Up && own.route.State == rib.Up && (own.route.Role != r.Role || own.route.Timeline != r.Timeline)
}

// hearRecheck has this node look at a backend, if it is one that somebody has announced.
func (s *Speaker) hearRecheck(backend id) {
	s.mu.Lock()
	name := s.known[backend]
	_, announced := s.backends[name]
	looks := announced && s.heardAsks.may(backend, time.Now())
	s.mu.Unlock()
	if !looks {
		s.count.unanswered.Add(1)
		return
	}
	if s.cfg.OnRecheck != nil {
		s.cfg.OnRecheck(name)
	}
}

// asks are the backends that were asked about less than recheckGap ago.
type asks map[id]time.Time

// may tells whether a backend may be asked about again, and if so notes that it is. It forgets what is over, so there are never more
// than the backends that are asked about within recheckGap.
func (a asks) may(backend id, now time.Time) bool {
	for b, at := range a {
		if now.Sub(at) >= recheckGap {
			delete(a, b)
		}
	}
	if _, ok := a[backend]; ok {
		return false
	}
	a[backend] = now
	return true
}

func appendRecheck(dst []byte, backend id) []byte {
	return binary.BigEndian.AppendUint64(append(dst, kindRecheck, version), uint64(backend))
}
