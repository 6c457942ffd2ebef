package rib

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// fill puts this half into a snapshot, with the latest role that any observer has told of each backend. It returns what most of them
// say, where that is another, by the backend's place in the snapshot; see settle.
func (h *Health) fill(s *Snapshot) (most map[int]roleAt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Self = h.members[h.self]
	if h.roll == nil {
		h.roll = byName(h.members, func(m Member) string { return m.Name })
	}
	s.Members, s.Drains = h.roll, h.drained
	s.Distances = make(map[string]time.Duration, len(h.distances)+1)
	s.Distances[s.Self.Region] = 0
	for region, d := range h.distances {
		s.Distances[region] = d.published
	}
	if h.sorted == nil {
		h.sorted = byName(h.backends, func(b *backend) string { return b.name })
	}
	s.Backends = make([]BackendView, 0, len(h.sorted))
	for _, b := range h.sorted {
		if b.counting != h.counting {
			b.view, b.shown = h.view(b)
			b.counting = h.counting
		}
		if !b.shown {
			continue
		}
		if v := &b.view; b.most != (roleAt{v.Role, v.Timeline}) {
			if most == nil {
				most = map[int]roleAt{}
			}
			most[len(s.Backends)] = b.most
		}
		s.Backends = append(s.Backends, b.view)
	}
	return most
}

// view adds up what is known of one backend; false if nobody announces it.
func (h *Health) view(b *backend) (v BackendView, ok bool) {
	identity, conflict := b.identity(h.live)
	if identity == nil {
		return v, false
	}
	v = BackendView{
		Backend: identity.Backend, AuthorRegion: h.members[identity.Observer].Region,
		Evidence: b.evidence, Gauge: b.ownGauge(), Lag: LagUnknown, LagBytes: LagBytesUnknown,
	}
	v.Backend.Name = b.name
	v.Drained = h.drainOf(&v.Backend)
	up, down := 0, 0
	var beside time.Duration // seen by a node that stands where this one does
	for _, r := range b.routes {
		if !h.live(r.Observer, r.Stamp) || r.State == Withdrawn {
			continue
		}
		v.Routes = append(v.Routes, r)
		switch r.State {
		case Up:
			up++
		case Down:
			down++
		}
		if r.Latency > 0 && (v.Latency == 0 || r.Latency < v.Latency) {
			v.Latency = r.Latency
		}
		if r.Observer == h.self {
			v.Own = r.Latency
		} else if m := h.members[r.Observer]; m.Region == h.members[h.self].Region && r.Latency > 0 && (beside == 0 || r.Latency < beside) {
			beside = r.Latency
		}
		found := behind{r.Lag, r.LagBytes}
		if r.Observer == h.self && b.saw != nil {
			found = *b.saw
		}
		v.Lag = max(v.Lag, found.lag) // LagUnknown is below all others
		v.LagBytes = max(v.LagBytes, found.bytes)
		v.Load = max(v.Load, r.Load)
	}
	if v.Own == 0 {
		v.Own = beside
	}
	switch n := up + down; {
	case n == 0 && len(v.Routes) > 0:
		v.Reason = "its observers cannot tell"
	case n == 0:
		v.Reason = "no live observer"
	case 2*down > n:
		v.Verdict, v.Reason = Down, fmt.Sprintf("%d of %d observers say down", down, n)
	default:
		v.Verdict, v.Reason = Up, fmt.Sprintf("%d of %d observers say up", up, n)
		if v.Load == LoadAtLimit {
			v.Reason += ", at the limit of its load"
		}
	}
	latest, most := b.roleOf(h.live)
	if latest.role == RoleUnknown {
		latest, most = b.last, b.last
	}
	v.Role, v.Timeline, b.most = latest.role, latest.timeline, most
	if v.Verdict == StateUnknown && v.Role != RoleUnknown {
		v.Reason += ", last known as " + v.Role.String()
	}
	if conflict != "" {
		v.Reason += "; " + conflict
		v.Conflict = conflict
	}
	return v, true
}

// standing is the timeline that a backend follows, as far as most of its observers say; 0: unknown.
type standing struct {
	name     string
	timeline uint32
}

// copies are all backends of a shard that somebody announces.
func (h *Health) copies(shard string) (all []standing) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.backends {
		if identity, _ := b.identity(h.live); identity != nil && identity.Backend.Shard == shard {
			_, most := b.roleOf(h.live)
			all = append(all, standing{b.name, most.timeline})
		}
	}
	return all
}

// identity picks whose announcement counts: of the live authors, or if none lives of all, the one whose name sorts first.
// Authors that disagree are named: one of the configurations is wrong. An author that has started anew and not reached its backend yet
// takes nothing from what is known of it, as long as it is in the same place: every connection looks again which server it leads to.
func (b *backend) identity(live func(string, Stamp) bool) (chosen *Announcement, conflict string) {
	var all, current []Announcement
	for _, a := range b.announcements {
		if a.Gone {
			continue
		}
		all = append(all, a)
		if live(a.Observer, a.Stamp) {
			current = append(current, a)
		}
	}
	if len(current) == 0 {
		current = all
	}
	if len(current) == 0 {
		return nil, ""
	}
	chosen = &current[0]
	for i := range current[1:] {
		other := &current[1+i]
		x, y := chosen.Backend, other.Backend
		switch {
		case !x.at(&y),
			x.SystemID != 0 && y.SystemID != 0 && x.SystemID != y.SystemID:
			return chosen, fmt.Sprintf("%s and %s announce it differently, %s's word counts", chosen.Observer, other.Observer, chosen.Observer)
		case x.SystemID == 0:
			chosen.Backend.SystemID = y.SystemID // the same server, which only the other has reached
		}
	}
	b.recognize(&chosen.Backend)
	return chosen, ""
}

