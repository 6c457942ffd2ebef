package gossip

import (
	"time"

	"rangefinder/rib"
)

// plausible tells whether a stamp may be the named node's. Whoever holds the cluster key can speak in another's name, and that one
// goes on above what was said: so a lie must not take it to the end of all incarnations. It needs mu.
func (s *Speaker) plausible(observer string, stamp rib.Stamp) bool {
	if stamp.Incarnation <= manyBoots {
		return true
	}
	highest := s.boots[observer]
	if p, ok := s.peers[observer]; ok {
		highest = max(highest, p.member.Incarnation)
	}
	if observer == s.cfg.Self.Name {
		highest = s.own.incarnation
	}
	if stamp.Incarnation > max(highest, manyBoots)+bootStep {
		s.count.implausible.Add(1)
		return false
	}
	if observer != s.cfg.Self.Name && stamp.Incarnation > highest && (len(s.boots) < maxMembers || highest > 0) {
		s.boots[observer] = stamp.Incarnation
	}
	return true
}

// mine hears of a stamp of this node's own.
func (s *Speaker) mine(stamp rib.Stamp) {
	s.mu.Lock()
	ok := s.plausible(s.cfg.Self.Name, stamp)
	s.mu.Unlock()
	if ok {
		s.jump(stamp)
	}
}

// forged tells whether a record in this node's own name is none of its own: held is the stamp of what it has itself said last of that
// backend in this life, if ok; same: it says the same. What it said earlier may come late, and counts nowhere. It needs mu.
func (s *Speaker) forged(stamp, held rib.Stamp, ok, same bool) bool {
	if stamp.Incarnation != s.own.incarnation {
		return false // of an earlier life; or a later one, see mine
	}
	switch order := stamp.Compare(held); {
	case !ok, order > 0:
		return true
	case order == 0:
		return !same
	}
	return false
}

// disown goes on above all that was said in this node's name if something was forged: nothing else takes back what others believe this node
// has said of a backend that it does not observe.
func (s *Speaker) disown(forged bool) {
	if !forged {
		return
	}
	s.mu.Lock()
	next := s.own.incarnation + 1
	ok := s.own.jumps.take(time.Now(), jumpRate, jumpBurst) // else the next digest brings it again
	s.mu.Unlock()
	if ok {
		s.count.jumps.Add(1)
		s.log.Warn("heard something in this node's name that it has not said; going on above it", "incarnation", next)
		s.reincarnate(next)
	}
}
