package gossip

import (
	"time"

	"rangefinder/rib"
)

// resumeGrace is how long after a Resume the members of before may take to be heard again.
const resumeGrace = 15 * time.Second

// Word is what a speaker has said, for another one of the same node to go on from: under the same incarnation, so that what has
// been said still counts everywhere. The first one must have been killed. It can be written as JSON.
type Word struct {
	Incarnation   uint32
	Seq           uint64
	RowSeq        uint64
	Routes        []rib.Route
	Announcements []rib.Announcement
	Members       map[string]string // live ones but this node: their addresses, by name
}

// Word returns what s has said up to now.
func (s *Speaker) Word() Word {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := Word{Incarnation: s.own.incarnation, Seq: s.own.seq, RowSeq: s.own.rowSeq, Members: make(map[string]string, len(s.peers))}
	for _, t := range s.own.routes {
		w.Routes = append(w.Routes, t.route)
	}
	for _, a := range s.own.announcements {
		w.Announcements = append(w.Announcements, a)
	}
	for name, p := range s.peers {
		w.Members[name] = p.member.Addr
	}
	return w
}

// resume goes on from w. It is called before s is in use.
func (s *Speaker) resume(w *Word) {
	s.cfg.Self.Incarnation = w.Incarnation
	s.own.incarnation, s.own.seq, s.own.rowSeq = w.Incarnation, w.Seq, w.RowSeq
	for _, a := range w.Announcements {
		s.own.announcements[a.Backend.Name] = a
		s.cfg.Health.Announce(a)
	}
	for _, r := range w.Routes {
		s.own.routes[r.Backend] = told{route: r, seen: r}
		s.cfg.Health.Observe(r)
	}
	now := time.Now()
	for name, addr := range w.Members {
		if len(s.lost) < maxLost {
			s.lost[name] = lostPeer{addr: addr, at: now}
		}
	}
}

// missing lets those go who were members before a Resume and have not come back since: nobody else would tell the table.
func (s *Speaker) missing(before map[string]string) {
	t := time.NewTimer(resumeGrace)
	defer t.Stop()
	select {
	case <-s.done:
		return
	case <-t.C:
	}
	for name := range before {
		s.mu.Lock()
		_, here := s.peers[name]
		s.mu.Unlock()
		if !here {
			s.cfg.Health.MemberGone(name, time.Now())
			s.changed()
			s.log.Info("node gone", "node", name, "left", false)
		}
	}
}