// recognize gives what is announced without a system identifier that of the server which was reached in the same place before.
func (b *backend) recognize(x *Backend) {
	if x.SystemID == 0 && b.server.at(x) {
		x.SystemID = b.server.SystemID
	}
}

// rankOf is how much a route counts for the role: one that is up before others, and one of a live observer before what is left of
// the gone; 0: not at all.
func rankOf(r *Route, live func(string, Stamp) bool) int {
	switch {
	case r.State == Withdrawn || r.Role == RoleUnknown:
		return 0
	case !live(r.Observer, r.Stamp):
		return 1
	case r.State == Up:
		return 3
	}
	return 2
}

// maxPromotions is how many timelines further than all others see it one observer may see a backend. Each promotion is one timeline,
// and the others see it too within a second or so.
const maxPromotions = 16

// alone tells whether that route is one observer's word against all others of its rank: its timeline is out of their reach. Of two
// observers that differ neither is alone.
func (b *backend) alone(r *Route, rank int, live func(string, Stamp) bool) bool {
	others := 0
	for i := range b.routes {
		o := &b.routes[i]
		if o.Observer == r.Observer || rankOf(o, live) != rank {
			continue
		}
		if others++; r.Timeline <= o.Timeline || r.Timeline-o.Timeline <= maxPromotions {
			return false
		}
	}
	return others > 1
}

// roleOf is what the routes say about the role. The latest word is that of the latest timeline, on one timeline the majority's, and primary if
// even; a timeline that one observer alone sees, far beyond what at least two others see, does not count. What most say is the word in the
// middle, by timeline: of an even number the later one of two, so that one of two observers may be the first to see a promotion.
func (b *backend) roleOf(live func(string, Stamp) bool) (latest, most roleAt) {
	best, votes := 0, 0 // votes: for primary minus for replica
	for i := range b.routes {
		r := &b.routes[i]
		rank := rankOf(r, live)
		if rank == 0 || rank >= best && b.alone(r, rank, live) {
			continue
		}
		vote := -1
		if r.Role == Primary {
			vote = 1
		}
		switch {
		case rank > best || rank == best && r.Timeline > latest.timeline:
			best, latest.timeline, votes = rank, r.Timeline, vote
		case rank == best && r.Timeline == latest.timeline:
			votes += vote
		}
	}
	if best == 0 {
		return roleAt{}, roleAt{}
	}
	if latest.role = Replica; votes >= 0 {
		latest.role = Primary
	}
	var said []roleAt
	for i := range b.routes {
		if r := &b.routes[i]; rankOf(r, live) == best {
			said = append(said, roleAt{r.Role, r.Timeline})
		}
	}
	slices.SortFunc(said, func(a, b roleAt) int {
		return cmp.Or(cmp.Compare(a.timeline, b.timeline), cmp.Compare(b.role, a.role)) // Primary is below Replica
	})
	return latest, said[len(said)/2]
}

// settle decides between what an observer said last of a shard's backends and what most of them say. As long as a primary lives, by what most
// say, that holds: one observer may be wrong, or lie, and the others see a promotion too within a second or so. Without such a primary it is the
// latest word that counts, for somebody has to see the next one first.
func settle(backends []BackendView, most map[int]roleAt) {
	if len(most) == 0 {
		return
	}
	said := func(i int) roleAt {
		if m, ok := most[i]; ok {
			return m
		}
		return roleAt{backends[i].Role, backends[i].Timeline}
	}
	type reign struct {
		latest uint32 // timeline of a primary
		lives  bool   // a primary of that timeline
	}
	shards := map[string]*reign{} // those of which not all is said alike
	for i := range most {
		shards[backends[i].Backend.Shard] = &reign{}
	}
	for i := range backends {
		v, m := &backends[i], said(i)
		shard := shards[v.Backend.Shard]
		if shard == nil || v.Refused != "" || m.role != Primary || m.timeline < shard.latest {
			continue
		}
		if m.timeline > shard.latest {
			shard.latest, shard.lives = m.timeline, false
		}
		shard.lives = shard.lives || !v.Down()
	}
	for i, m := range most {
		v := &backends[i]
		if shards[v.Backend.Shard].lives {
			v.doubt(m)
		}
	}
}

// doubt has the view go by what most observers say, and tells who says something else; but not of a replica that has gone on to another timeline.
func (v *BackendView) doubt(most roleAt) {
	latest := roleAt{v.Role, v.Timeline}
	v.Role, v.Timeline = most.role, most.timeline
	if latest.role == Replica && most.role == Replica {
		return
	}
	var who []string
	for _, r := range v.Routes {
		if r.Role == latest.role && r.Timeline == latest.timeline {
			who = append(who, r.Observer)
		}
	}
	if len(who) == 0 {
		who = []string{"an observer that is gone"}
	}
	verb := "say"
	if len(who) == 1 {
		verb = "says"
	}
	v.Doubted = fmt.Sprintf("%s %s that %s is a %s on timeline %d, and most of its observers that it is a %s on timeline %d: these are believed",
		strings.Join(who, " and "), verb, v.Backend.Name, latest.role, latest.timeline, most.role, most.timeline)
}
